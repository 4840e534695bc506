"""Parts of a client's loop over its examples."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.client import local_steps


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
@pytest.mark.parametrize('shape', [(32, 32, 3), (8, 8, 1), (3, 5, 1)])
def test_images_are_taken_as_gather_takes_them(dtype, shape):
  # (3, 5, 1) does not fill words of eight bytes.
  images = np.random.default_rng(0).integers(0, 256, [9, *shape]).astype(dtype)
  signature = [
    tf.TensorSpec([None, *shape], dtype),
    tf.TensorSpec([None], tf.int32),
  ]
  take = tf.function(local_steps.take, input_signature=signature)
  for chosen in ([3, 0, 8, 3], [], [7]):
    chosen = np.array(chosen, np.int32)
    np.testing.assert_array_equal(take(images, chosen), images[chosen])


def test_a_static_batch_stays_static():
  images = tf.zeros([9, 8, 8, 1], tf.uint8)
  taken = local_steps.take(images, tf.constant([1, 2]))
  assert taken.shape == (2, 8, 8, 1)
