"""The README's Python example runs as it stands, and learns."""

import pathlib
import re

import pytest

from tff_fedsa.execution import native

# BUILD: //:documents
# BUILD: //tff_fedsa:client_state //tff_fedsa:client_store
# BUILD: //tff_fedsa:evaluation //tff_fedsa:simulation
# BUILD: //tff_fedsa/algorithms:fedsa //tff_fedsa/data:tasks
# BUILD: //tff_fedsa/models:families //tff_fedsa/reporting:summary
_README = pathlib.Path(__file__).parents[1] / 'README.md'


@pytest.mark.usefixtures('native_context')
def test_python_example(capsys, monkeypatch):
  (example,) = re.findall(r'```python\n(.*?)```', _README.read_text(), re.DOTALL)
  assert len(example.strip().splitlines()) <= 25
  # The tests have a runtime already; all else is done as written.
  monkeypatch.setattr(native, 'set_native_context', lambda: None)
  names = {}
  exec(compile(example, 'README.md', 'exec'), names)
  assert 'accuracy after 20 rounds' in capsys.readouterr().out
  assert names['result'].history[-1]['prototype_accuracy'] > 0.8
