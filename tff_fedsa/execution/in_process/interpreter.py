"""Turns building blocks into Python closures, once for all rounds."""

from collections.abc import Callable
from typing import Any

import tensorflow_federated as tff

from tff_fedsa.execution.in_process import intrinsics as intrinsics_lib
from tff_fedsa.execution.in_process import tensorflow_functions
from tff_fedsa.execution.in_process import values

Environment = dict[str, Any]
Closure = Callable[[Environment], Any]


class Interpreter:
  """Builds closures `closure(environment) -> value` from building blocks."""

  def __init__(
    self,
    functions: tensorflow_functions.FunctionCache,
    intrinsics: intrinsics_lib.Intrinsics,
  ):
    self._functions = functions
    self._intrinsics = intrinsics

  def build(self, block: tff.framework.ComputationBuildingBlock) -> Closure:
    """Returns the closure of a building block.

    Raises:
      NotImplementedError: If the block cannot run here.
    """
    for kind, build in _BUILDERS.items():
      if isinstance(block, kind):
        return build(self, block)
    raise NotImplementedError(
      f'{type(block).__name__} does not run in process: '
      f'{block.compact_representation()[:200]}'
    )

  def _reference(self, block):
    name = block.name
    return lambda environment: environment[name]

  def _selection(self, block):
    source, index = self.build(block.source), block.as_index()
    return lambda environment: source(environment)[index]

  def _struct(self, block):
    parts = [
      (name, self.build(part))
      for name, part in tff.structure.iter_elements(block)
    ]
    return lambda environment: values.Struct(
      [(name, part(environment)) for name, part in parts]
    )

  def _call(self, block):
    fn = self.build(block.function)
    if block.argument is None:
      return lambda environment: fn(environment)()
    argument = self.build(block.argument)
    return lambda environment: fn(environment)(argument(environment))

  def _lambda(self, block):
    body, parameter = self.build(block.result), block.parameter_name
    captured = _free_names(block)

    def closure(environment):
      # A copy, because a block drops names that it no longer needs.
      known = {name: environment[name] for name in captured}

      def fn(*argument):
        if parameter is None:
          return body(dict(known))
        return body({**known, parameter: argument[0]})

      # For callers that compute it elsewhere.
      fn.block = block
      return fn

    return closure

  def _block(self, block):
    bindings = [(name, self.build(value)) for name, value in block.locals]
    result = self.build(block.result)
    dropped = _last_uses(block)

    def closure(environment):
      environment = dict(environment)
      for (name, value), names in zip(bindings, dropped):
        environment[name] = value(environment)
        for last_used in names:
          del environment[last_used]
      return result(environment)

    return closure

  def _compiled_computation(self, block):
    language = block.proto.WhichOneof('computation')
    if language != 'tensorflow':
      raise NotImplementedError(
        f'A computation in {language} does not run in process, only TensorFlow.'
      )
    function = self._functions.get(block.proto, block.type_signature)
    return lambda environment: function

  def _literal(self, block):
    value = values.ingest(block.value, block.type_signature, 0)
    return lambda environment: value

  def _intrinsic(self, block):
    implementation = self._intrinsics.get(block.uri)
    block_type = block.type_signature
    if not isinstance(block_type, tff.FunctionType):
      return lambda environment: implementation(None, block_type)

    def fn(argument):
      return implementation(argument, block_type.result)

    return lambda environment: fn


_BUILDERS = {
  tff.framework.Reference: Interpreter._reference,
  tff.framework.Selection: Interpreter._selection,
  tff.framework.Struct: Interpreter._struct,
  tff.framework.Call: Interpreter._call,
  tff.framework.Lambda: Interpreter._lambda,
  tff.framework.Block: Interpreter._block,
  tff.framework.CompiledComputation: Interpreter._compiled_computation,
  tff.framework.Literal: Interpreter._literal,
  tff.framework.Intrinsic: Interpreter._intrinsic,
}


def _free_names(
  block: tff.framework.ComputationBuildingBlock,
) -> frozenset[str]:
  """Returns the free names of a building block."""
  if isinstance(block, tff.framework.Reference):
    return frozenset([block.name])
  if isinstance(block, tff.framework.Lambda):
    return _free_names(block.result) - {block.parameter_name}
  if isinstance(block, tff.framework.Block):
    free = _free_names(block.result)
    for name, value in reversed(block.locals):
      free = (free - {name}) | _free_names(value)
    return free
  return frozenset().union(*map(_free_names, block.children()))


def _last_uses(block: tff.framework.Block) -> list[list[str]]:
  """Returns, per local, the names of the block without later uses.

  So a client's update is freed after its aggregation, not at the end of the
  round.
  """
  uses = [_free_names(value) for _, value in block.locals]
  uses.append(_free_names(block.result))
  dropped: list[list[str]] = [[] for _ in block.locals]
  names = [name for name, _ in block.locals]
  for position, name in enumerate(names):
    last = max([position, *(i for i, used in enumerate(uses) if name in used)])
    # Names with two bindings stay.
    if last < len(names) and names.count(name) == 1:
      dropped[last].append(name)
  return dropped
