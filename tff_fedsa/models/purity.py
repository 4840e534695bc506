"""Checks that a traced function depends only on its arguments."""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tff_fedsa.models import layer_names
from tff_fedsa.runs import errors

_RANDOM_OPS = frozenset(
  (
    'Multinomial',
    'NonDeterministicInts',
    'ParameterizedTruncatedNormal',
    'RandomCrop',
    'RandomGamma',
    'RandomPoisson',
    'RandomPoissonV2',
    'RandomShuffle',
    'RandomStandardNormal',
    'RandomUniform',
    'RandomUniformInt',
    'RngReadAndSkip',
    'RngSkip',
    'StatefulRandomBinomial',
    'StatefulStandardNormal',
    'StatefulStandardNormalV2',
    'StatefulTruncatedNormal',
    'StatefulUniform',
    'StatefulUniformFullInt',
    'StatefulUniformInt',
    'TruncatedNormal',
  )
)
_PYTHON_OPS = frozenset(('EagerPyFunc', 'PyFunc', 'PyFuncStateless'))


def check_pure(concrete: Any, keras_models: Sequence[tf.keras.Model]) -> None:
  """Raises `ValueError` if a traced function is not pure.

  Args:
    concrete: A `tf.types.experimental.ConcreteFunction`.
    keras_models: The models that the function calls, to name their layers.

  Raises:
    ValueError: If it reads an outside value, draws random numbers that no
      argument controls, or calls Python.
  """
  # Checked before captures: a stateful generator is both, and this message says
  # more.
  for ops, problem in (
    (
      _RANDOM_OPS,
      'draws random numbers that no seed controls: {}. Use Keras layers '
      '(Dropout, GaussianNoise, ...), a tf.random.Generator that is an '
      'attribute of the layer, or stateless random operations.',
    ),
    (
      _PYTHON_OPS,
      'calls back into Python: {}. tf.py_function and tf.numpy_function '
      'cannot run on clients; use TensorFlow operations.',
    ),
  ):
    found = [name for name, op in _operations(concrete) if op in ops]
    if found:
      described = [
        _at(name.split('/')[-1], name, keras_models) for name in found[:3]
      ]
      raise errors.UserError(problem.format(', '.join(described)))
  if concrete.captured_inputs:
    names = {
      id(variable.handle): f'variable {variable.name} '
      f'({variable.dtype.name}{variable.shape})'
      for variable in concrete.graph.variables
    }
    found = [
      _at(
        names.get(id(captured), _describe(captured)),
        next((reader.name for reader in inner.consumers()), ''),
        keras_models,
      )
      for captured, inner in concrete.graph.captures
    ]
    raise errors.UserError(
      f'reads values that are not among its weights: {", ".join(found)}. '
      'Make them float32 weights of a layer (`self.add_weight`), or '
      'tf.constant calls inside of `call`; lookup tables are not supported.'
    )


def _at(what: str, operation: str, keras_models: Any) -> str:
  """Returns `what`, with the layer of an operation, if known."""
  layer = layer_names.find(operation, keras_models)
  return what if layer is None else f'{what} in layer {layer!r}'


def _describe(tensor: tf.Tensor) -> str:
  if tensor.dtype == tf.resource:
    return f'resource (a lookup table or variable) {tensor.shape}'
  return f'tensor of {tensor.dtype.name}{tensor.shape}'


def _operations(concrete: Any) -> Iterator[tuple[str, str]]:
  """Yields (name, operation) of all nodes, also of inner functions."""
  graph_def = concrete.graph.as_graph_def()
  for node in graph_def.node:
    yield node.name, node.op
  for function in graph_def.library.function:
    for node in function.node_def:
      yield f'{function.signature.name}/{node.name}', node.op
