"""Arrays that are elsewhere stand in for arrays."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.execution import arrays


class _Elsewhere(arrays.RemoteArray):
  def __init__(self, array):
    super().__init__(array.dtype, array.shape)
    self._array = array
    self.fetched = 0

  def fetch(self):
    self.fetched += 1
    return self._array


@pytest.fixture
def elsewhere():
  return _Elsewhere(np.arange(6, dtype=np.float32).reshape(2, 3))


def test_it_is_used_like_an_array(elsewhere):
  assert (elsewhere.ndim, elsewhere.size, elsewhere.nbytes) == (2, 6, 24)
  assert len(elsewhere) == 2
  assert elsewhere.fetched == 0
  np.testing.assert_array_equal(elsewhere + 1, elsewhere.fetch() + 1)
  np.testing.assert_array_equal(tf.constant(1.0) * elsewhere, elsewhere)
  assert elsewhere[1, 2] == 5
  assert elsewhere.mean() == 2.5
  assert 'float32[2, 3]' in repr(elsewhere)
  with pytest.raises(AttributeError, match='no attribute'):
    elsewhere.nothing  # noqa: B018


def test_computations_take_it_if_its_type_fits(elsewhere, in_process_context):
  @tff.tensorflow.computation(tff.TensorType(np.float32, [None, 3]))
  def total(x):
    return tf.reduce_sum(x)

  @tff.tensorflow.computation(tff.TensorType(np.int32, [2, 3]))
  def other(x):
    return x

  assert total(elsewhere) == 15
  with pytest.raises(TypeError, match=r'int32\[2,3\].*float32'):
    other(elsewhere)


def test_a_store_in_memory_leaves_it_there_until_it_is_saved(tmp_path):
  weights = _Elsewhere(np.ones([4], np.float32))
  state = client_state.ClientState(
    architecture=np.int32(0),
    weights=weights,
    optimizer=np.zeros([0], np.float32),
    prototypes=np.zeros([2, 3], np.float32),
    counts=np.zeros([2], np.float32),
    seed=np.zeros([2], np.int32),
    private=np.zeros([0], np.float32),
  )
  store = client_store.MemoryStore(lambda unused_id: state)
  store.put(0, state)
  assert store.get(0).weights is weights
  assert weights.fetched == 0
  store.save(str(tmp_path))
  assert weights.fetched == 1
