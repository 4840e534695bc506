"""Files that are there whole or not at all; arrays without pickle."""

from collections.abc import Mapping
import io
import json
import os
from typing import Any

import numpy as np


def write_bytes(path: str, content: bytes) -> None:
  """Writes a file atomically: a reader sees the old content or the new.

  Raises:
    OSError: If writing fails (disk full, no permission); the old file stays.
  """
  temporary = f'{path}.tmp-{os.getpid()}'
  try:
    with open(temporary, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    if os.path.exists(temporary):
      os.remove(temporary)
    raise


def write_npz(
  path: str, arrays: Mapping[str, np.ndarray], *, compress: bool = False
) -> None:
  """Writes arrays as an `.npz` file, atomically."""
  buffer = io.BytesIO()
  (np.savez_compressed if compress else np.savez)(buffer, **arrays)
  write_bytes(path, buffer.getvalue())


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
