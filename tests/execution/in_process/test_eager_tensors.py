"""Eager tensors leave no memory behind, and are tensors as before."""

import copy
import gc
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.execution.in_process import eager_tensors


@pytest.fixture(autouse=True)
def _mended():
  assert eager_tensors.mend_leak()


def test_nothing_is_left_behind():
  tensor = tf.constant([1.0, 2.0])

  def blocks(count):
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(count):
      tf.identity(tensor)
    gc.collect()
    return sys.getallocatedblocks() - before

  blocks(100)
  # It was one for each tensor.
  assert blocks(10000) < 1000


def test_attributes_references_and_copies_work():
  tensor = tf.identity([1.0, 2.0])
  with pytest.raises(AttributeError):
    _ = tensor.note
  tensor.note = 'kept'
  assert tensor.note == 'kept' and vars(tensor) == {'note': 'kept'}
  del tensor.note
  assert not vars(tensor)
  np.testing.assert_array_equal(copy.deepcopy(tensor), tensor)
  reference = weakref.ref(tensor)
  assert reference() is tensor
  del tensor
  gc.collect()
  assert reference() is None


def test_keras_trains():
  model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(2,))])
  model.compile('sgd', 'mse')
  x = np.ones([8, 2], np.float32)
  losses = model.fit(x, x[:, :1], epochs=3, verbose=0).history['loss']
  assert losses[-1] < losses[0]
