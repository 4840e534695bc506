"""Other methods than FedSA through the launchers."""

import csv
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tff_fedsa import metrics

# BUILD: //launch:train //launch:evaluate //launch:export //flags:presets
_ROOT = pathlib.Path(__file__).parents[2]


def _launch(module, *arguments):
  process = subprocess.run(
    [sys.executable, '-m', f'launch.{module}', *arguments],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
  )
  assert process.returncode == 0, process.stdout
  return process.stdout


def _train(root, *arguments):
  return _launch(
    'train',
    '--feature_dim=16',
    '--num_clients=6',
    '--max_examples=600',
    '--client_learning_rate=0.05',
    '--noprogress',
    f'--root_output_dir={root}',
    *arguments,
  )


def _rows(path):
  return [
    {k: v for k, v in row.items() if k not in metrics.VOLATILE_COLUMNS}
    for row in metrics.read_csv(str(path))
  ]


def test_fedproto_trains_and_resumes(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  arguments = ('--algorithm=fedproto', '--fedproto_lambda=1')
  _train(whole, *arguments, '--total_rounds=4')
  _train(parts, *arguments, '--total_rounds=2')
  output = _train(parts, *arguments, '--total_rounds=4')
  rows = _rows(parts / 'fedproto/metrics.csv')
  assert rows == _rows(whole / 'fedproto/metrics.csv')
  assert [row['round'] for row in rows] == [0, 1, 2, 3, 4]
  # Columns of FedSA alone are empty, its files are not there.
  assert not any('anchor' in n or 'gap' in n for n in rows[4])
  assert rows[4]['classes_present'] == 10
  assert rows[1]['loss_regularization'] == 0 < rows[2]['loss_regularization']
  files = {path.name for path in (parts / 'fedproto').rglob('*')}
  assert 'prototypes.png' in files and 'initial_anchors.npy' not in files
  table = output[output.index('classifier') :]
  assert 'prototype ' in table and 'head ' in table and 'anchor ' not in table
  output = _launch('evaluate', f'--run_dir={parts}/fedproto')
  accuracy = f'{rows[4]["prototype_accuracy"]:.4f}'
  assert accuracy in output.splitlines()[-1]


@pytest.mark.parametrize('algorithm', ['local', 'fedgh'])
def test_methods_train_and_are_exported(tmp_path, algorithm):
  _train(tmp_path, f'--algorithm={algorithm}', '--total_rounds=2')
  rows = _rows(tmp_path / algorithm / 'metrics.csv')
  assert rows[2]['loss'] < rows[1]['loss']
  assert ('server_loss' in rows[2]) == (algorithm != 'local')
  path = tmp_path / 'client.keras'
  _launch(
    'export',
    f'--run_dir={tmp_path}/{algorithm}',
    '--client=2',
    f'--output={path}',
  )
  import tensorflow as tf

  from tff_fedsa.data import tasks

  scores_fn = tf.keras.models.load_model(path)
  task = tasks.load_task(tasks.TaskSpec(num_clients=6, max_examples=600))
  test = task.clients[2].test
  scores = scores_fn(test['x'])
  with open(tmp_path / algorithm / 'per_client.csv', newline='') as file:
    counts = list(csv.DictReader(file))[2]
  names = set(counts) - {'client', 'architecture', 'num_examples'}
  assert names == set(scores) - {'features'}
  for name in names:
    predicted = scores[name].numpy().argmax(axis=1)
    assert np.sum(predicted == test['y']) == int(counts[name]), name
