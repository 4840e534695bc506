"""Fixtures shared by all tests."""

import contextlib
import gc
import os
import shutil
import tempfile

import psutil
import pytest

# Threads of one operation, as in a fresh process, where the cores are divided
# among the clients. The last digits of results depend on it, and a process
# that has started TensorFlow can't change it.
os.environ['TF_NUM_INTRAOP_THREADS'] = '1'

# Temporary files are kept in memory, where there is enough of it: tests write
# thousands of them, and checkpoints wait for the disk. $TMPDIR chooses another
# place.
_MEMORY = '/dev/shm'
_ENOUGH = 8e9  # Bytes.


def _has_room(folder):
  return (
    os.access(folder, os.W_OK)
    and shutil.disk_usage(folder).free > _ENOUGH
    and psutil.virtual_memory().available > _ENOUGH
  )


if 'TMPDIR' not in os.environ and _has_room(_MEMORY):
  os.environ['TMPDIR'] = _MEMORY
  tempfile.tempdir = _MEMORY

# Files with the longest tests. A worker that begins with them isn't the last to
# end: the others take over the short ones that are left.
_LONGEST = (
  'test_tff_processes.py',
  'test_reference_curves.py',
  'test_gpu.py',
  'test_colab.py',
  'test_fuzz.py',
  'test_memory.py',
  'test_documents.py',
  'test_train.py',
  'test_killed.py',
  'test_sweep.py',
  'test_remote.py',
)


def pytest_collection_modifyitems(items):
  """Moves the longest tests to the beginning, the longest first."""
  items.sort(
    key=lambda item: (
      _LONGEST.index(item.path.name)
      if item.path.name in _LONGEST
      else len(_LONGEST)
    )
  )


def pytest_collection_finish():
  """Spares the garbage collector the imported modules: they stay anyway."""
  gc.collect()
  gc.freeze()
  # Tracing makes many objects that live.
  gc.set_threshold(20_000, 10, 10)


@pytest.fixture(autouse=True, scope='session')
def own_cache(tmp_path_factory):
  """Decoded images are cached in a folder of the tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    # matplotlib's list of fonts is slow to make, and of no interest here.
    fonts = os.path.join(tempfile.gettempdir(), f'fonts_of_tests_{os.getuid()}')
    patch.setenv('MPLCONFIGDIR', os.environ.get('MPLCONFIGDIR', fonts))
    yield


# The smallest PNG: one pixel.
_PIXEL = bytes.fromhex(
  '89504e470d0a1a0a0000000d49484452000000010000000108000000003a'
  '7e9b550000000a49444154789c636000000002000148afa4710000000049'
  '454e44ae426082'
)


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
  """Figures are made but not rendered, which takes longer than a small run.

  Tests of reporting, and those marked `pictures`, render them.
  """
  rendered = request.node.get_closest_marker('pictures') is not None
  if not rendered and request.path.parent.name != 'reporting':
    # Named by a string: the module is imported here, so a test has quick
    # pictures whether or not an earlier test of this worker imported it.
    monkeypatch.setattr(
      'tff_fedsa.reporting.figures.encode', lambda figure, form: _PIXEL
    )


class _Runtimes:
  """Runtimes by name, started once for all tests; each is used for a while."""

  def __init__(self):
    self._contexts = {}

  @contextlib.contextmanager
  def default(self, name):
    """Makes a runtime TFF's default within a `with` statement."""
    # Imported here: tests of pure maths do without TFF's slow import.
    import tensorflow_federated as tff

    stack = tff.framework.get_context_stack()
    before = stack.current
    if name not in self._contexts:
      _START[name]()
      self._contexts[name] = stack.current
    stack.set_default_context(self._contexts[name])
    try:
      yield self._contexts[name]
    finally:
      stack.set_default_context(before)


def _start_native():
  from tff_fedsa.execution import native

  native.set_native_context()


def _start_in_process():
  from tff_fedsa.execution.in_process import contexts

  contexts.set_in_process_context()


def _start_in_the_clear():
  from tff_fedsa.execution.in_process import contexts

  contexts.set_in_process_context(secure_in_the_clear=True)


_START = {
  'native': _start_native,
  'in_process': _start_in_process,
  'in_the_clear': _start_in_the_clear,
}


@pytest.fixture(scope='session')
def runtimes():
  """TFF's runtimes, for tests that compare them."""
  from tff_fedsa.execution import native

  yield _Runtimes()
  native.stop_workers()


@pytest.fixture
def shared_computations(monkeypatch):
  """For tests that describe the same experiment more than once."""
  from tests import sharing

  sharing.share_computations(monkeypatch)


@pytest.fixture
def native_context(runtimes):
  """TFF's stock runtime."""
  with runtimes.default('native') as context:
    yield context


@pytest.fixture
def in_process_context(runtimes):
  """The runtime that is the default of the launchers."""
  with runtimes.default('in_process') as context:
    yield context


@pytest.fixture
def context_in_the_clear(runtimes):
  """The runtime of runs with --secure."""
  with runtimes.default('in_the_clear') as context:
    yield context
