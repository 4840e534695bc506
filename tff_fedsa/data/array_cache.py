"""A cache on disk for arrays that are slow to build."""

from collections.abc import Callable, Iterable
import hashlib
import os
import shutil
from typing import Optional

from etils import epy
import numpy as np

with epy.lazy_imports():
  from absl import logging

# Larger arrays are memory-mapped, so unused pages are given back.
_LARGE_BYTES = 2**28

AllocateFn = Callable[[str, tuple[int, ...], type], np.ndarray]
BuildFn = Callable[[AllocateFn], None]


def load_or_build(
  build_fn: BuildFn,
  *,
  name: str,
  files: Iterable[str],
  cache_dir: Optional[str] = None,
  version: int = 1,
) -> dict[str, np.ndarray]:
  """Returns arrays from the cache, or builds and caches them.

  Args:
    build_fn: `fn(allocate)` fills arrays from `allocate(name, shape, dtype)`.
      With a cache these are files on disk from the start, so large arrays take
      little memory.
    name: Name of the arrays with their parameters. There is one entry per name.
    files: Source files of the arrays. An entry is valid while their list, sizes
      and times of modification do not change.
    cache_dir: Directory, created if missing. None builds in memory each time.
    version: Version of the builder. Entries of other versions are replaced.

  Returns:
    Arrays by name. Large cached arrays are read-only and memory-mapped.
  """
  if cache_dir is not None:
    try:
      os.makedirs(cache_dir, exist_ok=True)
    except OSError as error:
      logging.warning('No data cache at %r: %s', cache_dir, error)
      cache_dir = None
  if cache_dir is None:
    arrays: dict[str, np.ndarray] = {}

    def allocate(array_name, shape, dtype):
      arrays[array_name] = np.empty(shape, dtype)
      return arrays[array_name]

    build_fn(allocate)
    return arrays
  path = os.path.join(cache_dir, f'{name}-{_fingerprint(files, version)}')
  if not os.path.isdir(path):
    _build(build_fn, path)
    _remove_others(cache_dir, name, path)
  return _load(path)


def _fingerprint(files: Iterable[str], version: int) -> str:
  digest = hashlib.sha256(b'' if version == 1 else b'version %d\0' % version)
  for file in files:
    status = os.stat(file)
    # Names need not be UTF-8.
    digest.update(os.fsencode(os.path.abspath(file)))
    digest.update(f'\0{status.st_size}\0{status.st_mtime_ns}\n'.encode())
  return digest.hexdigest()[:16]


def _build(build_fn: BuildFn, path: str) -> None:
  """Builds an entry atomically."""
  folder, entry = os.path.split(path)
  temporary = os.path.join(folder, f'.building-{entry}-{os.getpid()}')
  os.makedirs(temporary)

  def allocate(name, shape, dtype):
    return np.lib.format.open_memmap(
      os.path.join(temporary, f'{name}.npy'), 'w+', dtype, shape
    )

  try:
    build_fn(allocate)
    os.rename(temporary, path)
  except OSError:
    # Another process may have been faster.
    shutil.rmtree(temporary, ignore_errors=True)
    if not os.path.isdir(path):
      raise
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


def _load(path: str) -> dict[str, np.ndarray]:
  arrays = {}
  for file in sorted(os.listdir(path)):
    array_path = os.path.join(path, file)
    is_large = os.path.getsize(array_path) > _LARGE_BYTES
    arrays[file.removesuffix('.npy')] = np.load(
      array_path, mmap_mode='r' if is_large else None
    )
  return arrays


def _remove_others(cache_dir: str, name: str, path: str) -> None:
  """Removes entries with the same name from older files."""
  for entry in os.scandir(cache_dir):
    if entry.path != path and entry.name.rpartition('-')[0] == name:
      shutil.rmtree(entry.path, ignore_errors=True)
