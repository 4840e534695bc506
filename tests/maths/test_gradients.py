"""Gradients that can take the place of their weights."""

import numpy as np
import tensorflow as tf

from tff_fedsa.maths import gradients


def test_steps_in_a_loop_on_every_kind_of_weight():
  """One row in tensordot, rows of an embedding, and one without a part."""

  def loss_fn(row, table, unused):
    del unused
    inputs = tf.reshape(tf.gather(table, [0, 2, 2]), [3, 2, 1])
    return tf.reduce_sum(tf.tensordot(inputs, row, [[2], [0]]) ** 2)

  @tf.function(
    input_signature=[
      [tf.TensorSpec(shape) for shape in ([1, 4], [3, 2], [5])],
    ]
  )
  def train(weights):
    def body(index, *weights):
      with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = loss_fn(*weights)
      found = gradients.gradients(tape, loss, list(weights))
      assert [g.shape for g in found] == [w.shape for w in weights]
      return index + 1, *(w - 0.1 * g for w, g in zip(weights, found))

    return tf.while_loop(lambda index, *_: index < 2, body, [0, *weights])[1:]

  rng = np.random.default_rng(0)
  weights = [
    tf.constant(rng.normal(size=shape), tf.float32)
    for shape in ([1, 4], [3, 2], [5])
  ]
  expected = list(weights)
  for _ in range(2):
    with tf.GradientTape() as tape:
      tape.watch(expected)
      loss = loss_fn(*expected)
    found = tape.gradient(loss, expected, unconnected_gradients='zero')
    expected = [
      w - 0.1 * tf.convert_to_tensor(g) for w, g in zip(expected, found)
    ]
  for actual, target in zip(train(weights), expected):
    np.testing.assert_allclose(actual, target, rtol=1e-5, atol=1e-6)
