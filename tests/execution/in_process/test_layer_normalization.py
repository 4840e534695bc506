"""Layers whose oneDNN kernels are not reentrant, several clients at a time."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.computation import computation_impl
from tensorflow_federated.python.tensorflow_libs import serialization_utils

from tests import own_process
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.execution.in_process import graph_rewriting

_PROGRAM = """
  import numpy as np
  import tensorflow as tf
  import tensorflow_federated as tff
  from tff_fedsa.execution.in_process import contexts

  images = tff.TensorType(np.float32, [None, 6, 6, 24])

  @tff.tensorflow.computation(images)
  def work(x):
    layer = tf.keras.layers.LayerNormalization(gamma_initializer='ones')
    def again(i, x):
      # The number of examples is the number of channels of the kernel.
      with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x) ** 3)
      return i + 1, x + tape.gradient(loss, x)
    layer.build([None, 6, 6, 24])
    return tf.while_loop(lambda i, x: i < 40, again, (0, x))[1]

  @tff.federated_computation(tff.FederatedType(images, tff.CLIENTS))
  def run(x):
    return tff.federated_map(work, x)

  rng = np.random.default_rng(0)
  clients = [
    rng.normal(size=[n, 6, 6, 24]).astype(np.float32)
    for n in (1, 3, 10, 7, 2, 9, 5, 10)
  ]
  results = []
  for count in (1, 4):
    contexts.set_in_process_context(max_concurrent_clients=count)
    for _ in range(1 if count == 1 else 10):
      results.append(run(clients))
  for found in results[1:]:
    for a, b in zip(results[0], found):
      np.testing.assert_array_equal(a, b)
  print('equal')
"""


@pytest.mark.slow
def test_layer_normalization_of_clients_at_a_time():
  own_process.assert_prints(_PROGRAM, 'equal')


def test_a_normalization_that_grappler_fused_is_not_reentrant():
  @tff.tensorflow.computation(tff.TensorType(np.float32, [None, 6, 6, 24]))
  def work(x):
    normalized, _, _ = tf.compat.v1.nn.fused_batch_norm(
      x, tf.ones([24]), tf.zeros([24]), is_training=True
    )
    return tf.nn.relu(normalized)

  proto = computation_impl.ConcreteComputation.get_proto(
    contexts._to_native_form(work)
  )
  graph = serialization_utils.unpack_graph_def(proto.tensorflow.graph_def)
  # Where oneDNN is, its node is a `_FusedBatchNormEx` now.
  assert not graph_rewriting.is_reentrant(graph)
