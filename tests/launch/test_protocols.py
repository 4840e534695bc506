"""The protocol global through the launchers."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.launch import launching
from tff_fedsa.data import tasks
from tff_fedsa.runs import metrics

_SPEC = tasks.TaskSpec(
  num_clients=4, max_examples=400, alpha=1.0, test_set='per_domain'
)


def _train(root, *arguments, family='digits_mlp', **options):
  return launching.launch(
    'train',
    f'--family={family}',
    '--feature_dim=16',
    '--num_clients=4',
    '--max_examples=400',
    '--alpha=1',
    '--client_learning_rate=0.1',
    '--test_set=per_domain',
    '--noprogress',
    f'--root_output_dir={root}',
    *arguments,
    **options,
  )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run of FedSA in protocol global that was resumed, and its output."""
  root = tmp_path_factory.mktemp('runs')
  _train(root, '--protocol=global', '--total_rounds=2')
  output = _train(root, '--protocol=global', '--total_rounds=4')
  return root / 'fedsa', output


def test_a_run_says_what_was_tested_on_what(run):
  path, output = run
  assert 'resuming after round 2' in output
  table = output[output.index('accuracy after 4 rounds') :].splitlines()
  assert table[0].endswith('(averaged model, global test set)')
  assert [line.split()[0] for line in table[2:5]] == [
    'prototype',
    'anchor',
    'head',
  ]
  rows = launching.rows(path / 'metrics.csv')
  assert [row['round'] for row in rows] == [0, 1, 2, 3, 4]
  accuracies = {name for name in rows[4] if 'accuracy' in name}
  assert accuracies == {
    f'global_test_{name}_accuracy' for name in ('prototype', 'anchor', 'head')
  }
  # Nothing is named as in the other protocol, not even an empty column.
  header = (path / 'metrics.csv').read_text().splitlines()[0].split(',')
  assert not set(header) & {n for n in metrics.COLUMNS if 'accuracy' in n}
  assert not (path / 'per_client.csv').exists()
  summary = json.loads((path / 'summary.json').read_text())
  column = 'global_test_head_accuracy'
  assert summary['global_test_head']['last'] == rows[4][column]
  assert rows[4][column] > rows[0][column]
  assert 'protocol,global' in (path / 'hparams.csv').read_text()


@pytest.mark.slow
def test_the_averaged_model_is_exported(run):
  path, _ = run
  output = launching.launch('export', f'--run_dir={path}')
  assert 'averaged.keras: the averaged model (digits_mlp) after' in output
  import tff_fedsa.models.pooling  # noqa: F401  Registers a layer.

  model = tf.keras.models.load_model(path / 'averaged.keras')
  test = tasks.load_task(_SPEC).global_test()['test']
  scores = model(test['x'])
  with open(path / 'per_test_set.csv', newline='') as file:
    (counts,) = csv.DictReader(file)
  assert counts['test_set'] == 'test'
  assert int(counts['num_examples']) == len(test['y'])
  for name in ('prototype', 'anchor', 'head'):
    correct = np.sum(scores[name].numpy().argmax(axis=1) == test['y'])
    assert abs(int(counts[name]) - correct) <= 1, name


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path):
  path, _ = run
  _train(tmp_path, '--protocol=global', '--total_rounds=4')
  rows = launching.rows(path / 'metrics.csv')
  assert rows == launching.rows(tmp_path / 'fedsa/metrics.csv')
  output = launching.launch('evaluate', f'--run_dir={path}')
  (heading,) = (line for line in output.splitlines() if 'averaged' in line)
  assert heading.split()[:4] == ['test', 'set', 'averaged', 'model']
  accuracy = f'{rows[4]["global_test_prototype_accuracy"]:.4f}'
  assert output.count(accuracy) >= 2
  # With other flags it is another run.
  output = _train(
    path.parent, '--experiment_name=fedsa', '--total_rounds=5', status=1
  )
  assert '--protocol: global there, personal now' in output


@pytest.mark.slow
@pytest.mark.parametrize('algorithm', ['fedavg', 'fedprox'])
def test_methods_of_one_model_in_protocol_personal(tmp_path, algorithm):
  output = _train(tmp_path, f'--algorithm={algorithm}', '--total_rounds=4')
  assert 'all clients, own test data' in output
  path = tmp_path / algorithm
  rows = launching.rows(path / 'metrics.csv')
  assert rows[4]['head_accuracy'] > rows[0]['head_accuracy']
  assert ('loss_proximal' in rows[4]) == (algorithm == 'fedprox')
  output = launching.launch('evaluate', f'--run_dir={path}')
  assert f'{rows[4]["head_accuracy"]:.4f}' in output.splitlines()[-1]
  launching.launch('export', f'--run_dir={path}')
  output = launching.launch(
    'export', f'--run_dir={path}', '--client=1', status=1
  )
  assert 'have the averaged model: leave out --client' in output


@pytest.mark.slow
def test_averaged_models_of_several_architectures(tmp_path):
  family = 'digits_mlp,digits_cnn'
  _train(tmp_path, '--protocol=global', '--total_rounds=2', family=family)
  path = tmp_path / 'fedsa'
  (last,) = launching.rows(path / 'metrics.csv')[-1:]
  column = 'global_test_head_accuracy'
  by_architecture = [last[f'{column}_{n}'] for n in family.split(',')]
  assert last[column] == pytest.approx(np.mean(by_architecture))
  # Only half of the clients have either architecture.
  sizes = last['averager_mean_size'] * 4
  assert last['bytes_up_per_client'] == pytest.approx(
    sizes + 4 + 10 * 4 * (16 + 1)
  )
  output = launching.launch('evaluate', f'--run_dir={path}')
  for name, accuracy in zip(family.split(','), by_architecture):
    (line,) = (row for row in output.splitlines() if name in row)
    assert line.split()[-1] == f'{accuracy:.4f}'


@pytest.fixture(scope='module')
def tiers(tmp_path_factory):
  """A run of FedSA with shared models that was resumed, two of four clients."""
  root = tmp_path_factory.mktemp('tiers')
  for rounds in (2, 4):
    output = _train(
      root,
      '--share_weights=model',
      '--clients_per_round=2',
      f'--total_rounds={rounds}',
      family='digits_mlp,digits_cnn',
    )
  return root / 'fedsa', output


@pytest.mark.slow
def test_a_resumed_run_of_tiers_equals_an_uninterrupted_one(tiers, tmp_path):
  path, output = tiers
  table = output[output.index('accuracy after 4 rounds') :].splitlines()
  assert [line.split()[0] for line in table[2:6]] == [
    'prototype',
    'anchor',
    'head',
    'received_head',
  ]
  _train(
    tmp_path,
    '--share_weights=model',
    '--clients_per_round=2',
    '--total_rounds=4',
    family='digits_mlp,digits_cnn',
  )
  rows = launching.rows(path / 'metrics.csv')
  assert rows == launching.rows(tmp_path / 'fedsa/metrics.csv')
  assert rows[0]['received_head_accuracy'] == rows[0]['head_accuracy']
  assert rows[4]['received_head_accuracy'] != rows[4]['head_accuracy']


@pytest.mark.slow
def test_models_of_tiers_and_of_their_clients_are_exported(tiers):
  path, _ = tiers
  output = launching.launch(
    'export', f'--run_dir={path}', '--architecture=digits_cnn'
  )
  assert 'averaged_digits_cnn.keras: the averaged model (digits_cnn)' in output
  launching.launch('export', f'--run_dir={path}', '--client=1')
  import tff_fedsa.models.pooling  # noqa: F401  Registers a layer.

  test = tasks.load_task(_SPEC).clients[1].test
  with open(path / 'per_client.csv', newline='') as file:
    counts = list(csv.DictReader(file))[1]
  assert counts['architecture'] == 'digits_cnn'
  for name, column in (
    ('client_1', 'head'),
    ('averaged_digits_cnn', 'received_head'),
  ):
    scores = tf.keras.models.load_model(path / f'{name}.keras')(test['x'])
    correct = np.sum(scores['head'].numpy().argmax(axis=1) == test['y'])
    assert abs(int(counts[column]) - correct) <= 1, name
  output = launching.launch('export', f'--run_dir={path}', status=1)
  assert 'an architecture of digits_mlp, digits_cnn, found None' in output
  output = launching.launch(
    'export', f'--run_dir={path}', '--architecture=a', '--client=1', status=1
  )
  assert 'Expected --client or --architecture, found both' in output
