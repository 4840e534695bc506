"""Presets of published experiments, and their small twins on made-up files."""

import pathlib

from absl import flags
import numpy as np
import pytest
import tensorflow_datasets as tfds

from launch import experiment
from tests.data import made_up_files

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDERS = ('paper', 'fedhpro')
_PRESETS = sorted(
  str(path.relative_to(_ROOT))
  for folder in _FOLDERS
  for path in (_ROOT / 'flags' / folder).glob('*.flags')
)
_SMALL = [path for path in _PRESETS if path.endswith('.small.flags')]

# Classes and images of made-up files: a client needs 16 examples.
_CLASSES = [f'n{label:02}' for label in range(40)]


@pytest.fixture
def parse(define):
  """Returns `parse(*arguments) -> ExperimentFlags`."""
  return define(experiment.ExperimentFlags)


@pytest.mark.parametrize('path', _PRESETS)
def test_presets_hold_only_differences(parse, path):
  lines = (_ROOT / path).read_text().splitlines()
  assert lines[0].startswith('# ') and max(map(len, lines)) <= 80
  included = [line for line in lines if line.startswith('--flagfile=')]
  parse(*included)
  before = {name: flags.FLAGS[name].value for name in flags.FLAGS}
  defined = parse(f'--flagfile={path}')
  for line in lines:
    if line.startswith('--') and line not in included:
      name = line[2:].partition('=')[0]
      assert flags.FLAGS[name].value != before[name], line
  folder, file = path.split('/')[1:]
  expected = f'{folder}.{file.removesuffix(".flags")}'
  assert flags.FLAGS['experiment_name'].value == expected
  if file != 'common.flags':
    assert (flags.FLAGS['protocol'].value == 'global') == (folder == 'fedhpro')
  # All flags together, names of architectures too.
  defined.build()


def test_every_published_experiment_has_a_small_twin():
  large = set(_PRESETS) - set(_SMALL) - {'flags/fedhpro/common.flags'}
  twins = {path.replace('.small.flags', '.flags') for path in _SMALL}
  assert large == twins and len(large) == 19


@pytest.fixture(scope='session')
def data_dirs(tmp_path_factory):
  """Made-up files in the layout of each data set that is a folder."""
  path = tmp_path_factory.mktemp('data')
  made = {
    'tiny_imagenet': made_up_files.tiny_imagenet(
      path / 'tiny', wnids=_CLASSES, images=10, validation=3
    ),
    'ham10000': made_up_files.ham10000(path / 'ham', images=280),
    'office_caltech10': made_up_files.domain_folder(path / 'office', images=15),
  }
  rng = np.random.default_rng(0)
  for file in path.rglob('*.[jJ]*'):
    # All channels vary, as presets divide by their standard deviations.
    made_up_files.image(str(file), tuple(rng.integers(0, 256, 3).tolist()))
  return made


@pytest.mark.parametrize('path', _SMALL)
def test_small_twins_have_a_task(parse, data_dirs, path):
  parse(f'--flagfile={path}')
  dataset = flags.FLAGS['dataset'].value
  # For others, `mock_data` takes the place of the download.
  where = (
    f'--data_dir={data_dirs[dataset]}' if dataset in data_dirs else '--download'
  )
  defined = parse(f'--flagfile={path}', '--data_cache_dir=none', where)
  with tfds.testing.mock_data(num_examples=400):
    task = defined.build().task
  assert task.class_counts().sum(axis=1).min() > 0
  if flags.FLAGS['protocol'].value == 'global':
    tests = task.global_test()
    assert all(len(test['y']) for test in tests.values())
    assert len(tests) == (4 if dataset == 'office_caltech10' else 1)
    assert task.input_spec.flip and task.input_spec.crop_padding == 4
  else:
    assert all(len(client.test['y']) for client in task.clients)
