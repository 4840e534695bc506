"""Sweep files: what they mean, and what is wrong with them."""

import pathlib
import textwrap

import pytest

from tff_fedsa.sweeps import sweep_file
from tff_fedsa.sweeps import values

_ROOT = pathlib.Path(__file__).parents[2]


def _read(tmp_path, text):
  path = tmp_path / 'try.toml'
  path.write_text(textwrap.dedent(text))
  return sweep_file.read(str(path))


def test_axes_are_combined_and_variants_added(tmp_path):
  sweep = _read(
    tmp_path,
    """
    seeds = [3, 4]
    exclude = [{algorithm = 'local', data = 'iid'}]
    [flags]
    total_rounds = 5
    shuffle = false
    [axes]
    algorithm = ['fedsa', 'local']
    client_batch_size = [10, 50]
    data.dir01 = {alpha = 0.1}
    data.iid = {partition = 'iid'}
    [variants]
    bare = {lambda_reg = 0, lambda_mcl = 0}
    """,
  )
  assert sweep.name == 'try'
  assert sweep.seeds == (3, 4)
  assert list(sweep.variants) == [
    'fedsa,client_batch_size=10,dir01',
    'fedsa,client_batch_size=10,iid',
    'fedsa,client_batch_size=50,dir01',
    'fedsa,client_batch_size=50,iid',
    'local,client_batch_size=10,dir01',
    'local,client_batch_size=50,dir01',
    'bare',
  ]
  assert sweep.variants['local,client_batch_size=50,dir01'] == {
    'algorithm': 'local',
    'client_batch_size': 50,
    'alpha': 0.1,
  }
  assert values.arguments(sweep.flags) == [
    '--total_rounds=5',
    '--shuffle=false',
  ]


def test_a_file_adds_to_its_base(tmp_path):
  folder = tmp_path / 'sweeps'
  folder.mkdir()
  (folder / 'base.toml').write_text(
    textwrap.dedent("""
      name = 'other'
      seeds = [1, 2]
      [flags]
      alpha = 0.1
      num_clients = 4
      [variants]
      one = {}
      two = {lambda_reg = 1}
      """)
  )
  (folder / 'middle.toml').write_text("base = 'base.toml'\nseeds = [3]")
  sweep = _read(
    tmp_path,
    """
    base = 'sweeps/middle.toml'
    [flags]
    alpha = 0.5
    [variants]
    two = {lambda_reg = 2}
    three = {lambda_reg = 3}
    """,
  )
  assert sweep.name == 'try' and sweep.seeds == (3,)
  assert sweep.flags == {'alpha': 0.5, 'num_clients': 4}
  assert sweep.variants == {
    'one': {},
    'two': {'lambda_reg': 2},
    'three': {'lambda_reg': 3},
  }
  (folder / 'base.toml').write_text("base = 'middle.toml'")
  with pytest.raises(values.SweepError, match='middle.toml: a file is its'):
    sweep_file.read(str(tmp_path / 'try.toml'))


def test_repeats_alone_are_a_sweep(tmp_path):
  sweep = _read(tmp_path, "name = 'x'\n[flags]\nalgorithm = 'fedgh'")
  assert sweep.name == 'x' and sweep.variants == {'fedgh': {}}
  assert sweep.seeds == (0,) and 'partition_seed' not in sweep.seed_flags


def test_flag_files_come_first():
  flags = {'alpha': 1.5, 'flagfile': ['a.flags', 'b.flags'], 'workers': [1, 2]}
  assert values.arguments(flags) == [
    '--flagfile=a.flags',
    '--flagfile=b.flags',
    '--alpha=1.5',
    '--workers=1,2',
  ]


@pytest.mark.parametrize(
  'text, message',
  [
    ('seeds = [1', 'not valid TOML'),
    ('seed = [1]', r"unknown key 'seed' \(did you mean 'seeds'\?\)"),
    ('alpha = 0.1', r'Flags belong into \[flags\]'),
    ("base = 'none.toml'", 'No such file.*none.toml'),
    ('base = 3', 'base: expected the name of a file, found 3'),
    ('seeds = 3', 'seeds: expected a list of integers, found 3'),
    ('seeds = [1, true]', 'expected a list of integers'),
    ('seeds = [1, 1]', 'a value is given twice'),
    ('flags = 3', r'\[flags\]: expected a table of flags, found 3'),
    ('[flags]\nalpha = {x = 1}', '--alpha is .*expected a text, a number'),
    ("[flags]\nexperiment_name = 'x'", 'which the sweep does'),
    ('[flags]\nmodel_seed = 1', '--model_seed is set by seeds'),
    ('[axes]\nalpha = 0.1', "axis 'alpha': expected a list of values"),
    ('[axes]\nalpha = []', "axis 'alpha' has no value"),
    ('[axes]\nalpha = [1, 1]', "axis 'alpha' has 1 twice"),
    (
      '[axes]\nalpha = [1, 2]\nd.a = {alpha = 3}',
      "two axes set --alpha; one of them is 'd'",
    ),
    ('exclude = [{beta = 1}]\n[axes]\nalpha = [1]', "there is no axis 'beta'"),
    (
      'exclude = [{alpha = 2}]\n[axes]\nalpha = [1]',
      "axis 'alpha' has no value 2",
    ),
    ('exclude = [{alpha = 1}]\n[axes]\nalpha = [1]', 'leaves no variant'),
    ("[axes]\nfamily = ['a/b']", "'family=a/b' names a directory"),
    (
      "[axes]\nalgorithm = ['fedsa']\n[variants]\nfedsa = {}",
      "two variants are named 'fedsa'",
    ),
    ('[variants]\na = {}\nb = {}', "variants 'a' and 'b' have the same flags"),
  ],
)
def test_mistakes_are_named(tmp_path, text, message):
  with pytest.raises(values.SweepError, match=message) as error:
    _read(tmp_path, text)
  assert 'try.toml' in str(error.value)


def test_a_missing_file_is_an_error():
  with pytest.raises(values.SweepError, match='No such file'):
    sweep_file.read('nowhere.toml')


@pytest.mark.parametrize(
  'path', sorted((_ROOT / 'flags/sweeps').glob('*.toml')), ids=lambda p: p.stem
)
def test_ready_made_sweeps_are_valid(path):
  sweep = sweep_file.read(str(path))
  # The demo is a look, not a comparison.
  assert len(sweep.seeds) >= 3 or sweep.name == 'demo'
  assert len(sweep.variants) > 1


def test_a_part_of_a_sweep_is_chosen(tmp_path):
  whole = _read(tmp_path, "[axes]\nalgorithm = ['fedsa', 'fedgh', 'local']")
  assert sweep_file.choose(whole) == whole
  part = sweep_file.choose(whole, seeds=['2', '1', '2'], only=['fed*'])
  assert part.seeds == (2, 1) and list(part.variants) == ['fedsa', 'fedgh']
  with pytest.raises(values.SweepError, match='--seeds: expected integers'):
    sweep_file.choose(whole, seeds=['1', 'x'])
  with pytest.raises(
    values.SweepError, match="no variant 'x[*]'; there are fed"
  ):
    sweep_file.choose(whole, only=['x*'])


def test_names_with_commas_are_chosen_by_question_marks(tmp_path):
  whole = _read(
    tmp_path,
    "[axes]\nalgorithm = ['fedsa', 'local']\nalpha = [1, 2, 3, 4, 5, 6, 7]",
  )
  part = sweep_file.choose(whole, only=['local?alpha=2'])
  assert list(part.variants) == ['local,alpha=2']
  with pytest.raises(
    values.SweepError,
    match=r'fedsa,alpha=1; .*; and 2 more\. Commas .* --only=fedsa\?alpha=1\.',
  ):
    sweep_file.choose(whole, only=['local', 'alpha=2'])
