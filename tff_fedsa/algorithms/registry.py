"""All methods by name. A lookup imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
import importlib
import inspect
from typing import Any, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.algorithms import method as method_lib
from tff_fedsa.runs import errors

with epy.lazy_imports():
  from tff_fedsa import composer
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional
  from tff_fedsa.server import averaging as averaging_lib

# Each name is that of a method and of its module in this package. The module
# has a `METHOD`.
NAMES = (
  'fedsa',
  'local',
  'fedproto',
  'fedtgp',
  'lg_fedavg',
  'feddistill',
  'fedgh',
  'fml',
  'fedkd',
  'fedavg',
  'fedprox',
  'fedgen',
  'fedpcl',
)
_registered: dict[str, method_lib.Method] = {}

# Arguments that `build` offers to all methods. A method takes those it needs.
_OFFERED = ('model_seed', 'max_participants', 'class_means')


def names() -> tuple[str, ...]:
  """Returns the names of all methods."""
  return (*NAMES, *_registered)


def register(method: method_lib.Method) -> None:
  """Registers your own method under its name.

  Raises:
    ValueError: If the name is taken.
  """
  if method.name in names():
    raise errors.UserError(
      f'An algorithm {method.name!r} is registered already.'
    )
  _registered[method.name] = method


def get(name: str) -> method_lib.Method:
  """Returns a method.

  Raises:
    ValueError: If there is no method of that name.
  """
  if name in NAMES:
    return importlib.import_module(f'{__package__}.{name}').METHOD
  if name not in _registered:
    raise errors.UserError(
      f'Unknown algorithm {name!r}; known: {", ".join(names())}.'
    )
  return _registered[name]


def methods() -> list[method_lib.Method]:
  """Returns all methods."""
  return [get(name) for name in names()]


def build(
  name: str,
  models: Sequence[functional.FunctionalModel],
  config: Optional[settings.Settings] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  averaging: Optional[averaging_lib.WeightAveraging] = None,
  **options: Any,
) -> composer.StatefulProcess:
  """Builds the process of a method.

  Args:
    name: One of `names()`.
    models: One model per architecture.
    config: The method's hyper-parameters, an object of `get(name).config`.
      Default: its defaults.
    input_spec: How models see the clients' images.
    averaging: Has clients begin a round with averaged weights of their
      architecture; methods that do so anyway stay as they are.
    **options: Further arguments of the method's builder, e.g. `optimizer` and
      `local`. Methods without use for `model_seed`, `max_participants` (clients
      of a round) or `class_means` (a `prototypes.ClassMeanConfig`) do not
      receive them.

  Raises:
    ValueError: If there is no method of that name, or a value does not fit.
    TypeError: If the hyper-parameters belong to another method, or the method
      does not take an option. The message lists the options that it takes.
  """
  method = get(name)
  if config is None:
    config = method.config()
  if not isinstance(config, method.config):
    raise TypeError(
      f'Expected the config of {name} to be a {method.config.__name__}, found '
      f'{type(config).__name__}.'
    )
  parameters = inspect.signature(method.build_fn).parameters
  taken = [n for n in parameters if n not in ('models', 'config')]
  unknown = sorted(set(options) - {*taken, *_OFFERED})
  if unknown:
    raise TypeError(
      f'{name} takes no {", ".join(unknown)}; it takes {", ".join(taken)}.'
    )
  process = method.build_fn(
    models,
    config,
    input_spec=input_spec,
    **{n: value for n, value in options.items() if n in taken},
  )
  if averaging is None or process.averages_weights:
    return process
  return composer.with_averaging(process, averaging)
