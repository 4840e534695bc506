"""A report's files are whole, and nothing is left out silently."""

import io
import re

import pandas
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import comparison
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs


def _groups(path):
  return groups_lib.group(runs.find([str(path)], made_up.DEFAULTS))


def test_files_of_a_report(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.8, 0.9, 0.7])
  made_up.write_repeats(
    tmp_path, 'local', [0.6, 0.85, 0.65], algorithm='local', bytes_up=0
  )
  compared = comparison.Comparison(_groups(tmp_path))
  assert list(compared.figures()) == [
    'curves',
    'clients',
    'gains',
    'communication',
  ]
  texts = compared.texts('a title')
  assert sorted(texts) == [
    'comparison.csv',
    'comparison.tex',
    'fairness.csv',
    'fairness.tex',
    'report.md',
    'runs.csv',
    'significance.csv',
    'significance.tex',
  ]
  report = texts['report.md']
  assert report.startswith('# a title\n\ndigits, dirichlet 0.1 (partition')
  assert 'seeds 0, 1, 2.' in report
  table = pandas.read_csv(io.StringIO(texts['significance.csv']))
  assert table['name'].tolist() == ['local', 'local']


def test_accuracy_by_architecture_where_there_are_several(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.8, 0.9])
  for path in tmp_path.glob('fedsa/*/per_client.csv'):
    table = pandas.read_csv(path)
    table['architecture'] = ['a', *['b'] * (len(table) - 1)]
    table.to_csv(path, index=False)
  texts = comparison.Comparison(_groups(tmp_path)).texts('a title')
  table = pandas.read_csv(io.StringIO(texts['architectures.csv']))
  assert {'a', 'b'} <= set(table)
  (header,) = re.findall(r'\| method *\| *all clients .*', texts['report.md'])
  names = [cell.strip() for cell in header.strip('|').split('|')]
  assert names[1:4] == ['all clients', 'a', 'b']


def test_without_a_reference_the_report_says_so(tmp_path):
  made_up.write_repeats(tmp_path, 'a', [0.8, 0.9], algorithm='local')
  made_up.write_repeats(tmp_path, 'b', [0.6, 0.7], algorithm='fedproto')
  texts = comparison.Comparison(_groups(tmp_path)).texts('x')
  assert 'significance.csv' not in texts
  assert "there is no 'fedsa' to compare with" in texts['report.md']
  assert 'a, b, local, fedproto' in texts['report.md']


@pytest.mark.parametrize('anew', [False, True])
def test_a_report_says_whether_seeds_share_a_partition(tmp_path, anew):
  for name in ('fedsa', 'local'):
    for seed, accuracy in enumerate((0.7, 0.8)):
      dealt = seed if anew else 0
      made_up.write(
        tmp_path / name / f'seed_{seed}',
        [0.1, 0.6, 0.5, accuracy if name == 'fedsa' else 0.6],
        partition=(dealt, 3),
        algorithm=name,
        model_seed=str(seed),
        sampling_seed=str(seed),
        partition_seed=str(dealt),
      )
  report = comparison.Comparison(_groups(tmp_path)).texts('x')['report.md']
  assert ('(partition seeds 0, 1)' in report) == anew
  assert ('(partition seed 0)' in report) == (not anew)
  assert ('Each pair is a partition of its own' in report) == anew
  assert ('on the same partition' in report) == (not anew)


def test_clients_of_their_own_are_counted(tmp_path):
  made_up.write(
    tmp_path / 'fedsa',
    [0.1, 0.5, 0.6, 0.7],
    dataset='csv',
    client_column='hospital',
    num_clients='20',
  )
  report = comparison.Comparison(_groups(tmp_path)).texts('x')['report.md']
  assert 'csv, clients of their own (partition seed 0), 4 clients' in report
