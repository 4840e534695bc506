"""The table and the picture with which the demo ends."""

import pytest

from tests import programs
from tests.reporting import made_up

demo = programs.load('launch.demo')


@pytest.mark.pictures
def test_the_demo_ends_with_a_table_and_a_picture(tmp_path, capsys):
  for name, algorithm in (('alone', 'local'), ('fedsa', 'fedsa')):
    made_up.write(
      tmp_path / name / 'seed_0', [0.1, 0.6, 0.5, 0.7], algorithm=algorithm
    )
  demo.compare(str(tmp_path))
  output = capsys.readouterr().out
  assert '| method ' in output and '| worst 10 % |' in ' '.join(output.split())
  assert '| FedSA ' in output and '| alone ' in output
  picture = tmp_path / 'together.png'
  assert picture.stat().st_size > 1000 and str(picture) in output
