"""Runs in memory and in a directory, interrupted, resumed and loaded again."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import rows as rows_lib
from tff_fedsa import experiment as experiment_lib
from tff_fedsa.execution.in_process import contexts
from tff_fedsa.runs import directory
from tff_fedsa.runs import recorders
from tff_fedsa.runs import running


def _experiment(**settings):
  return experiment_lib.Experiment(
    **{
      'num_clients': 3,
      'max_examples': 200,
      'feature_dim': 8,
      'family': 'digits_mlp',
      'total_rounds': 3,
      'progress': False,
      **settings,
    }
  )


@pytest.fixture(scope='module')
def made():
  """An experiment, and its result in memory."""
  described = _experiment()
  return described, described.run()


@pytest.fixture(scope='module')
def kept(made, tmp_path_factory):
  """The same in a directory: the directory and the result."""
  path = tmp_path_factory.mktemp('runs') / 'mine'
  return path, made[0].run(path)


def test_a_result_in_memory(made):
  result = made[1]
  assert (result.status, result.round_num) == (directory.FINISHED, 3)
  assert result.summary['rounds'] == 3
  assert list(result.history.index) == [0, 1, 2, 3]
  last = result.history.iloc[-1]['prototype_accuracy']
  assert last == result.summary['prototype']['last'] > 0.2
  assert result.directory is None and len(result.per_client) == 3
  with pytest.raises(ValueError, match='no confusion matrix: run with'):
    result.confusion()
  # It is built once, whatever is run.
  assert result.experiment.process is made[0].process


def test_metrics_of_a_run(tmp_path):
  names = ['macro_f1', 'auroc', 'confusion']
  described = _experiment(total_rounds=1, metrics=names)
  result = described.run(tmp_path / 'mine')
  (last,) = result.rows[1:]
  assert 0 < last['prototype_macro_f1'] < 1 and 0 < last['head_auroc'] < 1
  matrix = result.confusion()
  num_examples = sum(row['num_examples'] for row in result.per_client)
  assert matrix.sum() == num_examples
  right = sum(row['prototype'] for row in result.per_client)
  assert np.trace(matrix) == right
  # Each client has its own.
  assert len({row['head_macro_f1'] for row in result.per_client}) > 1
  loaded = experiment_lib.load_run(tmp_path / 'mine')
  np.testing.assert_array_equal(
    loaded.confusion('head'), result.confusion('head')
  )
  assert loaded.per_client == result.per_client
  with pytest.raises(ValueError, match="Unknown metrics 'f1'"):
    _experiment(metrics=['f1'])


def test_states_on_disk_need_a_directory(made):
  with pytest.raises(ValueError, match='needs the directory of a run'):
    made[0].replace(client_states='disk').run()


def test_clients_predict(made):
  described, result = made
  client = result.client(1)
  test = described.task.clients[1].test
  correct = (client.predict(test['x']) == test['y']).sum()
  assert correct == result.per_client[1]['prototype']
  heads = client.predict(test['x'], 'head')
  assert (heads == test['y']).sum() == result.per_client[1]['head']
  assert client.prototypes.shape == client.anchors.shape == (10, 8)
  assert client.features(test['x'][:2]).shape == (2, 8)
  assert client.predict(test['x'][:0]).shape == (0,)
  assert repr(client) == '<TrainedModel digits_mlp, client 1>'


def test_images_in_another_form_are_refused(made):
  client = made[1].client(0)
  images = made[0].task.clients[0].test['x']
  other = np.float32 if images.dtype == np.uint8 else np.uint8
  with pytest.raises(ValueError, match='as the data set .digits. stores them'):
    client.predict(images.astype(other))
  with pytest.raises(ValueError, match='as the data set'):
    client.predict(images[:, :4])
  with pytest.raises(ValueError, match='prototype, anchor, head, found .heart'):
    client.predict(images, 'heart')
  with pytest.raises(IndexError, match=r'a client in \[0, 3\), found 3'):
    made[1].client(3)
  with pytest.raises(ValueError, match='averages no whole models'):
    made[1].averaged()


def test_shared_extractors_are_no_models(shared_computations):
  result = _experiment(share_weights='extractor', total_rounds=1).run()
  assert result.client(0).keras_model.name == 'digits_mlp'
  with pytest.raises(ValueError, match='averages no whole models here: use'):
    result.averaged('digits_mlp')


def test_a_client_is_saved(made, tmp_path):
  path = str(tmp_path / 'client.keras')
  client, images = made[1].client(0), made[0].task.clients[0].test['x']
  client.save(path)
  loaded = tf.keras.models.load_model(path)
  np.testing.assert_allclose(
    loaded(images)['head'], client.keras_model(images)['head'], rtol=1e-5
  )


def test_a_result_is_shown(made):
  result = made[1]
  text = repr(result)
  assert 'FedSA on digits, 3 clients: finished after round 3' in text
  html = result._repr_html_()
  assert '<th>prototype</th>' in html and 'finished after round 3' in html
  figures = result.figures()
  assert {'curves', 'partition', 'anchors_and_prototypes'} <= set(figures)


def test_a_directory_holds_the_same(made, kept):
  path, result = kept
  in_memory = made[1]
  assert rows_lib.stable(result.rows) == rows_lib.stable(in_memory.rows)
  assert rows_lib.stable(
    recorders.read_csv(path / 'metrics.csv')
  ) == rows_lib.stable(in_memory.rows)
  names = {item.name for item in path.iterdir()}
  assert names == {
    'checkpoints',
    'figures',
    'flags.txt',
    'hparams.csv',
    'initial_anchors.npy',
    'metrics.csv',
    'partition.npz',
    'per_client.csv',
    'run.lock',
    'status.json',
    'summary.json',
    'tensorboard',
  }
  assert json.loads((path / 'summary.json').read_text())['rounds'] == 3
  status = directory.read_status(directory.RunDirectory(str(path)))
  assert status.state == directory.FINISHED and status.fulfils(3, None)
  assert {item.name for item in (path / 'figures').iterdir()} == {
    'anchors_and_prototypes.png',
    'curves.png',
    'partition.png',
    'per_client_accuracy.png',
  }


@pytest.mark.usefixtures('shared_computations')
def test_a_run_is_loaded(made, kept, monkeypatch):
  path, result = kept
  loaded = experiment_lib.load_run(path)
  assert loaded.round_num == 3 and loaded.status == directory.FINISHED
  assert loaded.experiment.replace(
    experiment_name=None, root_output_dir='runs'
  ) == made[0].replace(total_rounds=3)
  assert rows_lib.stable(loaded.rows) == rows_lib.stable(result.rows)
  assert loaded.per_client == [dict(counts) for counts in result.per_client]
  images = made[0].task.clients[2].test['x']
  np.testing.assert_array_equal(
    loaded.client(2).predict(images), result.client(2).predict(images)
  )
  with pytest.raises(ValueError, match='no checkpoint of round 2'):
    experiment_lib.load_run(path, round_num=2)
  # A path with a slash at its end, and one that is relative.
  monkeypatch.chdir(path)
  assert experiment_lib.load_run('.').round_num == 3


@pytest.mark.usefixtures('shared_computations')
def test_interrupted_loaded_and_resumed(made, tmp_path):
  path = tmp_path / 'run'

  def interrupt(round_num, unused_row):
    if round_num == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    made[0].run(path, on_round=interrupt)
  loaded = experiment_lib.load_run(path)
  assert loaded.status == directory.INTERRUPTED and loaded.round_num == 2
  assert loaded.per_client == [] and loaded.summary['rounds'] == 2
  assert 'interrupted after round 2' in repr(loaded)
  # It goes on with what was loaded, too.
  result = loaded.experiment.run(path)
  assert rows_lib.stable(result.rows) == rows_lib.stable(made[1].rows)
  # More rounds, from there.
  longer = made[0].run(path, total_rounds=4)
  assert rows_lib.stable(longer.rows)[:4] == rows_lib.stable(made[1].rows)
  assert longer.round_num == 4


@pytest.mark.usefixtures('shared_computations')
@pytest.mark.slow
def test_tiers_are_resumed(shared_computations, tmp_path):
  described = _experiment(
    num_clients=4,
    clients_per_round=2,
    family='digits_mlp,digits_cnn',
    share_weights='extractor',
  )
  whole = described.run()
  described.run(tmp_path / 'mine', total_rounds=1)
  resumed = described.run(tmp_path / 'mine')
  assert rows_lib.stable(resumed.rows) == rows_lib.stable(whole.rows)
  np.testing.assert_array_equal(
    resumed.server_state.model.weights, whole.server_state.model.weights
  )
  for i in range(4):
    np.testing.assert_array_equal(
      resumed.tested_weights(i), whole.tested_weights(i)
    )


def test_other_settings_are_refused(made, kept):
  with pytest.raises(
    directory.RunDirectoryError, match='--lambda_reg: 10.0 th'
  ):
    made[0].replace(lambda_reg=1.0).run(kept[0])
  status = directory.read_status(directory.RunDirectory(str(kept[0])))
  assert status.state == directory.FINISHED


def test_a_second_run_in_the_directory_is_refused(made, tmp_path):
  refused = []

  def again(round_num, unused_row):
    if round_num == 1:
      with pytest.raises(directory.RunDirectoryError, match='being trained by'):
        made[0].run(tmp_path / 'run')
      refused.append(round_num)

  made[0].run(tmp_path / 'run', on_round=again)
  assert refused == [1]


@pytest.mark.usefixtures('shared_computations')
def test_a_signal_ends_the_run_after_its_round(made, tmp_path):
  experiment = made[0].replace(root_output_dir=str(tmp_path))
  rounds = []
  with pytest.raises(KeyboardInterrupt):
    running.run_in_directory(
      experiment,
      progress=False,
      on_round=lambda round_num, _: rounds.append(round_num),
      interrupted=lambda: rounds[-1:] == [2],
    )
  status = directory.read_status(experiment.run_directory)
  assert status.state == directory.INTERRUPTED and rounds[-1] == 2


def test_own_recorders_get_every_row(made, tmp_path):
  class Rows:
    def __init__(self):
      self.calls = []

    def rewind(self, history):
      self.calls.append(len(history))

    def record(self, row):
      self.calls.append(row['round'])

    def close(self):
      self.calls.append('closed')

  rows = Rows()
  made[0].run(tmp_path / 'run', recorders=[rows])
  assert rows.calls == [0, 0, 1, 2, 3, 'closed']
  # A finished run is loaded, and nothing is new.
  again = Rows()
  made[0].run(tmp_path / 'run', recorders=[again])
  assert again.calls == [4, 'closed']


def test_a_failure_is_on_record(made, tmp_path):
  def fail(round_num, unused_row):
    if round_num == 1:
      raise ZeroDivisionError('by zero')

  with pytest.raises(ZeroDivisionError):
    made[0].run(tmp_path / 'run', on_round=fail)
  status = directory.read_status(directory.RunDirectory(str(tmp_path / 'run')))
  assert status.state == directory.FAILED
  assert status.detail == 'ZeroDivisionError: by zero'


def _own_data(seed=0):
  rng = np.random.default_rng(seed)
  clients = []
  for _ in range(3):
    labels = np.arange(24) % 3
    images = rng.integers(0, 40, [24, 6, 6, 1])
    images[np.arange(24), :, labels * 2] += 200
    clients.append((images.astype(np.uint8), labels))
  return clients


def _own_model():
  return tf.keras.Sequential(
    [
      tf.keras.Input((6, 6, 1)),
      tf.keras.layers.Flatten(),
      tf.keras.layers.Dense(16, activation='relu'),
      tf.keras.layers.Dense(3),
    ]
  )


def test_own_arrays_and_an_own_keras_model(tmp_path):
  data, models = _own_data(), [_own_model()]
  described = experiment_lib.Experiment(
    data, models=models, total_rounds=8, client_learning_rate=0.1
  )
  result = described.run(tmp_path / 'run', progress=False)
  assert result.summary['prototype']['last'] > 0.9
  images, labels = data[0]
  assert (result.client(0).predict(images) == labels).mean() > 0.9
  # What was given is given again.
  with pytest.raises(directory.RunDirectoryError, match='data and models as'):
    experiment_lib.load_run(tmp_path / 'run')
  loaded = experiment_lib.load_run(tmp_path / 'run', task=data, models=models)
  np.testing.assert_array_equal(
    loaded.client(0).predict(images), result.client(0).predict(images)
  )
  # Other data are noticed.
  with pytest.raises(directory.RunDirectoryError, match='not those of'):
    described.replace(task=_own_data(1)).run(tmp_path / 'run', progress=False)


@pytest.mark.usefixtures('shared_computations')
def test_the_averaged_model(tmp_path):
  described = _experiment(
    algorithm='fedavg', protocol='global', test_set='per_domain', total_rounds=1
  )
  result = described.run(tmp_path / 'run')
  assert list(result.per_test_set) and not result.per_client
  images = described.task.clients[0].test['x']
  averaged = result.averaged()
  assert averaged.client_id is None and averaged.anchors is None
  np.testing.assert_array_equal(
    averaged.predict(images), result.client(1).predict(images)
  )
  with pytest.raises(AttributeError, match='no client'):
    _ = averaged.prototypes
  loaded = experiment_lib.load_run(tmp_path / 'run')
  assert loaded.per_test_set == {
    name: dict(counts) for name, counts in result.per_test_set.items()
  }


@pytest.mark.usefixtures('shared_computations')
def test_a_runtime_of_the_user_stays(made):
  import tensorflow_federated as tff

  mine = contexts.set_in_process_context(max_concurrent_clients=1)
  made[0].replace(total_rounds=1).run()
  assert tff.framework.get_context_stack().current is mine
  # Unless the settings ask for another.
  _experiment(total_rounds=1, max_concurrent_clients=2).run()
  assert tff.framework.get_context_stack().current is not mine
