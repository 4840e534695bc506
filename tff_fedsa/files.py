"""Writes files atomically; reads and writes arrays without pickle."""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import io
import json
import os
import re
from typing import Any
import zipfile

import numpy as np

_TEMPORARY = re.compile(r'.+\.tmp-(\d+)')


def write_bytes(path: str, content: bytes, *, durable: bool = True) -> None:
  """Writes a file atomically: a reader sees the old content or the new.

  Args:
    path: The file.
    content: All of it.
    durable: Whether to wait until the content is on the disk, so that it
      survives a power failure.

  Raises:
    OSError: If writing fails (disk full, no permission). The old file stays.
      The error names the path.
  """
  temporary = f'{path}.tmp-{os.getpid()}'
  try:
    with naming(path):
      with open(temporary, 'wb') as file:
        file.write(content)
        file.flush()
        if durable:
          os.fsync(file.fileno())
      os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(temporary)
    raise


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
  """Adds a path to an `OSError` without one, e.g. an error of `write`."""
  try:
    yield
  except OSError as error:
    if error.filename is not None or error.errno is None:
      raise
    raise OSError(error.errno, error.strerror, path) from error


def sync_directory(path: str) -> None:
  """Makes names in a directory survive a power failure, if possible.

  Raises:
    OSError: If the disk refuses it.
  """
  descriptor = os.open(path, os.O_RDONLY)
  try:
    with naming(path):
      os.fsync(descriptor)
  except OSError as error:
    # Some file systems cannot sync directories.
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):
      raise
  finally:
    os.close(descriptor)


def remove_leftovers(directory: str) -> None:
  """Removes unfinished files of killed writers from a directory."""
  for name in os.listdir(directory):
    match = _TEMPORARY.fullmatch(name)
    if match and not os.path.exists(f'/proc/{match[1]}'):
      with contextlib.suppress(OSError):
        os.remove(os.path.join(directory, name))


def npz_bytes(
  arrays: Mapping[str, np.ndarray], *, compress: bool = False
) -> bytes:
  """Returns the content of an `.npz` file; equal arrays give equal bytes.

  Raises:
    ValueError: If an array holds objects.
  """
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, array in arrays.items():
      # The file has no date. With dates, equal arrays would give other bytes.
      info = zipfile.ZipInfo(f'{name}.npy')
      if compress:
        info.compress_type = zipfile.ZIP_DEFLATED
      with archive.open(info, 'w', force_zip64=True) as member:
        np.lib.format.write_array(
          member, np.asanyarray(array), allow_pickle=False
        )
  return buffer.getvalue()


def npz_arrays(content: bytes) -> dict[str, np.ndarray]:
  """Returns all arrays of a `.npz` file's content; refuses pickled objects."""
  with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
    return dict(arrays)


def write_npz(
  path: str, arrays: Mapping[str, np.ndarray], *, compress: bool = False
) -> None:
  """Writes arrays as an `.npz` file, atomically."""
  write_bytes(path, npz_bytes(arrays, compress=compress))


def read_npz(path: str) -> dict[str, np.ndarray]:
  """Reads all arrays of an `.npz` file; refuses pickled objects."""
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def write_json(path: str, content: Any) -> None:
  """Writes JSON atomically; floats survive exactly."""
  text = json.dumps(content, indent=2, allow_nan=True)
  write_bytes(path, (text + '\n').encode())


def read_json(path: str) -> Any:
  """Reads JSON."""
  with open(path, encoding='utf-8') as file:
    return json.load(file)
