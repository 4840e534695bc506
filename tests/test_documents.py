"""The Python examples of the documents run as they stand."""

import pathlib
import re

import pytest

from tff_fedsa.execution import native

# BUILD: //:documents
# BUILD: //tff_fedsa:client_state //tff_fedsa:client_store
# BUILD: //tff_fedsa:evaluation //tff_fedsa:exporting
# BUILD: //tff_fedsa:local_optimizer //tff_fedsa:local_training
# BUILD: //tff_fedsa:simulation //tff_fedsa/algorithms:fedsa
# BUILD: //tff_fedsa/data:partition //tff_fedsa/data:sources
# BUILD: //tff_fedsa/data:tasks //tff_fedsa/models:architectures
# BUILD: //tff_fedsa/models:families //tff_fedsa/models:functional
# BUILD: //tff_fedsa/models:initializers //tff_fedsa/models:pooling
# BUILD: //tff_fedsa/reporting:summary
_ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _one_runtime(native_context, monkeypatch):
  # The tests have a runtime already; all else is done as written.
  monkeypatch.setattr(native, 'set_native_context', lambda: None)


def _examples(name):
  text = (_ROOT / name).read_text()
  return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def _run(name):
  names = {}
  for example in _examples(name):
    exec(compile(example, name, 'exec'), names)
  return names


def test_readme(capsys):
  (example,) = _examples('README.md')
  assert len(example.strip().splitlines()) <= 25
  names = _run('README.md')
  assert 'accuracy after 20 rounds' in capsys.readouterr().out
  assert names['result'].history[-1]['prototype_accuracy'] > 0.8


def test_python_api(capsys):
  names = _run('docs/python.md')
  assert names['server_state'].round_num == 3
  assert names['scores']['prototype'].shape == (8, 4)
  assert '5 clients, 4 classes' in capsys.readouterr().out
