"""Rules for the files of the repository as a whole."""

import configparser
import pathlib
import re
import subprocess

import pytest

from tff_fedsa.runs import presets

_ROOT = pathlib.Path(__file__).parents[1]
_LOCKS = (
  'requirements.lock',
  'requirements-gpu.lock',
  'requirements-notebook.lock',
  'requirements-ray.lock',
)


def _tracked():
  """The repository's text files: git's list, or all where there is no git."""
  try:
    names = subprocess.run(
      ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
      cwd=_ROOT,
      capture_output=True,
      check=True,
      text=True,
    ).stdout.split('\n')
  except (OSError, subprocess.CalledProcessError):
    pytest.skip('not a git checkout')
  for name in filter(None, names):
    path = _ROOT / name
    if path.is_file() and path.suffix not in ('.npz', '.png', '.npy'):
      yield name, path.read_text(encoding='utf-8')


@pytest.mark.parametrize('name', _LOCKS)
def test_lock_files_pin_every_package_and_hold_no_address(name):
  lines = [
    line
    for line in (_ROOT / name).read_text().splitlines()
    if line and not line.startswith('#')
  ]
  assert lines
  for line in lines:
    assert re.fullmatch(r'[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+', line), line


def test_the_lock_holds_what_setup_cfg_asks_for():
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg')
  asked = config['options']['install_requires'].split('\n')
  names = {re.split(r'[ =<>]', line.strip())[0] for line in asked if line}
  locked = (_ROOT / 'requirements.lock').read_text()
  for name in names:
    assert re.search(rf'^{re.escape(name)}==', locked, re.MULTILINE), name


def test_no_path_of_a_machine_and_no_host_of_a_registry():
  # Put together here, or this file would be found.
  machine = re.compile(
    '(?<![A-Za-z0-9_.-])/(?:' + '|'.join(['work', 'root', 'home']) + ')/'
  )
  host = re.compile('https?://[^ ]*/' + 'simple|files.python' + 'hosted')
  outside = '../' + 'shared'
  for name, text in _tracked():
    assert not machine.search(text), name
    assert not host.search(text), name
    assert outside not in text, name


def test_commands_in_the_documents_name_files_that_exist():
  documents = [(n, t) for n, t in _tracked() if n.endswith('.md')]
  assert documents
  for name, text in documents:
    for flagfile in re.findall(r'--flagfile=([\w./-]+)', text):
      assert presets.find(flagfile), f'{name}: {flagfile}'
    for module in re.findall(
      r'python -m ((?:launch|tools|benchmarks)[\w.]*)', text
    ):
      path = _ROOT / (module.replace('.', '/') + '.py')
      assert path.is_file(), f'{name}: {module}'
    for target in re.findall(r'^make ([a-z][a-z-]*)', text, re.MULTILINE):
      assert re.search(
        rf'^{target}:', (_ROOT / 'Makefile').read_text(), re.MULTILINE
      ), f'{name}: make {target}'


def test_links_in_the_documents_lead_somewhere():
  for name, text in _tracked():
    if name.endswith('.md'):
      for link in re.findall(r'\]\((?!http|#)([^)#]+)', text):
        target = (_ROOT / name).parent / link
        assert target.exists(), f'{name}: {link}'


def _anchors(text):
  """The anchors that GitHub gives to the headings of a document."""
  text = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  }


def test_links_to_sections_name_headings_that_exist():
  for name, text in _tracked():
    if name.endswith('.md'):
      for link, anchor in re.findall(r'\]\((?!http)([^)#]*)#([^)]+)\)', text):
        path = _ROOT / name
        target = path.parent / link if link else path
        assert anchor in _anchors(target.read_text()), (name, link, anchor)
