"""Reads `.npz` files of users, and refuses damaged and malicious files."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import math
import os
from typing import IO
import zipfile

import numpy as np

from tff_fedsa.runs import errors

# Deflate expands one byte to at most this.
_MAX_RATIO = 1032

# Bytes per read.
_CHUNK = 2**24

_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def read(
  path: str, wanted: Callable[[str], bool], *, what: str
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Reads some arrays of an `.npz` file.

  Before it allocates memory, it compares the size in a header with the bytes in
  the file. So a file cannot request more memory than it has data.

  Args:
    path: Path of the file.
    wanted: `fn(name)` decides which arrays are read. Others are ignored.
    what: Name of the file's kind in messages, e.g. 'data file'.

  Returns:
    The arrays by name, and the names of all arrays in the file.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is not an `.npz` file, is damaged, or an array holds
      objects. The message names file and array.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'No {what} at {path!r}.')
  with open(path, 'rb') as stream:
    if not zipfile.is_zipfile(stream):
      raise errors.UserError(
        f'{path!r} is not an .npz file, or it is cut off. np.savez(path, …) '
        'writes one.'
      )
    with _damage_named(path, 'the list of arrays'):
      archive = zipfile.ZipFile(stream)
    names, arrays = [], {}
    for member in archive.infolist():
      name = member.filename.removesuffix('.npy')
      names.append(name)
      if wanted(name):
        with _damage_named(path, f'array {name!r}'):
          with archive.open(member) as file:
            arrays[name] = _array(file, member, f'{path!r}, array {name!r}')
  return arrays, names


@contextlib.contextmanager
def _damage_named(path: str, part: str) -> Iterator[None]:
  """Turns errors of parsers for damaged bytes into one line."""
  try:
    yield
  except _RefusedError as error:
    raise errors.UserError(str(error)) from error
  except MemoryError as error:
    raise errors.UserError(
      f'{path!r}, {part}: does not fit into memory.'
    ) from error
  # zipfile, its decompressors and NumPy raise many types of errors.
  except Exception as error:
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
      raise  # Errors of the disk pass. A wrong offset is an invalid argument.
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise errors.UserError(
      f'{path!r}, {part}: is damaged: {reason}.'
    ) from error


class _RefusedError(Exception):
  """An array is refused. The message gives the reason."""


def _array(file: IO[bytes], member: zipfile.ZipInfo, where: str) -> np.ndarray:
  version = np.lib.format.read_magic(file)
  # Version 3 differs from 2 only in names of fields.
  shape, fortran_order, dtype = _HEADERS.get(version, _HEADERS[2, 0])(file)
  if dtype.hasobject:
    raise _RefusedError(
      f'{where}: holds Python objects, which are not loaded. Save text as '
      'np.array(values, str) and numbers as np.array(values, int).'
    )
  claimed = math.prod(shape) * dtype.itemsize
  present = min(
    member.file_size - file.tell(), member.compress_size * _MAX_RATIO
  )
  if min(shape, default=0) < 0 or claimed != present:
    raise _RefusedError(
      f'{where}: is damaged: its header announces {claimed:,} bytes (shape '
      f'{shape}, {dtype}), the file has {max(present, 0):,}.'
    )
  if not claimed:
    return np.empty(shape, dtype)
  data = np.empty(claimed, np.uint8)
  filled = 0
  while chunk := file.read(_CHUNK):
    data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
    filled += len(chunk)
  if filled != claimed:
    raise _RefusedError(
      f'{where}: is cut off after {filled:,} of {claimed:,} bytes.'
    )
  return data.view(dtype).reshape(shape, order='F' if fortran_order else 'C')
