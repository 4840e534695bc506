"""The launchers, as a user calls them: run, resume, evaluate, export."""

import csv
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from launch import errors
from tests.launch import launching
from tff_fedsa.models import architectures
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import metrics
from tff_fedsa.runs import recorders

_ROOT = pathlib.Path(__file__).parents[2]
_ONE_MODEL = '--family=digits_mlp'  # Half the time; given last, it counts.
_FLAGS = (
  '--family=digits_mlp,digits_cnn_bn',
  '--feature_dim=16',
  '--num_clients=6',
  '--max_examples=600',
  '--client_learning_rate=0.01',
  '--noprogress',
)


def _train(root, name, *arguments, **options):
  return launching.launch(
    'train',
    *_FLAGS,
    f'--root_output_dir={root}',
    f'--experiment_name={name}',
    *arguments,
    **options,
  )


def _assert_same_rows(path, other):
  rows = launching.rows(path / 'metrics.csv')
  assert rows == launching.rows(other / 'metrics.csv')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of four rounds."""
  root = tmp_path_factory.mktemp('runs')
  output = _train(root, 'run', '--total_rounds=4', '--rounds_per_checkpoint=2')
  return root, output


def test_a_run_leaves_what_it_promises(run):
  root, output = run
  path = root / 'run'
  for name in (
    'flags.txt',
    'partition.npz',
    'initial_anchors.npy',
    'metrics.csv',
    'per_client.csv',
    'summary.json',
    'checkpoints/round_000004/manifest.json',
    'figures/curves.png',
    'figures/partition.png',
    'figures/per_client_accuracy.png',
    'figures/anchors_and_prototypes.png',
  ):
    assert (path / name).stat().st_size > 0, name
  assert list((path / 'tensorboard').iterdir())
  assert 'accuracy after 4 rounds' in output
  rows = recorders.read_csv(str(path / 'metrics.csv'))
  assert [row['round'] for row in rows] == [0, 1, 2, 3, 4]
  assert rows[4]['loss'] < rows[1]['loss']
  # Columns of methods that exchange or train something else, and of options.
  others = {'loss_distillation', 'loss_structure', 'loss_virtual'}
  others |= {'server_loss', 'server_margin', 'server_nonfinite'}
  others |= {'loss_hidden', 'loss_shared', 'compression_down', 'compression_up'}
  others |= {'loss_proximal', 'loss_generative'}
  others |= {'loss_contrastive_global', 'loss_contrastive_local'}
  others |= {name for name in metrics.COLUMNS if name.startswith('global_head')}
  assert set(rows[4]) == set(metrics.COLUMNS) - others
  # 10 anchors of 16 floats and the round; prototypes and 10 weights.
  assert rows[4]['bytes_down_per_client'] == 10 * 16 * 4 + 4
  assert rows[4]['bytes_up_per_client'] == 10 * 16 * 4 + 10 * 4
  summary = json.loads((path / 'summary.json').read_text())
  assert summary['prototype']['last'] == rows[4]['prototype_accuracy']


def test_divergence_is_said_and_leaves_a_result(tmp_path):
  output = _train(
    tmp_path,
    'diverges',
    '--total_rounds=1',
    '--client_learning_rate=1e9',
    _ONE_MODEL,
  )
  assert "warning: clients' training diverged 6 times" in output
  (_, row) = launching.rows(tmp_path / 'diverges/metrics.csv')
  assert row['clients_nonfinite'] == 6 and row['clients_trained'] == 0
  # Nobody has a loss; 0.0 would look like success.
  assert not [name for name in row if name.startswith('loss')]
  assert (tmp_path / 'diverges/summary.json').exists()


def test_a_run_that_only_diverges_stops_and_says_so(tmp_path):
  output = _train(
    tmp_path,
    'diverges',
    '--total_rounds=50',
    '--client_learning_rate=1e9',
    '--max_failed_rounds=2',
    _ONE_MODEL,
    status=1,
  )
  assert output.splitlines()[-1].startswith(
    'error: Training diverged at every client in 2 rounds in a row'
  )
  assert 'round_000002' in os.listdir(tmp_path / 'diverges/checkpoints')


def test_a_run_without_checkpoint_starts_afresh(run, tmp_path):
  root, _ = run
  options = ('--total_rounds=4', '--client_states=disk')
  _train(tmp_path, 'again', *options)
  shutil.rmtree(tmp_path / 'again/checkpoints')
  output = _train(tmp_path, 'again', *options)
  assert 'resuming' not in output
  _assert_same_rows(tmp_path / 'again', root / 'run')


def test_flags_file_repeats_the_run(run, tmp_path):
  root, _ = run
  launching.launch(
    'train',
    f'--flagfile={root}/run/flags.txt',
    f'--root_output_dir={tmp_path}',
  )
  _assert_same_rows(root / 'run', tmp_path / 'run')


def test_other_flags_are_refused_and_named(run):
  root, _ = run
  output = _train(
    root,
    'run',
    '--total_rounds=4',
    '--anchor_decay=0.5',
    '--lambda_reg=1',
    status=1,
  )
  assert '--anchor_decay: 0.9999 there, 0.5 now' in output
  assert '--lambda_reg: 10.0 there, 1.0 now' in output
  assert 'Traceback' not in output


def test_evaluate_and_export(run, tmp_path):
  root, _ = run
  output = launching.launch('evaluate', f'--run_dir={root}/run')
  last = launching.rows(root / 'run/metrics.csv')[4]
  assert f'{last["prototype_accuracy"]:.4f}' in output.splitlines()[-1]
  path = tmp_path / 'client.keras'
  launching.launch(
    'export', f'--run_dir={root}/run', '--client=1', f'--output={path}'
  )
  import tensorflow as tf

  from tff_fedsa.data import tasks

  model = tf.keras.models.load_model(path)
  task = tasks.load_task(tasks.TaskSpec(num_clients=6, max_examples=600))
  test = task.clients[1].test
  scores = model(test['x'])
  with open(root / 'run/per_client.csv', newline='') as file:
    counts = list(csv.DictReader(file))[1]
  for name in ('prototype', 'anchor', 'head'):
    predicted = scores[name].numpy().argmax(axis=1)
    assert np.sum(predicted == test['y']) == int(counts[name])


@pytest.mark.slow
def test_killed_three_times_equals_uninterrupted(tmp_path):
  options = (
    '--total_rounds=60',
    '--rounds_per_checkpoint=3',
    '--clients_per_round=4',
    '--client_states=disk',
  )
  _train(tmp_path, 'whole', *options)
  rng = random.Random(0)
  path = tmp_path / 'killed'
  for _ in range(3):
    process = launching.start(
      'train',
      *_FLAGS,
      f'--root_output_dir={tmp_path}',
      '--experiment_name=killed',
      *options,
    )
    # Far enough for a checkpoint.
    enough = _last_round(path) + 6
    deadline = time.monotonic() + 120
    while _last_round(path) < enough and time.monotonic() < deadline:
      time.sleep(0.01)
    time.sleep(rng.random() * 0.2)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
  output = _train(tmp_path, 'killed', *options)
  assert 'resuming after round' in output
  _assert_same_rows(path, tmp_path / 'whole')


def test_states_too_large_for_memory_live_on_disk(run, tmp_path):
  root, output = run
  assert 'GB, in memory' in output
  assert not (root / 'run/client_states').exists()
  limit = '--client_states_memory_gb=0.0001'
  output = _train(tmp_path, 'disk', '--total_rounds=4', limit)
  states = tmp_path / 'disk/client_states'
  assert f'GB, {states}' in output
  # All of them are in the last checkpoint by now.
  assert list(states.iterdir()) == []
  assert len(list((tmp_path / 'disk/checkpoints/clients').iterdir())) >= 6
  _assert_same_rows(tmp_path / 'disk', root / 'run')


_ENDLESS = (*_FLAGS, '--total_rounds=5000', _ONE_MODEL)


def _wait_for_rounds(path):
  deadline = time.monotonic() + 120
  while _last_round(path) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)


def _assert_interrupted(path, output, said=''):
  assert output.endswith(
    f'interrupted; the same command resumes the run{said}\n'
  )
  # The rounds that were finished are saved, not those of 0, 10, ….
  saved = checkpoints.CheckpointManager(str(path / 'checkpoints')).rounds()
  assert saved[-1] == _last_round(path) or saved[-1] == _last_round(path) - 1
  assert 'Traceback' not in output


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_a_word(tmp_path):
  process = launching.start(
    'train',
    *_ENDLESS,
    f'--root_output_dir={tmp_path}',
    '--experiment_name=interrupted',
    # Jobs in the background of a shell ignore SIGINT.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  path = tmp_path / 'interrupted'
  _wait_for_rounds(path)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == -signal.SIGINT, output
  _assert_interrupted(path, output)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_run_with_a_word(tmp_path, monkeypatch, number):
  path = tmp_path / 'interrupted'
  # That a signal was received is a state of the process.
  monkeypatch.setattr(errors, '_ending', errors._Ending())

  def send():
    _wait_for_rounds(path)
    os.kill(os.getpid(), number)

  sender = threading.Thread(target=send)
  sender.start()
  output = launching.launch(
    'train',
    *_ENDLESS,
    f'--root_output_dir={tmp_path}',
    '--experiment_name=interrupted',
    status=1,
  )
  sender.join()
  # At exit a function gives the status.
  monkeypatch.setattr(os, '_exit', sys.exit)
  with pytest.raises(SystemExit) as ended:
    errors._end_by_signal()
  assert ended.value.code == 128 + number
  _assert_interrupted(path, output, f' ({number.name})')


_SWALLOWED = """
import signal
from launch import errors
signal.signal(signal.SIGINT, signal.default_int_handler)
with errors.reported('stopped'):
  class Dropped:
    def __del__(self):
      signal.raise_signal(signal.SIGINT)
  Dropped()
  print('went on')
  errors.raise_if_interrupted()
  print('not interrupted')
"""


def test_ctrl_c_in_a_destructor_is_not_lost():
  program = subprocess.run(
    [sys.executable, '-c', _SWALLOWED],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  assert program.returncode == -signal.SIGINT, program.stderr
  assert program.stdout == 'went on\n'
  assert program.stderr.endswith('stopped\n')


_MODULE = """
import tensorflow as tf
from tff_fedsa.models import architectures, functional, initializers

@architectures.register_architecture('own_net')
def own_net(input_shape, num_classes, feature_dim):
  images = tf.keras.Input(input_shape)
  hidden = tf.keras.layers.Dense({units})(tf.keras.layers.Flatten()(images))
  features = tf.keras.layers.Dense(feature_dim)(hidden)
  return functional.KerasClientModel(
    feature_extractor=tf.keras.Model(images, features),
    head=initializers.linear_head(feature_dim, num_classes),
  )
"""


def test_a_checkpoint_of_an_edited_model_is_refused(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  known = dict(architectures._ARCHITECTURES)
  monkeypatch.setattr(architectures, '_ARCHITECTURES', known)
  monkeypatch.setitem(sys.modules, 'own_module', None)  # Gone when all is over.
  options = ('--architecture_modules=own_module', '--family=own_net')

  def write(units):
    # Of different lengths: Python compares time and size of a cached module.
    (tmp_path / 'own_module.py').write_text(_MODULE.format(units=units))
    # The next launcher imports it anew, like a process of its own.
    importlib.invalidate_caches()
    del sys.modules['own_module']
    known.pop('own_net', None)

  write(8)
  _train(tmp_path, 'edited', '--total_rounds=1', *options)
  write(12)
  output = _train(tmp_path, 'edited', '--total_rounds=2', *options, status=1)
  assert 'expected weights float32[' in output
  assert 'found float32[834] in the checkpoint' in output
  assert 'Traceback' not in output
  output = launching.launch(
    'evaluate', f'--run_dir={tmp_path / "edited"}', status=1
  )
  assert 'have changed since' in output


def _last_round(path):
  """Returns the last row's round, which may be being written."""
  if not (path / 'metrics.csv').exists():
    return -1
  return len((path / 'metrics.csv').read_text().splitlines()) - 2


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--dataset=imagenet'], "Unknown --dataset 'imagenet'; known: digits"),
    (['--family=vgg'], 'known families: '),
    (['--partition=natural'], 'should be one of <iid|dirichlet|pathological'),
    (['--feature_dim=100000000'], 'feature_dim'),
    (['--experiment_name=a/b'], 'without a separator'),
    (['--experiment_name=..'], 'without a separator'),
    (['--experiment_name=' + 'x' * 300], 'no more than 200 bytes'),
    (['--experiment_name=a\nb'], 'line breaks'),
    (['--dataset=cifar10', '--data_dir=nowhere'], 'No data directory'),
    (['--partition=iid', '--alpha=0.5'], '--alpha would be ignored'),
    (['--client_momentum=0.5'], '--client_momentum would be ignored'),
    (['--clients_per_round=7'], 'clients_per_round in [1, 6], found 7'),
    (['--root_output_dir=/proc/nothing'], 'Cannot write to'),
  ],
)
def test_wrong_flags_are_one_line(tmp_path, arguments, message):
  output = _train(tmp_path, 'wrong', *arguments, status=1)
  assert message in output
  assert 'Traceback' not in output
  # Nothing was opened.
  assert list(tmp_path.iterdir()) == []


_HELP = """
import atexit, runpy, sys
module = sys.argv.pop(1)
atexit.register(lambda: print('tensorflow' in sys.modules))
runpy.run_module(module, run_name='__main__', alter_sys=True)
"""


@pytest.mark.parametrize('module', ['train', 'evaluate', 'export'])
def test_help_teaches_without_tensorflow(module):
  ended = subprocess.run(
    [sys.executable, '-c', _HELP, f'launch.{module}', '--help'],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  assert f'tff-fedsa {module} ' in ended.stdout, ended.stderr
  assert '--run_dir' in ended.stdout or module == 'train'
  assert ended.stdout.endswith('False\n')


def test_launchers_know_the_layout_by_kind(tmp_path):
  _train(tmp_path, 'name', '--directory_layout=by_kind', '--total_rounds=1')
  found = {path.name for path in tmp_path.iterdir()}
  assert found == {'checkpoints', 'results', 'logdir'}
  assert list((tmp_path / 'logdir' / 'name').glob('events*'))
  assert (tmp_path / 'results/name/figures/curves.png').exists()
  output = launching.launch('evaluate', f'--run_dir={tmp_path}/results/name')
  assert 'round 1' in output
