"""Any `ClientData`: FedSA and its neighbours from the same few lines."""

import asyncio
import collections
import functools

import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.algorithms import fedproto
from tff_fedsa.algorithms import fedsa
from tff_fedsa.client import local_optimizer
from tff_fedsa.data import elements
from tff_fedsa.pipelines import client_tasks
from tff_fedsa.pipelines import training_process

pytestmark = pytest.mark.usefixtures('in_process_context')

_ROUNDS = 5
_SGD = tff.learning.optimizers.build_sgdm(0.05)
_slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def _build_fedsa(task):
  return fedsa.build_fedsa(
    task.models,
    input_spec=task.input_spec,
    optimizer=local_optimizer.LocalOptimizer(_SGD),
    local=task.local,
  )


def _build_fedproto(task):
  return fedproto.build_fedproto(
    task.models,
    input_spec=task.input_spec,
    optimizer=local_optimizer.LocalOptimizer(_SGD),
    local=task.local,
  )


def _build_fed_avg(task):
  return tff.learning.algorithms.build_weighted_fed_avg(task.model_fn, _SGD)


# Builder of a process, and the accuracy that its evaluation reports.
_METHODS = {
  'fedsa': (_build_fedsa, 'head_accuracy'),
  'fedproto': (_build_fedproto, 'head_accuracy'),
  'fed_avg': (_build_fed_avg, 'accuracy'),
}


@pytest.fixture(autouse=True)
def _event_loop():
  asyncio.set_event_loop(asyncio.new_event_loop())


def _digits(first, num_clients=3):
  """A `ClientData` of real digits, 60 per client, as uint8 images."""
  digits = datasets.load_digits()
  images = (digits.images[..., np.newaxis] * 15).astype(np.uint8)
  slices = {}
  for i in range(num_clients):
    part = slice(first + 60 * i, first + 60 * (i + 1))
    slices[f'client_{i}'] = collections.OrderedDict(
      image=images[part], label=digits.target[part].astype(np.int64)
    )
  return tff.simulation.datasets.TestClientData(slices)


_TASKS = {
  'emnist': lambda: client_tasks.create_task(
    tff.simulation.datasets.emnist.get_synthetic(),
    tff.simulation.datasets.emnist.get_synthetic(),
    num_classes=10,
    family='digits_mlp',
    feature_dim=16,
  ),
  'digits': lambda: client_tasks.create_task(
    _digits(0),
    _digits(180),
    num_classes=10,
    family='digits_mlp',
    feature_dim=16,
    client_spec=tff.simulation.baselines.ClientSpec(num_epochs=3, batch_size=5),
  ),
}


def _parts():
  """A task of three inputs for each example."""
  rng = np.random.default_rng(0)
  labels = np.arange(30) % 3
  slices = {
    f'client_{i}': collections.OrderedDict(
      x=collections.OrderedDict(
        tokens=rng.integers(1, 4, [30, 4]) + labels[:, None],
        image=rng.integers(0, 256, [30, 8, 8]).astype(np.uint8),
        age=rng.normal(size=30),
      ),
      y=labels,
    )
    for i in range(3)
  }
  data = tff.simulation.datasets.TestClientData(slices)
  return client_tasks.create_task(
    data,
    data,
    num_classes=3,
    family='mixed1',
    feature_dim=8,
    vocabulary_size={'tokens': 6},
  )


@pytest.fixture(scope='module', params=_TASKS)
def task(request):
  return _TASKS[request.param]()


def _accuracy_after(rounds, task, method):
  """Trains in TFF's own loop, and returns the accuracy in the end."""
  build, accuracy = _METHODS[method]
  process, population = build(task), task.population()
  released = tff.program.MemoryReleaseManager()
  tff.simulation.run_training_process(
    task.training_process(process, population),
    training_process.build_selection_fn(task.client_ids, 2),
    rounds,
    task.evaluation_fn(process, population),
    lambda round_num: task.client_ids,
    metrics_managers=[released],
  )
  rows = released.values()
  assert sorted(rows) == list(range(rounds + 1))
  return rows[rounds][f'evaluation/{accuracy}']


@pytest.mark.parametrize(
  'task, method',
  [
    ('emnist', 'fedproto'),
    ('digits', 'fedsa'),
    _slow('digits', 'fed_avg'),
  ],
  indirect=['task'],
)
def test_methods_train_from_the_same_lines(task, method):
  accuracy = _accuracy_after(_ROUNDS, task, method)
  assert 0.0 <= accuracy <= 1.0
  # The clients of the synthetic EMNIST have ten examples each.
  if task.client_ids[0] == 'client_0':
    assert accuracy > 0.3


def test_methods_start_from_the_same_model(task):
  learning = task.training_process(_build_fed_avg(task)).initialize()
  (state,) = task.population().states(task.client_ids[:1])
  weights = learning.global_model_weights.trainable
  np.testing.assert_array_equal(
    np.concatenate([np.ravel(w) for w in weights]), state.weights
  )


@pytest.mark.parametrize(
  'runtime', ['in_process', pytest.param('native', marks=pytest.mark.slow)]
)
def test_clients_read_a_database(tmp_path, runtimes, runtime):
  """The kind of `ClientData` that EMNIST, CIFAR-100 and others come as."""
  source = tff.simulation.datasets.emnist.get_synthetic()
  path = str(tmp_path / 'emnist.sqlite')
  tff.simulation.datasets.save_to_sql_client_data(
    source.client_ids, source.create_tf_dataset_for_client, path
  )
  database = tff.simulation.datasets.load_and_parse_sql_client_data(
    path, source.element_type_structure
  )
  read = []
  for data in (source, database):
    task = client_tasks.create_task(
      data, data, num_classes=10, family='digits_mlp', feature_dim=8
    )
    read.append((task.training_process(_build_fedsa(task)), task.client_ids))
  found = []
  for process, client_ids in read:
    with runtimes.default(runtime):
      state, _ = process.next(process.initialize(), client_ids)
    found.append(state.server_state)
  tf.nest.map_structure(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize('method', ['fedsa', _slow('fed_avg')])
def test_several_inputs(method):
  task = _parts()
  client = task.client_ids[0]
  raw = task.datasets.test_data.create_tf_dataset_for_client(client)
  given = next(iter(raw.batch(30)))['x']
  rows = elements.stack(raw)['x']
  unpacked = task.input_spec.unpack(rows.numpy())
  assert [*unpacked] == ['age', 'image', 'tokens']
  for name, values in unpacked.items():
    np.testing.assert_array_equal(
      values.ravel(), given[name].numpy().astype(values.dtype).ravel()
    )
  assert 0.0 <= _accuracy_after(2, task, method) <= 1.0


def test_it_is_a_baseline_task_of_tff(task):
  assert isinstance(task, tff.simulation.baselines.BaselineTask)
  lines = []
  task.datasets.summary(lines.append)
  assert any('Train' in line and 'Federated' in line for line in lines)
  (dataset,) = task.datasets.sample_train_clients(1, random_seed=0)
  images, labels = next(iter(dataset))
  assert images.shape[1:] == task.input_spec.model_shape
  assert len(images) == len(labels) == task.local.batch_size
  # What FedAvg's model sees is what ours sees.
  raw = next(
    iter(
      task.datasets.test_data.create_tf_dataset_for_client(task.client_ids[0])
    )
  )
  seen = next(
    iter(
      task.datasets.eval_preprocess_fn(
        task.datasets.test_data.create_tf_dataset_for_client(task.client_ids[0])
      )
    )
  )[0][0]
  image = raw['pixels' if 'pixels' in raw else 'image']
  np.testing.assert_allclose(
    task.input_spec.preprocess(tf.reshape(image, [1, *task.input_spec.shape]))[
      0
    ],
    seen,
    atol=1e-6,
  )


def test_what_does_not_fit_is_named(task):
  with pytest.raises(TypeError, match='tff.learning.templates.LearningProcess'):
    task.training_process(None)
  with pytest.raises(ValueError, match=r'Make one by `task.population\(\)`'):
    task.evaluation_fn(_build_fedsa(task))
  with pytest.raises(ValueError, match='without max_elements, found 7'):
    client_tasks.create_task(
      task.datasets.train_data,
      task.datasets.test_data,
      num_classes=10,
      family='digits_mlp',
      feature_dim=16,
      client_spec=tff.simulation.baselines.ClientSpec(1, 10, max_elements=7),
    )
