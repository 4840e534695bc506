"""Presets are found by name, from any folder."""

import pathlib

import pytest

from tff_fedsa.runs import presets

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  'name',
  [
    'fedsa.digits',
    'fedsa.digits.flags',
    'flags/fedsa.digits.flags',
    'paper/cifar10_htfe8.small',
    'flags/paper/cifar10_htfe8.small.flags',
  ],
)
def test_found_from_anywhere(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = pathlib.Path(presets.find(name))
  assert path.is_file() and (_ROOT / 'flags') in path.parents


def test_all_have_names():
  names = presets.names()
  assert {'fedsa.digits', 'paper/cifar10_htfe8'} <= set(names)
  assert all(presets.find(name) for name in names)
  for name in ('digits_dir01', 'flags/sweeps/digits_dir01.toml'):
    assert presets.find_sweep(name).endswith('flags/sweeps/digits_dir01.toml')


def test_an_own_file_comes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'fedsa.digits.flags').write_text('--alpha=3\n')
  assert presets.read('fedsa.digits') == ['--alpha=3']


def test_flags_of_included_files_come_in_their_place(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  own = tmp_path / 'own.flags'
  own.write_text(
    '# Mine.\n\n--alpha=1\n--flagfile=flags/fedsa.digits.flags\n--download\n'
  )
  expected = presets.read('fedsa.digits')
  assert presets.read(str(own)) == ['--alpha=1', *expected, '--download']
  assert presets.expand(
    ['train', '--flagfile', 'own', '--', '--flagfile=x']
  ) == [
    'train',
    '--alpha=1',
    *expected,
    '--download',
    '--',
    '--flagfile=x',
  ]


@pytest.mark.parametrize(
  'name, message',
  [
    ('fedsa.digit', 'did you mean fedsa.digits'),
    ('cifar10_htfe8', 'did you mean paper/cifar10_htfe8?'),
    ('/nowhere/at/all', 'there are collaboration/fedpcl, '),
  ],
)
def test_a_wrong_name_is_told_the_right_one(name, message):
  with pytest.raises(presets.PresetError) as error:
    presets.find(name)
  assert message in str(error.value)


def test_a_file_can_not_include_itself(tmp_path):
  path = tmp_path / 'one.flags'
  path.write_text(f'--flagfile={path}\n')
  with pytest.raises(presets.PresetError, match='includes itself'):
    presets.read(str(path))
  with pytest.raises(presets.PresetError, match='expected a file'):
    presets.expand(['--flagfile'])
