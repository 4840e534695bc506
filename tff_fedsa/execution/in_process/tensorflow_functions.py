"""A TensorFlow computation as a Python callable, imported once."""

import collections
from collections.abc import Callable, Iterator
import contextlib
import functools
import hashlib
import threading
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2

from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import graph_imports
from tff_fedsa.execution.in_process import operation_errors
from tff_fedsa.execution.in_process import values


class TensorFlowFunction:
  """Callable of TFF values: `fn(argument) -> result`, or `fn() -> result`.

  Several threads can call it at once, each on the device of its `tf.device`.
  Variables, tables and iterators belong to one call.

  Attributes:
    computation: The computation, for TFF's other runtimes.
    type_signature: The type of the computation.
  """

  def __init__(
    self,
    computation: computation_pb2.Computation,
    type_signature: tff.FunctionType,
    *,
    is_compiled: bool = True,
  ):
    """Imports the graph; `is_compiled`: see `GraphImport`."""
    self.computation = computation
    self.type_signature = type_signature
    parameter_type = type_signature.parameter
    self._parameter_leaves: list[tff.Type] = (
      [] if parameter_type is None else tff.structure.flatten(parameter_type)
    )
    self._result_leaves = tff.structure.flatten(type_signature.result)
    self._pack = packer(type_signature.result)
    # The iterator of a resulting data set is on the CPU.
    self._on_cpu = any(
      isinstance(leaf, tff.SequenceType) for leaf in self._result_leaves
    )
    self._import = functools.partial(
      graph_imports.GraphImport, computation.tensorflow, is_compiled=is_compiled
    )
    self._first = self._import()
    # Of a graph that is not reentrant, those that are not in use; `append` and
    # `pop` of a deque are atomic.
    self._free = collections.deque([self._first])

  def __call__(self, argument: Any = None) -> Any:
    """Runs the function on the current device.

    Args:
      argument: Structure of tensors and data sets, of the parameter's type.

    Raises:
      tf.errors.OpError: If an operation fails. The message names it.
    """
    inputs = [
      _to_input(leaf, leaf_type)
      for leaf, leaf_type in zip(leaves(argument), self._parameter_leaves)
    ]
    with self._imported() as imported:
      if self._on_cpu:
        with tf.device('CPU:0'):
          outputs = self._execute(imported, inputs)
      else:
        outputs = self._execute(imported, inputs)
    return self._pack(map(_from_output, outputs, self._result_leaves))

  @contextlib.contextmanager
  def _imported(self) -> Iterator[graph_imports.GraphImport]:
    """Yields an import. If the graph is not reentrant, no other call has it."""
    if self._first.is_reentrant:
      yield self._first
      return
    try:
      imported = self._free.pop()
    except IndexError:
      imported = self._import()
    try:
      yield imported
    finally:
      self._free.append(imported)

  def _execute(
    self, imported: graph_imports.GraphImport, inputs: list[tf.Tensor]
  ) -> list[tf.Tensor]:
    try:
      with cancellation.current().manager() as manager:
        return imported.execute(inputs, manager)
    except tf.errors.OpError as error:
      raise operation_errors.as_users_catch_it(error) from None


def leaves(value: Any) -> Iterator[Any]:
  """Yields the leaves of a value, in order."""
  if isinstance(value, values.Struct):
    for part in value:
      yield from leaves(part)
  else:
    yield value


def packer(value_type: tff.Type) -> Callable[[Iterator[Any]], Any]:
  """Returns a function that builds a value from its leaves."""
  if not isinstance(value_type, tff.StructType):
    return next
  packers = [
    (name, packer(part_type))
    for name, part_type in tff.structure.iter_elements(value_type)
  ]
  return lambda leaves: values.Struct(
    [(name, pack(leaves)) for name, pack in packers]
  )


def _to_input(leaf: Any, leaf_type: tff.Type) -> tf.Tensor:
  # The most frequent case. TensorFlow's own check takes longer than the rest.
  if type(leaf) is tf.__internal__.EagerTensor:
    return leaf
  if isinstance(leaf_type, tff.SequenceType):
    return tf.data.experimental.to_variant(leaf)
  return tf.convert_to_tensor(leaf)


def _from_output(output: tf.Tensor, leaf_type: tff.Type) -> Any:
  if isinstance(leaf_type, tff.SequenceType):
    return tf.data.experimental.from_variant(
      output, values.element_spec(leaf_type)
    )
  return output


class FunctionCache:
  """Imports each computation once, and forgets the least recently used."""

  def __init__(
    self,
    build: Callable[..., TensorFlowFunction] = TensorFlowFunction,
    max_functions: int = 1000,
  ):
    """Initializes `FunctionCache`.

    Args:
      build: Returns the function of a computation and its type.
      max_functions: The most functions that it keeps.
    """
    self._build = build
    self._max_functions = max_functions
    self._functions: collections.OrderedDict[Any, TensorFlowFunction] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()

  def get(
    self, proto: computation_pb2.Computation, type_signature: tff.FunctionType
  ) -> TensorFlowFunction:
    """Returns the function of a TensorFlow computation."""
    content = proto.tensorflow.SerializeToString(deterministic=True)
    key = (hashlib.sha256(content).digest(), str(type_signature))
    with self._lock:
      function = self._functions.get(key)
      if function is None:
        function = self._build(proto, type_signature)
        self._functions[key] = function
        if len(self._functions) > self._max_functions:
          self._functions.popitem(last=False)
      else:
        self._functions.move_to_end(key)
      return function

  def __len__(self) -> int:
    return len(self._functions)
