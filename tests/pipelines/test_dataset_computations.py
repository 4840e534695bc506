"""Clients passed as ids: the same numbers."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import client_state
from tff_fedsa.data import client_data
from tff_fedsa.data import elements
from tff_fedsa.data import input_spec
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import families
from tff_fedsa.pipelines import dataset_computations


def _client_data(num_clients=3, num_examples=30):
  rng = np.random.default_rng(0)
  return tff.simulation.datasets.TestClientData(
    {
      f'client_{i}': collections.OrderedDict(
        x=rng.integers(0, 256, [num_examples, 8, 8]).astype(np.uint8),
        y=rng.integers(0, 10, [num_examples]).astype(np.int64),
      )
      for i in range(num_clients)
    }
  )


class _Fixture:
  def __init__(self):
    self.data = _client_data()
    self.spec = elements.input_spec_of(self.data.element_type_structure)
    models = families.build_family(
      'digits_mlp', self.spec.model_shape, 10, feature_dim=8
    )
    self.process = fedsa.build_fedsa(models, input_spec=self.spec)
    self.evaluate = client_evaluation.build_evaluation(models, self.spec)
    state_fn = client_state.build_initial_state_fn(models)
    self.states = [state_fn(i) for i in range(3)]


@pytest.fixture(scope='module')
def fixture():
  return _Fixture()


@pytest.mark.parametrize('runtime', ['in_process', 'native'])
def test_ids_give_what_arrays_give(fixture, runtimes, runtime):
  ids = fixture.data.client_ids
  task = client_data.task_from_client_data(
    fixture.data, fixture.data, num_classes=10
  )
  compose = dataset_computations
  process = compose.compose_dataset_computation_with_stateful_process(
    fixture.data.dataset_computation, fixture.process
  )
  evaluate = compose.compose_dataset_computation_with_computation(
    fixture.data.dataset_computation, fixture.evaluate
  )
  arrays = [client.train for client in task.clients]
  with runtimes.default(runtime):
    server_state = process.initialize()
    expected = fixture.process.next(server_state, fixture.states, arrays)
    found = process.next(server_state, fixture.states, ids)
    tf.nest.map_structure(
      np.testing.assert_array_equal,
      (found.state, list(found.result), found.measurements),
      (expected.state, list(expected.result), expected.measurements),
    )
    model = expected.state.model
    assert list(evaluate(model, fixture.states, ids)) == list(
      fixture.evaluate(model, fixture.states, arrays)
    )
  assert process.update_type == fixture.process.update_type
  assert '{str}@CLIENTS' in str(process.next.type_signature)


@pytest.mark.parametrize(
  'element',
  [
    lambda x, y: {'pixels': x, 'label': y},
    lambda x, y: {'image': x[..., tf.newaxis], 'label': y},
    lambda x, y: (x, y),
  ],
)
@pytest.mark.parametrize('batch_size', [None, 7])
def test_elements_of_many_kinds_are_stacked(element, batch_size):
  images = np.arange(20 * 4, dtype=np.uint8).reshape([20, 2, 2])
  labels = np.arange(20, dtype=np.int64)
  dataset = tf.data.Dataset.from_tensor_slices((images, labels)).map(element)
  if batch_size is not None:
    dataset = dataset.batch(batch_size)
  found = elements.stack(dataset)
  np.testing.assert_array_equal(found['x'], images[..., np.newaxis])
  np.testing.assert_array_equal(found['y'], labels)
  assert found['y'].dtype == tf.int32
  spec = elements.input_spec_of(dataset.element_spec)
  assert (spec.shape, spec.dtype) == ((2, 2, 1), 'uint8')


def test_what_does_not_fit_is_shown(fixture):
  compose = dataset_computations.compose_dataset_computation_with_computation
  other = fedsa.build_fedsa(
    families.build_family('digits_mlp', (9, 9, 1), 10, feature_dim=8),
    input_spec=input_spec.InputSpec((9, 9, 1)),
  )
  shapes = r'(?s)uint8\[\?,9,9,1\].*uint8\[\?,8,8,1\]'
  with pytest.raises(TypeError, match=shapes):
    compose(fixture.data.dataset_computation, other.next)

  @tff.tensorflow.computation
  def no_client():
    return tf.data.Dataset.range(3)

  with pytest.raises(TypeError, match='of a client id'):
    compose(no_client, fixture.process.next)
  with pytest.raises(ValueError, match=r"found \('text', 'label'\)"):
    elements.stack(tf.data.Dataset.from_tensors({'text': 'a', 'label': 1}))
