"""The notebook: as it is stored, and executed on both of its routes."""

import ast
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_NOTEBOOK = _ROOT / 'launch/fedsa_colab.ipynb'
# What a clone has, as far as the notebook uses it.
_CLONE = (
  'docs/images',
  'flags',
  'launch',
  'requirements-gpu.lock',
  'requirements.lock',
  'tff_fedsa',
)
_METHODS = ('fedsa', 'fedproto', 'local')


def _cells(path=_NOTEBOOK):
  cells = json.loads(path.read_text(encoding='utf-8'))['cells']
  return {cell['id']: cell for cell in cells}


def _source(cell):
  return ''.join(cell['source'])


def _texts(cells):
  """Returns the text of the cells' outputs."""
  outputs = [o for c in cells.values() for o in c.get('outputs', ())]
  parts = [o.get('text', ()) for o in outputs]
  parts += [o.get('data', {}).get('text/plain', ()) for o in outputs]
  # Commands write to a terminal, whose lines end in \r\n.
  return '\n'.join(''.join(part) for part in parts).replace('\r', '')


def _pngs(cells):
  """Ids of the cells with a picture -> its bytes."""
  return {
    name: base64.b64decode(output['data']['image/png'])
    for name, cell in cells.items()
    for output in cell.get('outputs', ())
    if 'image/png' in output.get('data', {})
  }


def _functions(cell):
  """The functions that a cell defines."""
  # IPython's commands are no Python.
  source = re.sub(r'(?m)^( *)!.*', r'\1pass', _source(cell))
  body = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
  names = {}
  exec(compile(ast.Module(body, []), 'cell', 'exec'), names)
  return names


def test_it_is_a_valid_notebook():
  program = (
    'import nbformat, sys; nbformat.validate(nbformat.read(sys.argv[1], 4))'
  )
  subprocess.run([sys.executable, '-c', program, _NOTEBOOK], check=True)


def test_it_is_stored_with_the_outputs_of_one_run_from_top_to_bottom():
  assert _NOTEBOOK.stat().st_size < 600_000
  cells = _cells()
  code = [c for c in cells.values() if c['cell_type'] == 'code']
  assert [c['execution_count'] for c in code] == list(range(1, len(code) + 1))
  for cell in code:
    for output in cell['outputs']:
      assert output['output_type'] != 'error'
      assert output.get('name') != 'stderr', output['text']
  _check_outputs(cells, rounds=30)


def test_it_names_no_path_of_a_machine_and_no_registry():
  # Pictures are no text, and may hold anything.
  text = re.sub(r'"image/png": "[^"]*"', '', _NOTEBOOK.read_text())
  assert 'iVBOR' not in text
  machine = (
    '(?<![A-Za-z0-9_.-])/(?:' + '|'.join(['work', 'root', 'home']) + ')/'
  )
  for pattern in (machine, '/tmp/', 'py' + 'pi', 'index-' + 'url', '/opt/'):
    assert not re.search(pattern, text, re.IGNORECASE), pattern


def test_it_pins_nothing_but_by_the_lock_file():
  sources = '\n'.join(map(_source, _cells().values()))
  assert re.search(
    r'requirements\.lock \\\n *\| .*pip install .*-r /dev/stdin', sources
  )
  assert not re.search(r'[\w-]+[=~]=\d', sources)


@pytest.mark.parametrize(
  'version, route',
  [
    ((3, 10, 4), 'private'),
    ((3, 11, 0), 'kernel'),
    ((3, 11, 13), 'kernel'),
    ((3, 12, 11), 'private'),
    ((3, 13, 0), 'private'),
  ],
)
def test_the_route_follows_from_the_kernel(version, route):
  functions = _functions(_cells()['checkout'])
  assert functions['choose_route'](version) == route


@pytest.mark.parametrize(
  'clone, start, found',
  [
    ('.', '.', '.'),
    ('clone', 'clone/launch', 'clone'),
    ('tff_fedsa', '.', 'tff_fedsa'),
    ('tff_fedsa/tff_fedsa-main', '.', 'tff_fedsa/tff_fedsa-main'),
    ('another', '.', None),
  ],
)
def test_the_checkout_is_found(tmp_path, clone, start, found):
  (tmp_path / clone / 'launch').mkdir(parents=True)
  (tmp_path / clone / 'launch/train.py').touch()
  (tmp_path / start).mkdir(exist_ok=True)
  find_checkout = _functions(_cells()['checkout'])['find_checkout']
  expected = None if found is None else tmp_path / found
  assert find_checkout(tmp_path / start) == expected


@pytest.mark.slow
def test_in_a_kernel_with_python_311(tmp_path):
  # Two methods: a third is trained by the same commands.
  cells = _execute(
    tmp_path,
    sys.executable,
    changes={", 'fedproto': 'FedProto'": ''},
  )
  assert 'Python 3.11, route: kernel' in _texts(cells)
  _check_outputs(cells, rounds=2, methods=('fedsa', 'local'))


@pytest.mark.slow
def test_in_a_newer_kernel(tmp_path):
  # The private environment is the one that the tests run in: to install it
  # takes minutes, and is `make setup`.
  python = _newer_python(tmp_path / 'kernel')
  # One method: the others are trained by the same commands.
  cells = _execute(
    tmp_path,
    python,
    environ={'TFF_FEDSA_PYTHON': sys.executable},
    changes={
      "{'fedsa': 'FedSA', 'fedproto': 'FedProto', 'local': 'Local'}": (
        "{'fedsa': 'FedSA'}"
      )
    },
  )
  assert re.search(r'Python 3\.1[2-9], route: private', _texts(cells))
  _check_outputs(cells, rounds=2, methods=('fedsa',))


def _check_outputs(cells, *, rounds, methods=_METHODS):
  text = _texts(cells)
  assert 'Traceback' not in text
  # The methods, the own model and the own data.
  finished = re.findall(r'accuracy after (\d+) rounds', text)
  assert finished == [str(rounds)] * (len(methods) + 2)
  for method in methods:
    assert f'run directory: runs/colab/{method}\n' in text
    assert re.search(rf'runs/colab/{method}: \d+\.\d% of images agree', text)
  assert 'my_net (' in text
  assert 'my_images: 6 clients, 3 classes' in text
  drawn = {'checkout', 'curves', 'partition', 'features', 'images', 'data'}
  assert set(_pngs(cells)) == drawn
  assert min(map(len, _pngs(cells).values())) > 3000


def _execute(folder, python, environ=None, changes=()):
  """Executes the notebook in a clone of the project, with 2 rounds.

  Args:
    folder: Where the clone is made.
    python: Interpreter of the kernel.
    environ: Variables of the kernel.
    changes: Texts of the notebook -> what stands there instead.

  Returns:
    The executed cells, by id.
  """
  clone = folder / 'clone'
  for name in _CLONE:
    source, target = _ROOT / name, clone / name
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
  path = clone / 'launch' / _NOTEBOOK.name
  text = path.read_text(encoding='utf-8')
  for old, new in {'ROUNDS = 30': 'ROUNDS = 2', **dict(changes)}.items():
    assert text.count(old) == 1, old
    text = text.replace(old, new)
  path.write_text(text, encoding='utf-8')
  kernels = folder / 'jupyter/kernels/tested'
  kernels.mkdir(parents=True)
  argv = [str(python), '-m', 'ipykernel_launcher', '-f', '{connection_file}']
  spec = {'argv': argv, 'display_name': 'tested', 'language': 'python'}
  (kernels / 'kernel.json').write_text(json.dumps(spec))
  # A kernel of another Python must not see ours.
  removed = ('PYTHONPATH', 'PYTHONHOME', 'TFF_FEDSA_PYTHON')
  with open(folder / 'log', 'w+') as log:
    done = subprocess.run(
      [
        sys.executable,
        '-c',
        'from nbclient import cli; cli.main()',
        '--inplace',
        '--kernel_name=tested',
        str(path),
      ],
      env={
        **{k: v for k, v in os.environ.items() if k not in removed},
        'JUPYTER_PATH': str(folder / 'jupyter'),
        **(environ or {}),
      },
      stdout=log,
      stderr=subprocess.STDOUT,
      timeout=540,
    )
    log.seek(0)
    assert done.returncode == 0, log.read()
  return _cells(path)


def _newer_python(folder):
  """Makes an environment with Jupyter's kernel, pandas and matplotlib only."""
  for name in ('python3.13', 'python3.12'):
    for python in _interpreters(name):
      subprocess.run([python, '-m', 'venv', folder], check=True)
      new = folder / 'bin/python'
      install = [new, '-m', 'pip', 'install', '--quiet']
      subprocess.run(
        [*install, 'ipykernel', 'matplotlib', 'pandas'], check=True
      )
      return new
  pytest.skip('neither Python 3.12 nor 3.13 is on the PATH or in pyenv')


def _interpreters(name):
  """Yields interpreters that start; pyenv's shims may not."""
  pyenv = pathlib.Path(os.environ.get('PYENV_ROOT', '~/.pyenv')).expanduser()
  version = name.removeprefix('python')
  found = [shutil.which(name), *pyenv.glob(f'versions/{version}.*/bin/{name}')]
  for python in filter(None, found):
    starts = subprocess.run([python, '-c', 'import venv'], capture_output=True)
    if starts.returncode == 0:
      yield python
