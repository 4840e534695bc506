"""Other methods than FedSA through the launchers."""

import csv

import numpy as np
import pytest

from tests.launch import launching


def _train(root, *arguments):
  return launching.launch(
    'train',
    '--family=digits_mlp,digits_cnn_bn',
    '--feature_dim=16',
    '--num_clients=6',
    '--max_examples=600',
    '--client_learning_rate=0.05',
    '--noprogress',
    f'--root_output_dir={root}',
    *arguments,
  )


@pytest.mark.slow
def test_fedproto_trains_and_resumes(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  arguments = ('--algorithm=fedproto', '--fedproto_lambda=1')
  _train(whole, *arguments, '--total_rounds=4')
  _train(parts, *arguments, '--total_rounds=2')
  output = _train(parts, *arguments, '--total_rounds=4')
  rows = launching.rows(parts / 'fedproto/metrics.csv')
  assert rows == launching.rows(whole / 'fedproto/metrics.csv')
  assert [row['round'] for row in rows] == [0, 1, 2, 3, 4]
  # Columns of FedSA alone are empty, its files are not there.
  assert not any('anchor' in n or 'gap' in n for n in rows[4])
  assert rows[4]['classes_present'] == 10
  assert rows[1]['loss_regularization'] == 0 < rows[2]['loss_regularization']
  files = {path.name for path in (parts / 'fedproto').rglob('*')}
  assert 'prototypes.png' in files and 'initial_anchors.npy' not in files
  table = output[output.index('classifier') :]
  assert 'prototype ' in table and 'head ' in table and 'anchor ' not in table
  output = launching.launch('evaluate', f'--run_dir={parts}/fedproto')
  accuracy = f'{rows[4]["prototype_accuracy"]:.4f}'
  assert accuracy in output.splitlines()[-1]


@pytest.mark.parametrize(
  'algorithm', [pytest.param('local', marks=pytest.mark.slow), 'fedgh']
)
def test_methods_train_and_are_exported(tmp_path, algorithm):
  _train(tmp_path, f'--algorithm={algorithm}', '--total_rounds=2')
  rows = launching.rows(tmp_path / algorithm / 'metrics.csv')
  assert rows[2]['loss'] < rows[1]['loss']
  assert ('server_loss' in rows[2]) == (algorithm != 'local')
  path = tmp_path / 'client.keras'
  launching.launch(
    'export',
    f'--run_dir={tmp_path}/{algorithm}',
    '--client=1',
    f'--output={path}',
  )
  import tensorflow as tf

  from tff_fedsa.data import tasks

  scores_fn = tf.keras.models.load_model(path)
  task = tasks.load_task(tasks.TaskSpec(num_clients=6, max_examples=600))
  test = task.clients[1].test
  scores = scores_fn(test['x'])
  with open(tmp_path / algorithm / 'per_client.csv', newline='') as file:
    counts = list(csv.DictReader(file))[1]
  names = set(counts) - {'client', 'architecture', 'num_examples'}
  assert names == set(scores) - {'features'}
  for name in names:
    predicted = scores[name].numpy().argmax(axis=1)
    assert np.sum(predicted == test['y']) == int(counts[name]), name


@pytest.mark.slow
def test_fml_trains_a_shared_model(tmp_path):
  arguments = ('--algorithm=fml', '--fml_shared_model=digits_mlp')
  output = _train(tmp_path, *arguments, '--total_rounds=3')
  rows = launching.rows(tmp_path / 'fml/metrics.csv')
  assert rows[3]['loss'] < rows[1]['loss']
  assert rows[3]['loss_shared'] < rows[1]['loss_shared']
  assert rows[3]['loss_distillation'] > 0
  # A dense layer of 64, one of 16 and the head; round number and weight.
  size = 4 * (65 * 64 + 65 * 16 + 17 * 10) + 4
  assert rows[3]['bytes_down_per_client'] == size
  assert rows[3]['bytes_up_per_client'] == size
  assert 'head ' in output[output.index('classifier') :]


@pytest.mark.slow
def test_fedkd_compresses_and_resumes(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  arguments = ('--algorithm=fedkd', '--fedkd_energy_rounds=4')
  _train(whole, *arguments, '--total_rounds=4')
  arguments += ('--client_states=disk',)
  _train(parts, *arguments, '--total_rounds=2')
  _train(parts, *arguments, '--total_rounds=4')
  rows = launching.rows(parts / 'fedkd/metrics.csv')
  # The clients' transformations are part of what was saved.
  assert rows == launching.rows(whole / 'fedkd/metrics.csv')
  assert rows[4]['loss'] < rows[1]['loss']
  # The first weights come as they are; then updates are compressed.
  assert rows[1]['compression_down'] == 1 < rows[2]['compression_down']
  full = rows[1]['bytes_down_per_client']
  for row in rows[2:]:
    assert row['compression_up'] > 1 and row['loss_hidden'] > 0
    assert 0 < row['bytes_down_per_client'] < full
    assert 0 < row['bytes_up_per_client'] < full


@pytest.mark.slow
def test_fedgen_trains_a_generator(tmp_path):
  arguments = ('--algorithm=fedgen', '--fedgen_noise_dim=8')
  output = _train(tmp_path, *arguments, '--total_rounds=3')
  rows = launching.rows(tmp_path / 'fedgen/metrics.csv')
  # Heads learn to recognize what is generated.
  for name in ('loss', 'loss_generative'):
    assert rows[3][name] < rows[1][name], name
  assert 0 < rows[1]['server_loss'] < np.log(10)
  head = 17 * 10
  generator = (8 + 10) * 512 + 2 * 512 + 512 * 16 + 16
  size = 4 * (generator + head + 10) + 4
  assert rows[3]['bytes_down_per_client'] == size
  assert rows[3]['bytes_up_per_client'] == 4 * (head + 10)
  assert 'global_head ' in output[output.index('classifier') :]


@pytest.mark.slow
def test_fedpcl_contrasts_with_the_clients_of_a_round(tmp_path):
  arguments = ('--algorithm=fedpcl', '--clients_per_round=3')
  output = _train(tmp_path, *arguments, '--total_rounds=3')
  rows = launching.rows(tmp_path / 'fedpcl/metrics.csv')
  for name in ('loss_contrastive_global', 'loss_contrastive_local'):
    assert rows[1][name] == 0 < rows[2][name]
  assert rows[3]['prototype_accuracy'] > rows[0]['prototype_accuracy']
  table = 4 * 10 * 16
  size = (table + 10) + 3 * (table + 1) + 4
  assert rows[3]['bytes_down_per_client'] == size
  assert 'prototype ' in output[output.index('classifier') :]
