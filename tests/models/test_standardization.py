"""Standardized features, by hand and through a functional model."""

import numpy as np
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.models import families
from tff_fedsa.models import standardization


def test_layer_by_hand():
  outputs = standardization.Standardization()(
    tf.constant([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]])
  )
  # Mean 2 and variance 2/3; a constant row has nothing but its mean.
  np.testing.assert_allclose(
    outputs, [[-1.224736, 0.0, 1.224736], [0.0, 0.0, 0.0]], atol=1e-5
  )


def test_features_of_an_architecture():
  plain, standardized = (
    families.build_family('digits_mlp', (8, 8, 1), 10, 32, standardized=chosen)[
      0
    ]
    for chosen in (False, True)
  )
  images = np.random.default_rng(0).normal(size=[4, 8, 8, 1]).astype(np.float32)
  spec = input_spec.InputSpec((8, 8, 1), 'float32', scale=1.0, offset=0.0)
  weights = plain.initial_weights(0)
  np.testing.assert_array_equal(weights, standardized.initial_weights(0))
  before, after = (
    model.build_forward(spec)(*model.split(weights), images)[0].numpy()
    for model in (plain, standardized)
  )
  expected = (before - before.mean(1, keepdims=True)) / before.std(
    1, keepdims=True
  )
  np.testing.assert_allclose(after, expected, atol=1e-2)
  np.testing.assert_allclose((after**2).mean(1), 1.0, rtol=1e-2)
