"""Functions of one client's tensors, vectorized over the clients of a stack.

A stack holds the tensors of K clients of one architecture, each with a leading
dimension of K. `vectorize` converts a function operation by operation with
TensorFlow's `vectorized_map`: a matrix product becomes a batched one, BatchNorm
treats the clients as channels. TensorFlow has no conversion of convolutions
whose kernels differ. Here they become one grouped convolution on GPUs. On CPUs,
which have no gradients of grouped convolutions, they stay one per client.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import importlib
import re
import threading
from typing import Any, Optional

import tensorflow as tf

from tff_fedsa.runs import errors

# The package hides the module behind a function of the same name.
_pfor = importlib.import_module('tensorflow.python.ops.parallel_for.pfor')

# Operations of one client after the other. Each draw has its own seed.
_PER_CLIENT = (
  'StatelessRandomGetKeyCounter',
  'StatelessRandomNormalV2',
  'StatelessRandomUniformV2',
  'StatelessRandomUniformFullIntV2',
  'StatelessRandomUniformIntV2',
  'StatelessTruncatedNormalV2',
)
# Convolution -> position of its kernel, or of the kernel's output gradients.
_CONVOLUTIONS = {
  'Conv2D': 1,
  'Conv2DBackpropInput': 1,
  'Conv2DBackpropFilter': 2,
}
_CASES = ('Case', 'StatelessCase')
# Their results have another size for each client.
_OF_ANY_SIZE = (
  'DynamicPartition',
  'ListDiff',
  'Unique',
  'UniqueV2',
  'UniqueWithCounts',
  'UniqueWithCountsV2',
  'Where',
)
_FAILURES = (AssertionError, NotImplementedError, TypeError, ValueError)
_lock = threading.Lock()


def vectorize(
  fn: Callable[..., Any],
  stacked: Any,
  *,
  name: str,
  halves: Sequence[tf.keras.Model],
  grouped: Optional[bool] = None,
) -> Any:
  """Returns `fn` of each client, stacked. Call it while tracing.

  Args:
    fn: `fn(*arguments)` of one client.
    stacked: Tuple of the arguments, structures of tensors with a static leading
      dimension K.
    name: Name of the model, for errors.
    halves: The Keras models that `fn` calls, for errors.
    grouped: Whether convolutions become grouped ones. Default: if this machine
      has a GPU.

  Raises:
    UserError: If an operation has no vectorized form. The message names its
      layer.
  """
  if grouped is None:
    grouped = bool(tf.config.list_physical_devices('GPU'))
  try:
    count = tf.nest.flatten(stacked)[0].shape[0]
    with _converters(count, grouped):
      return tf.vectorized_map(lambda one: fn(*one), stacked, warn=False)
  except _FAILURES as error:
    raise _refusal(name, halves, str(error)) from error


def check_shapes(
  step: Any, *, name: str, halves: Sequence[tf.keras.Model]
) -> None:
  """Refuses a step with shapes that depend on its numbers.

  Args:
    step: A concrete function of batches of a static size.
    name: Name of the model.
    halves: The Keras models that the function calls.

  Raises:
    UserError: If there are such shapes. The message names the layer.
  """
  graph_def = step.graph.as_graph_def()
  nodes = [*graph_def.node]
  for function in graph_def.library.function:
    nodes += function.node_def
  for node in nodes:
    if node.op in _OF_ANY_SIZE:
      raise _refusal(
        name, halves, f'{node.name}: the size of {node.op} is not fixed.'
      )


def _refusal(
  name: str, halves: Sequence[tf.keras.Model], problem: str
) -> errors.UserError:
  layer = _layer_in(problem, halves)
  where = f'its layer {layer!r}' if layer else 'its objective'
  problem = ' '.join(problem.split())
  return errors.UserError(
    f'Model {name!r}: clients cannot be trained together, because {where} has '
    'no form for several clients. Leave batch_clients out, or replace the '
    f'layer. TensorFlow says: {problem[:300]}'
  )


def _layer_in(problem: str, halves: Sequence[tf.keras.Model]) -> Optional[str]:
  """Returns the innermost layer that a problem's operations belong to."""
  names = {
    layer.name
    for half in halves
    for layer in half._flatten_layers(include_self=False)  # pylint: disable=protected-access
  }
  scopes = re.findall(r'[\w.]+(?=/)', problem)
  found = [scope for scope in scopes if scope in names]
  return found[-1] if found else None


@contextlib.contextmanager
def _converters(count: int, grouped: bool) -> Iterator[None]:
  """Gives `vectorized_map` the conversions that it lacks, for K clients."""
  registry = _pfor._pfor_converter_registry  # pylint: disable=protected-access
  per_client = functools.partial(_per_client, count)
  own: dict[str, Callable[[Any], Any]] = dict.fromkeys(_PER_CLIENT, per_client)
  for kind in _CASES:
    own[kind] = functools.partial(_case, registry[kind])
  for kind, kernel in _CONVOLUTIONS.items():
    own[kind] = _convolution(
      registry[kind],
      kernel,
      functools.partial(_GROUPED[kind], count) if grouped else per_client,
    )
  with _lock:
    before = {kind: registry.get(kind) for kind in own}
    registry.update(own)
    try:
      yield
    finally:
      for kind, converter in before.items():
        if converter is None:
          del registry[kind]
        else:
          registry[kind] = converter


def _per_client(count: int, pfor_input: Any) -> Sequence[Any]:
  """Converts an operation to one of each client."""
  if pfor_input.pfor.all_indices_partitioned:
    # In a branch that only some clients take.
    return _pfor._fallback_converter(pfor_input)  # pylint: disable=protected-access
  inputs = [
    tf.unstack(value, count) if stacked else [value] * count
    for value, stacked, _ in pfor_input.inputs
  ]
  outputs = [_create(pfor_input, one) for one in zip(*inputs)]
  return [_pfor.wrap(tf.stack(parts), True) for parts in zip(*outputs)]


def _case(same_branch: Callable[[Any], Any], pfor_input: Any) -> Sequence[Any]:
  """Converts a choice among branches; TensorFlow's own mixes up their outputs.

  All clients compute all branches.
  """
  index, is_stacked, _ = pfor_input.input(0)
  if not is_stacked:
    return same_branch(pfor_input)
  results: Any = None
  for number, branch in enumerate(pfor_input.get_attr('branches')):
    outputs = _pfor._outputs_for_branch(  # pylint: disable=protected-access
      branch.name, None, pfor_input, pfor_input.inputs[1:]
    )
    if results is None:
      results = outputs
    results = [
      tf.where(
        tf.reshape(index == number, [-1, *[1] * (output.shape.rank - 1)]),
        output,
        result,
      )
      for output, result in zip(outputs, results)
    ]
  return [_pfor.wrap(result, True) for result in results]


def _create(pfor_input: Any, inputs: Sequence[tf.Tensor]) -> Any:
  """Creates the operation with other inputs; returns its outputs."""
  return _pfor._create_op(  # pylint: disable=protected-access
    pfor_input.op_type,
    list(inputs),
    [output.dtype for output in pfor_input.outputs],
    attrs=pfor_input.op.node_def.attr,
  ).outputs


def _convolution(
  same_kernel: Callable[[Any], Any],
  kernel: int,
  own_kernels: Callable[[Any], Any],
) -> Callable[[Any], Any]:
  """Returns the conversion of a convolution or of a gradient.

  Args:
    same_kernel: TensorFlow's, for clients with the same kernel.
    kernel: Position of the input that differs if kernels do.
    own_kernels: The conversion if kernels differ.
  """

  def convert(pfor_input):
    kind = pfor_input.op_type
    if not pfor_input.input(kernel).is_stacked or (
      kind == 'Conv2DBackpropFilter' and not pfor_input.input(0).is_stacked
    ):
      return same_kernel(pfor_input)
    return own_kernels(pfor_input)

  return convert


# A stack [K, batch, height, width, channels] as [batch, height, width, K *
# channels], and kernels [K, height, width, in, out] as [height, width, in, K *
# out]. TensorFlow groups the channels if a kernel has fewer than the input.


def _joined(tensor: tf.Tensor) -> tf.Tensor:
  """Merges the first dimension of rank 5 into the last."""
  shape = tf.shape(tensor)
  joined = tf.transpose(tensor, [1, 2, 3, 0, 4])
  joined = tf.reshape(
    joined, tf.concat([shape[1:4], [shape[0] * shape[4]]], axis=0)
  )
  if tensor.shape.is_fully_defined():
    count, *rest, channels = tensor.shape.as_list()
    joined.set_shape([*rest, count * channels])
  return joined


def _parted(tensor: tf.Tensor, count: int) -> tf.Tensor:
  """Undoes `_joined`."""
  shape = tf.shape(tensor)
  parted = tf.reshape(tensor, tf.concat([shape[:3], [count, -1]], axis=0))
  return tf.transpose(parted, [3, 0, 1, 2, 4])


def _grouped_forward(count: int, pfor_input: Any) -> Any:
  pfor_input.stack_inputs()
  images, kernels = (pfor_input.stacked_input(i) for i in range(2))
  (output,) = _create(pfor_input, [_joined(images), _joined(kernels)])
  return _pfor.wrap(_parted(output, count), True)


def _grouped_input_gradient(count: int, pfor_input: Any) -> Any:
  sizes = pfor_input.unstacked_input(0)
  pfor_input.stack_inputs([1, 2])
  kernels, gradients = (pfor_input.stacked_input(i) for i in (1, 2))
  (output,) = _create(
    pfor_input,
    [sizes * [1, 1, 1, count], _joined(kernels), _joined(gradients)],
  )
  return _pfor.wrap(_parted(output, count), True)


def _grouped_kernel_gradient(count: int, pfor_input: Any) -> Any:
  sizes = pfor_input.unstacked_input(1)
  pfor_input.stack_inputs([0, 2])
  images, gradients = (pfor_input.stacked_input(i) for i in (0, 2))
  (output,) = _create(
    pfor_input, [_joined(images), sizes * [1, 1, 1, count], _joined(gradients)]
  )
  return _pfor.wrap(_parted(output, count), True)


_GROUPED = {
  'Conv2D': _grouped_forward,
  'Conv2DBackpropInput': _grouped_input_gradient,
  'Conv2DBackpropFilter': _grouped_kernel_gradient,
}
