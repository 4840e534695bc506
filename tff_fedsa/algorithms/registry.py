"""All methods by name. A lookup imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import importlib
import inspect
from typing import Any, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.algorithms import method as method_lib
from tff_fedsa.runs import errors

with epy.lazy_imports():
  from tff_fedsa import composer
  from tff_fedsa.aggregation import compression as compression_lib
  from tff_fedsa.aggregation import secure as secure_lib
  from tff_fedsa.client import attacks as attacks_lib
  from tff_fedsa.client import local_training
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional
  from tff_fedsa.privacy import private_process
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
  max_examples: Optional[int] = None,
  aggregator: Optional[aggregator_config.AggregatorConfig] = None,
  attack: Optional[attacks_lib.Attack] = None,
  privacy: Optional[private_process.Mechanism] = None,
  compression: Optional[compression_lib.CompressionConfig] = None,
  secure: Optional[secure_lib.SecureConfig] = None,
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
    max_examples: Examples of the largest client. With it the server turns away
      clients that claim more. Default: there is no such maximum.
    aggregator: Decides how the server joins the clients' messages. Default: as
      the method does.
    attack: Simulated attackers. Default: none.
    privacy: Differential privacy, for methods that average by class. Default:
      none.
    compression: Compression of what clients send, for methods whose clients
      send class means. Default: none.
    secure: Secure aggregation, for methods whose server averages what clients
      send. Default: none.
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
  if aggregator is not None and (factory := aggregator.build()) is not None:
    options['aggregator_factory'] = factory
    if 'aggregator_factory' not in taken:
      raise errors.UserError(
        f'{name} has no other aggregator than its own, found '
        f'aggregator={aggregator.aggregator!r}.'
      )
  with composer.deferred():
    process = method.build_fn(
      models,
      config,
      input_spec=input_spec,
      **{n: value for n, value in options.items() if n in taken},
    )
    changes: dict[str, Any] = {}
    if averaging is not None and not process.averages_weights:
      changes['averaging'] = averaging
    if max_examples is not None and process.parts is not None:
      local = options.get('local') or local_training.LocalTrainingConfig()
      changes['limits'] = dataclasses.replace(
        process.parts.limits,
        max_examples=local.visits(max_examples),
        num_epochs=local.of_clients().epochs_multiple or local.num_epochs,
      )
    if attack is not None:
      changes['attack'] = attack
    if changes:
      process = composer.with_parts(process, **changes)
    if compression is not None and compression.is_used:
      process = compression_lib.compress(process, compression)
    if privacy is not None:
      process = private_process.protect(process, privacy)
    if secure is not None and secure.secure:
      process = secure_lib.protect(process, secure)
  process.compose()
  return process
