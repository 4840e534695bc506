"""The report's program: what flags change."""

from tests.launch import launching
from tests.reporting import test_choice


def test_each_method_with_the_settings_that_validation_chose(tmp_path):
  write = test_choice.write
  write(tmp_path, 'fedsa,a', [0.9, 0.9], [0.5, 0.5], lambda_reg='1.0')
  write(tmp_path, 'fedsa,b', [0.6, 0.8], [0.5, 0.7], lambda_reg='3.0')
  write(tmp_path, 'local', [0.7, 0.7], [0.4, 0.4], algorithm='local')
  arguments = str(tmp_path), '--projection=none'
  output = launching.launch('report', *arguments, '--choose=lambda_reg')
  assert '## Chosen settings' in output and 'fedsa,a' not in output
  report = (tmp_path / 'report' / 'report.md').read_text()
  _, _, chosen = report.partition('## Chosen settings')
  assert '| fedsa | 3.0 | 0.6000 | 2 |' in ' '.join(chosen.split())
  # Another choice is refused in one line.
  output = launching.launch('report', *arguments, '--choose=lambda', status=1)
  assert output == 'error: --choose=lambda: no run has this flag.\n'
