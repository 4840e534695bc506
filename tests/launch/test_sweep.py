"""launch.sweep: everything is checked first, finished runs are not repeated."""

import json
import pathlib
import re
import textwrap

from absl import flags
import pytest

from tests import programs
from tests.launch import launching
from tff_fedsa.runs import directory
from tff_fedsa.sweeps import sweep_file
from tff_fedsa.sweeps import values as values_lib

_SMALL = """
  [flags]
  total_rounds = 2
  feature_dim = 8
  num_clients = 4
  max_examples = 300
  family = 'digits_mlp'
"""


def _sweep(tmp_path, text, **replaced):
  path = tmp_path / 'try.toml'
  path.write_text(textwrap.dedent(text))
  return sweep_file.read(str(path))._replace(**replaced)


@pytest.fixture
def planner():
  """launch.sweep with its flags, as long as the test lasts."""
  before = set(flags.FLAGS)
  # Its flags are taken from the process and given back for the test.
  module = programs.load('launch.sweep')
  experiment = module.experiment.ExperimentFlags()
  old, module._EXPERIMENT = module._EXPERIMENT, experiment
  yield module
  module._EXPERIMENT = old
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


def _write_run(planner, run, rounds, **changes):
  """Leaves what a run of launch.train leaves."""
  planner._parse(run.arguments)
  values = {**planner._EXPERIMENT.values(), **changes}
  made = directory.RunDirectory(run.path)
  pathlib.Path(run.path).mkdir(parents=True)
  directory.keep_flags(made, values, defaults={}, free=())
  pathlib.Path(made.summary_json).write_text(json.dumps({'rounds': rounds}))


def test_a_seed_sets_what_repeats_differ_in(planner, tmp_path):
  sweep = _sweep(
    tmp_path,
    _SMALL + "  partition_seed = 5\n  [axes]\n  algorithm = ['fedsa', 'local']",
    seeds=(0, 7),
  )
  runs = planner.plan(sweep, str(tmp_path), ['--total_rounds=3'])
  assert [(run.variant, run.seed) for run in runs] == [
    ('fedsa', 0),
    ('local', 0),
    ('fedsa', 7),
    ('local', 7),
  ]
  fedsa, local = runs[2:]
  assert fedsa.path == str(tmp_path / 'fedsa/seed_7')
  assert fedsa.log == str(tmp_path / 'fedsa/seed_7/train.log')
  for name in ('model_seed', 'sampling_seed', 'anchor_seed'):
    assert f'--{name}=7' in fedsa.arguments
  # It has no anchors, and would refuse the flag.
  assert '--anchor_seed=7' not in local.arguments
  planner._parse(fedsa.arguments)
  values = planner._EXPERIMENT.values()
  assert values['partition_seed'] == 5
  # The command line overrules the file.
  assert values['total_rounds'] == 3


def test_mistakes_in_flags_are_found_before_anything_starts(planner, tmp_path):
  sweep = _sweep(
    tmp_path,
    _SMALL
    + """
  [variants]
  good = {}
  name = {alhpa = 1}
  value = {alpha = 'a'}
  choice = {algorithm = 'fedsb'}
  partition = {partition = 'dirichelt'}
  family = {family = 'digits4'}
  vain = {algorithm = 'local', lambda_reg = 1}
  mine = {dry_run = true}
    """,
  )
  with pytest.raises(values_lib.SweepError) as error:
    planner.plan(sweep, str(tmp_path / 'runs'))
  message = str(error.value)
  for variant, part in (
    ('name', "Unknown command line flag 'alhpa'. Did you mean: alpha"),
    ('value', 'flag --alpha=a'),
    ('choice', 'flag --algorithm=fedsb'),
    ('partition', 'dirichelt'),
    ('family', 'digits4'),
    ('vain', '--lambda_reg would be ignored: --algorithm=local'),
    ('mine', '--dry_run is a flag of `tff-fedsa sweep`'),
  ):
    assert f'\n{variant}, seed 0: ' in message
    assert part in message.split(f'\n{variant}, seed 0: ')[1].split('\n')[0]
  assert 'good' not in message
  assert not (tmp_path / 'runs').exists()


def test_finished_runs_are_known_by_their_flags(planner, tmp_path):
  sweep = _sweep(tmp_path, _SMALL + '  [axes]\n  lambda_reg = [1, 2, 3]')
  runs = planner.plan(sweep, str(tmp_path))
  assert [run.status for run in runs] == ['waiting'] * 3
  _write_run(planner, runs[0], 2)
  # Interrupted after a longer time was asked for.
  _write_run(planner, runs[1], 1)
  # Made before there was a flag, and elsewhere.
  _write_run(planner, runs[2], 2, remainder=None, data_dir='elsewhere')
  statuses = [run.status for run in planner.plan(sweep, str(tmp_path))]
  assert statuses == ['finished', 'interrupted', 'finished']


@pytest.mark.parametrize(
  'given, message',
  [
    ('--client_batch_size=20', '--client_batch_size: 10 there, 20 now'),
    ('--total_rounds=1', '--total_rounds: 2 there, 1 now'),
  ],
)
def test_a_run_with_other_flags_is_in_the_way(
  planner, tmp_path, given, message
):
  sweep = _sweep(tmp_path, _SMALL)
  (run,) = planner.plan(sweep, str(tmp_path))
  _write_run(planner, run, 2)
  with pytest.raises(values_lib.SweepError, match=message):
    planner.plan(sweep, str(tmp_path), [given])


def _file(tmp_path, text):
  path = tmp_path / 'two.toml'
  path.write_text(textwrap.dedent(text))
  return f'--sweep={path}'


def test_dry_run_prints_commands(tmp_path):
  output = launching.launch(
    'sweep',
    _file(tmp_path, _SMALL + "  [axes]\n  algorithm = ['fedsa', 'local']"),
    '--dry_run',
    '--seeds=1,2',
    '--only=f*',
    '--max_parallel=2',
    f'--root_output_dir={tmp_path}/runs',
  )
  lines = output.splitlines()
  assert len(lines) == 2
  for seed, line in zip((1, 2), lines):
    assert line.startswith('tff-fedsa train ')
    assert f'--root_output_dir={tmp_path}/runs/two/fedsa ' in line
    assert line.endswith(f'--anchor_seed={seed}')
    assert '--intra_op_threads=1 ' in line
  assert not (tmp_path / 'runs').exists()


# No data there: known only when it runs.
_FAILING = """
  [variants]
  bad = {dataset = 'npz', data_dir = 'nowhere.npz'}
"""


def test_a_failed_run_is_shown_and_counted(planner, tmp_path, capsys):
  small = _SMALL.replace('  max_examples = 300\n', '')
  runs = planner.plan(_sweep(tmp_path, small + _FAILING), str(tmp_path))
  (run,) = runs
  assert planner.sweep_runs.run_all(runs, str(tmp_path), [{}]) == {run.path: 1}
  output = capsys.readouterr().out
  assert 'bad, seed 0 failed with status 1:' in output
  assert 'nowhere.npz' in output and f'(all of it: {run.log})' in output
  record = json.loads((tmp_path / 'sweep.json').read_text())
  assert record['runs']['bad/seed_0'] == {
    'variant': 'bad',
    'seed': 0,
    'status': 'failed',
    'exit_code': 1,
  }


@pytest.mark.slow
@pytest.mark.pictures
def test_a_sweep_and_its_report(tmp_path):
  arguments = (
    _file(
      tmp_path,
      'seeds = [0, 1]\n'
      + textwrap.dedent(_SMALL)
      + "[axes]\nalgorithm = ['fedsa', 'local']",
    ),
    f'--root_output_dir={tmp_path}/runs',
  )
  # Some runs first: the report says what is missing.
  launching.train_runs(*arguments, '--only=fedsa')
  launching.launch('sweep', *arguments, '--only=local', '--seeds=0')
  output = launching.launch('sweep', *arguments, '--only=fedsa')
  assert '2 runs (1 variants, seeds 0, 1): 2 finished' in output
  root = tmp_path / 'runs/two'
  output = launching.launch('report', str(root), status=1)
  assert 'local: seed 1' in output and '--allow_missing' in output
  output = launching.launch('sweep', *arguments)
  assert '4 runs (2 variants, seeds 0, 1): 3 finished' in output
  assert ' 0 to resume, 1 to start' in output
  output = launching.launch(
    'report',
    str(root),
    '--features=2',
    '--projection=tsne',
    '--formats=png,svg',
  )
  assert 'digits, 300 examples, dirichlet 0.1' in output
  for name in (
    'report.md',
    'comparison.csv',
    'comparison.tex',
    'significance.csv',
    'runs.csv',
    'curves.png',
    'clients.png',
    'communication.png',
    'space_fedsa.png',
    'space_local.png',
    'space_local.svg',
    'features_fedsa.png',
    'gains.svg',
    'report.html',
  ):
    assert (root / 'report' / name).stat().st_size > 100, name
  # The numbers are those of the runs.
  summaries = [
    json.loads((root / f'fedsa/seed_{seed}/summary.json').read_text())
    for seed in (0, 1)
  ]
  mean = sum(summary['prototype']['last'] for summary in summaries) / 2
  row = rf'\| fedsa +\| prototype +\| +2 \| +(?:\*\*|<u>)?{mean:.4f} ± '
  assert re.search(row, output)
  # A failure makes the sweep fail.
  launching.launch(
    'sweep',
    *arguments,
    '--only=local',
    f'--root_output_dir={tmp_path}/bad',
    '--dataset=npz',
    '--data_dir=nowhere.npz',
    status=1,
  )
  # Another setting has its own column.
  launching.train_runs(
    *arguments,
    '--only=fedsa',
    '--seeds=0',
    '--alpha=0.5',
    f'--root_output_dir={tmp_path}/other',
  )
  output = launching.launch('report', str(root), f'{tmp_path}/other')
  assert re.search(r'\| method +\| +alpha=0.1 \| +alpha=0.5 \|', output)
  assert re.search(r'\| Local +\|[^|]+\| +– \|', output)
