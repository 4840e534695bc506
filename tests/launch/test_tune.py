"""A search: its trials, and what it needs. Reports: tests/reporting."""

from tests.launch import launching

_SWEEP = """
trials = 2
[axes]
algorithm = ['fedsa', 'local']
[search]
client_learning_rate = [0.1, 0.2]
"""


def test_each_method_has_its_trials(tmp_path):
  file = tmp_path / 'mine.toml'
  file.write_text(_SWEEP)
  said = launching.launch('tune', f'--sweep={file}', '--dry_run')
  for method in ('fedsa', 'local'):
    rates = {
      line.partition('--client_learning_rate=')[2].split()[0]
      for line in said.splitlines()
      if f'--algorithm={method}' in line
    }
    assert rates == {'0.1', '0.2'}


def test_a_sweep_without_a_search_is_refused(tmp_path):
  file = tmp_path / 'mine.toml'
  file.write_text('[axes]\nalgorithm = ["fedsa", "local"]\n')
  said = launching.launch('tune', f'--sweep={file}', status=1)
  assert 'expected a table [search]' in said
