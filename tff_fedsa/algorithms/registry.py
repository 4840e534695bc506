"""All methods by name: what builds them, and what there is to choose."""

from collections.abc import Callable, Sequence
import inspect
from typing import Any, NamedTuple, Optional

from tff_fedsa import composer
from tff_fedsa.algorithms import fedavg
from tff_fedsa.algorithms import feddistill
from tff_fedsa.algorithms import fedgen
from tff_fedsa.algorithms import fedgh
from tff_fedsa.algorithms import fedkd
from tff_fedsa.algorithms import fedpcl
from tff_fedsa.algorithms import fedproto
from tff_fedsa.algorithms import fedprox
from tff_fedsa.algorithms import fedsa
from tff_fedsa.algorithms import fedtgp
from tff_fedsa.algorithms import fml
from tff_fedsa.algorithms import lg_fedavg
from tff_fedsa.algorithms import local
from tff_fedsa.models import functional
from tff_fedsa.server import averaging as averaging_lib


class Algorithm(NamedTuple):
  """A method.

  Attributes:
    title: As papers write it.
    build_fn: Its `build_*`.
  """

  title: str
  build_fn: Callable[..., composer.StatefulProcess]


_ALGORITHMS = {
  'fedsa': Algorithm('FedSA', fedsa.build_fedsa),
  'local': Algorithm('Local', local.build_local),
  'fedproto': Algorithm('FedProto', fedproto.build_fedproto),
  'fedtgp': Algorithm('FedTGP', fedtgp.build_fedtgp),
  'lg_fedavg': Algorithm('LG-FedAvg', lg_fedavg.build_lg_fedavg),
  'feddistill': Algorithm('FedDistill', feddistill.build_feddistill),
  'fedgh': Algorithm('FedGH', fedgh.build_fedgh),
  'fml': Algorithm('FML', fml.build_fml),
  'fedkd': Algorithm('FedKD', fedkd.build_fedkd),
  'fedavg': Algorithm('FedAvg', fedavg.build_fedavg),
  'fedprox': Algorithm('FedProx', fedprox.build_fedprox),
  'fedgen': Algorithm('FedGen', fedgen.build_fedgen),
  'fedpcl': Algorithm('FedPCL', fedpcl.build_fedpcl),
}
NAMES = tuple(_ALGORITHMS)

# What every `build_*` takes.
_COMMON = ('models', 'input_spec', 'optimizer', 'local')


def get(name: str) -> Algorithm:
  """Returns a method.

  Raises:
    ValueError: If there is none of that name.
  """
  if name not in _ALGORITHMS:
    raise ValueError(f'Unknown algorithm {name!r}; known: {", ".join(NAMES)}.')
  return _ALGORITHMS[name]


def hyperparameters(name: str) -> dict[str, Any]:
  """Returns a method's own arguments of `build`, with their defaults.

  Raises:
    ValueError: If there is no method of that name.
  """
  parameters = inspect.signature(get(name).build_fn).parameters
  return {
    parameter.name: parameter.default
    for parameter in parameters.values()
    if parameter.name not in _COMMON
  }


def build(
  name: str,
  models: Sequence[functional.FunctionalModel],
  *,
  averaging: Optional[averaging_lib.WeightAveraging] = None,
  **options: Any,
) -> composer.StatefulProcess:
  """Builds the process of a method.

  Args:
    name: One of `NAMES`.
    models: One per architecture.
    averaging: Makes the method one with an averaged model, for the protocol
      `global`; those that average weights anyway stay as they are.
    **options: `input_spec`, `optimizer`, `local` and the method's
      `hyperparameters`.

  Raises:
    ValueError: If there is no method of that name, or a value does not fit.
    TypeError: If the method does not take one of the options; those that it
      takes are listed.
  """
  build_fn = get(name).build_fn
  own = hyperparameters(name)
  unknown = sorted(set(options) - set(own) - set(_COMMON))
  if unknown:
    raise TypeError(
      f'{name} takes no {", ".join(unknown)}; it takes '
      f'{", ".join((*_COMMON[1:], *own))}.'
    )
  process = build_fn(models, **options)
  if averaging is None or process.averages_weights:
    return process
  return composer.with_averaging(process, averaging)
