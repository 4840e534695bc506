"""The directory of a run: layouts, flags kept, other flags refused."""

import pathlib

from absl import flags
import pandas
import pytest

from launch import run_dir
from tests.launch import launching


def _values(**changes):
  return {
    'alpha': 0.1,
    'architecture_modules': ['a', 'b'],
    'directory_layout': 'run',
    'patience': None,
    'progress': True,
    **changes,
  }


def test_everything_is_in_one_directory_by_default(tmp_path):
  run = run_dir.open_or_resume(str(tmp_path / 'name'), _values())
  for path in (run.checkpoints, run.tensorboard, run.metrics_csv):
    assert pathlib.Path(path).parent == tmp_path / 'name'


def test_by_kind_is_the_layout_of_google_research(tmp_path):
  path = str(tmp_path / 'results' / 'name')
  run = run_dir.open_or_resume(path, _values(directory_layout='by_kind'))
  assert run.checkpoints == str(tmp_path / 'checkpoints' / 'name')
  assert run.tensorboard == str(tmp_path / 'logdir' / 'name')
  assert run.hparams_csv == str(tmp_path / 'results' / 'name' / 'hparams.csv')
  # What reads a run is given its directory only.
  found = run_dir.open_existing(path + '/')
  assert found.checkpoints == run.checkpoints
  assert found.tensorboard == run.tensorboard


def test_a_run_from_before_there_were_layouts_is_found(tmp_path):
  (tmp_path / 'flags.txt').write_text('--alpha=0.1\n')
  run = run_dir.open_existing(str(tmp_path))
  assert run.checkpoints == str(tmp_path / 'checkpoints')


def test_a_run_from_before_there_was_a_flag_has_its_default():
  flags.DEFINE_integer('a_flag_of_today', 3, 'Of this test only.')
  try:
    recorded = {'alpha': '0.1'}
    assert not run_dir.differing(recorded, {'alpha': 0.1, 'a_flag_of_today': 3})
    assert run_dir.differing(
      recorded, {'alpha': 0.1, 'a_flag_of_today': 4}
    ) == ['--a_flag_of_today: None there, 4 now']
  finally:
    delattr(flags.FLAGS, 'a_flag_of_today')


def test_hparams_are_a_series_of_pandas(tmp_path):
  run = run_dir.open_or_resume(str(tmp_path), _values())
  hparams = pandas.read_csv(run.hparams_csv, index_col=0)['0']
  assert dict(hparams) == {
    'alpha': '0.1',
    'architecture_modules': 'a,b',
    'directory_layout': 'run',
    'progress': 'true',
  }


def test_other_flags_are_refused(tmp_path):
  run_dir.open_or_resume(str(tmp_path), _values())
  run_dir.open_or_resume(str(tmp_path), _values(progress=False, patience=3))
  with pytest.raises(run_dir.RunDirError, match='--alpha: 0.1 there, 1.0 now'):
    run_dir.open_or_resume(str(tmp_path), _values(alpha=1.0))


def test_launchers_know_the_layout(tmp_path):
  launching.launch(
    'train',
    f'--root_output_dir={tmp_path}',
    '--experiment_name=name',
    '--directory_layout=by_kind',
    '--num_clients=3',
    '--max_examples=200',
    '--family=digits_mlp',
    '--feature_dim=8',
    '--total_rounds=1',
    '--noprogress',
  )
  found = {path.name for path in tmp_path.iterdir()}
  assert found == {'checkpoints', 'results', 'logdir'}
  assert list((tmp_path / 'logdir' / 'name').glob('events*'))
  assert (tmp_path / 'results/name/figures/curves.png').exists()
  output = launching.launch('evaluate', f'--run_dir={tmp_path}/results/name')
  assert 'round 1' in output
