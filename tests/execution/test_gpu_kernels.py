"""What clients compute has kernels for GPUs; found without a GPU.

TensorFlow's build for CUDA knows its kernels for GPUs on every machine.
"""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.utils import tensorflow_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tff_fedsa.algorithms import fedsa
from tff_fedsa.data import input_spec
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import graph_rewriting
from tff_fedsa.models import families
from tff_fedsa.models import functional

pytestmark = pytest.mark.skipif(
  not tf.test.is_built_with_cuda(), reason='a build without CUDA'
)

# Once an epoch: the order of the client's examples.
_ON_CPU = {'StatelessShuffle'}


@pytest.fixture(scope='module')
def graphs():
  """Graphs of a FedSA round as they are made for GPUs, as they run."""
  models = [
    *families.build_family('fedavg_cnn', (32, 32, 3), 10, 16),
    functional.FunctionalModel(_separable, name='separable'),
  ]
  spec = input_spec.InputSpec((32, 32, 3), 'uint8', 1 / 127.5, -1.0)
  process = fedsa.build_fedsa(models, input_spec=spec)
  return _graphs(process.next, only_cpus=False)


def _separable():
  """BatchNorm with an activation, depthwise convolutions, as in MobileNet."""
  images = tf.keras.Input([32, 32, 3])
  hidden = images
  for layer in (
    tf.keras.layers.Conv2D(8, 3, strides=2, padding='same', use_bias=False),
    tf.keras.layers.DepthwiseConv2D(3, strides=2, use_bias=False),
  ):
    hidden = tf.keras.layers.BatchNormalization()(layer(hidden))
    hidden = tf.keras.layers.ReLU(6.0)(hidden)
  hidden = tf.keras.layers.GlobalAveragePooling2D()(hidden)
  return functional.KerasClientModel(
    tf.keras.Model(images, tf.keras.layers.Dense(16)(hidden)),
    tf.keras.Sequential([tf.keras.Input([16]), tf.keras.layers.Dense(10)]),
  )


def _graphs(computation, *, only_cpus):
  """Returns the rewritten graphs of all TensorFlow in a computation."""
  context = contexts.create_in_process_context(devices=['CPU:0'])
  arguments = contexts.context_arguments(
    context.runtime,
    only_cpus=only_cpus,
    default_num_clients=0,
    secure_in_the_clear=False,
    numpy_results=True,
  )
  compiled = arguments['compiler_fn'](computation)
  found = []

  def visit(block):
    if isinstance(block, tff.framework.CompiledComputation):
      found.append(_rewritten(block.proto.tensorflow))

  _for_each_block(compiled.to_building_block(), visit)
  return found


def _rewritten(proto):
  """Returns a computation's graph as it is imported."""
  names = tensorflow_utils.extract_tensor_names_from_binding
  graph_def = serialization_utils.unpack_graph_def(proto.graph_def)
  graph_rewriting.rewrite(
    graph_def,
    inputs=names(proto.parameter) if proto.HasField('parameter') else [],
    outputs=names(proto.result),
    initialize_op=proto.initialize_op,
    session_token=proto.session_token_tensor_name,
  )
  return graph_def


def _for_each_block(block, visit):
  visit(block)
  for child in block.children():
    _for_each_block(child, visit)


def _has_gpu_kernel(node):
  return any(
    kernel.device_type in ('GPU', 'DEFAULT')
    and all(
      node.attr[constraint.name].type in constraint.allowed_values.list.type
      for constraint in kernel.constraint
    )
    for kernel in kernels.get_registered_kernels_for_op(node.op).kernel
  )


def test_all_operations_of_a_round_have_kernels_for_gpus(graphs):
  nodes = [
    node
    for graph in graphs
    for node in graph_rewriting.all_nodes(graph)
    if node.op not in {f.signature.name for f in graph.library.function}
  ]
  kinds = {node.op for node in nodes}
  assert {'Conv2DBackpropFilter', 'GatherV2', 'While'} & kinds
  missing = {node.op for node in nodes if not _has_gpu_kernel(node)}
  assert missing <= _ON_CPU


def test_the_check_finds_what_has_none():
  with tf.Graph().as_default() as graph:
    tf.gather(tf.zeros([2], tf.uint8), [1], name='bytes')
    tf.gather(tf.zeros([2], tf.int64), [1], name='words')
  nodes = {node.name: node for node in graph.as_graph_def().node}
  assert not _has_gpu_kernel(nodes['bytes'])
  assert _has_gpu_kernel(nodes['words'])


def test_nothing_is_fused_before_the_device_is_known(graphs):
  # FusedBatchNorm with activation supports only DT_HALF on GPUs.
  kinds = {
    node.op for graph in graphs for node in graph_rewriting.all_nodes(graph)
  }
  assert 'FusedBatchNormV3' in kinds
  assert not [kind for kind in kinds if kind.startswith('_Fused')]


def test_iterators_of_data_sets_stay_on_the_cpu():
  @tff.tensorflow.computation(tff.SequenceType(np.float32))
  @tf.function
  def total(data):
    result = tf.constant(0.0)
    for x in iter(data.prefetch(1)):
      result += x
    return result

  @tff.federated_computation(
    tff.FederatedType(total.type_signature.parameter, tff.CLIENTS)
  )
  def run(data):
    return tff.federated_map(total, data)

  (graph,) = _graphs(run, only_cpus=False)
  devices = {node.op: node.device for node in graph_rewriting.all_nodes(graph)}
  for kind in ('PrefetchDataset', 'AnonymousIteratorV3', 'OptionalGetValue'):
    assert devices[kind] == '/device:CPU:0', devices
  assert not devices['AddV2']
