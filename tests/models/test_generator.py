"""FedGen's generator: its features by hand, and the draw of classes."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.models import generator as generator_lib


def test_features_by_hand():
  rng = np.random.default_rng(0)
  generator = generator_lib.initial_generator(
    10, 16, noise_dim=6, hidden_dim=12
  )._replace(
    scale=rng.uniform(0.5, 2, 12).astype(np.float32),
    offset=rng.uniform(-1, 1, 12).astype(np.float32),
  )
  noise, labels = generator_lib.draw(tf.zeros([10]), 6, 10, tf.constant([1, 2]))
  assert noise.shape == (10, 6) and labels.shape == (10,)
  assert 0 <= np.min(noise) and np.max(noise) < 1
  found = generator_lib.generate(generator, noise, labels)
  inputs = np.concatenate([noise, np.eye(10)[labels]], axis=1)
  hidden = inputs @ generator.hidden_kernel
  hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
  hidden = np.maximum(hidden * generator.scale + generator.offset, 0)
  golden.assert_close(
    found, hidden @ generator.output_kernel + generator.output_bias
  )


def test_labels_are_drawn_like_those_of_clients():
  def shares(counts, seed=(0, 0)):
    noise, labels = generator_lib.draw(
      tf.constant(counts), 1, 4000, tf.constant(seed)
    )
    return np.bincount(labels, minlength=4) / 4000, noise.numpy()

  found, noise = shares([30.0, 0.0, 10.0, 0.0])
  assert found[0] == pytest.approx(0.75, abs=0.05)
  assert found[1] == found[3] == 0
  again, same_noise = shares([30.0, 0.0, 10.0, 0.0])
  np.testing.assert_array_equal(found, again)
  np.testing.assert_array_equal(noise, same_noise)
  assert (shares([30.0, 0.0, 10.0, 0.0], (0, 1))[1] != noise).any()
  # Nothing is known yet.
  np.testing.assert_allclose(shares([0.0] * 4)[0], 0.25, atol=0.05)


def test_types_are_those_of_weights():
  sizes = dict(noise_dim=6, hidden_dim=12)
  drawn = generator_lib.initial_generator(10, 16, **sizes, seed=1)
  types = generator_lib.generator_type(10, 16, **sizes)
  for weight, expected in zip(drawn, types, strict=True):
    assert (weight.dtype, weight.shape) == (expected.dtype, expected.shape)
