"""Where programs release what upstream's managers cannot keep."""

import asyncio
from typing import Any

import tensorflow_federated as tff


class EvaluationCSVReleaseManager(tff.program.CSVFileReleaseManager):
  """A CSV file with a row for each key, in whatever order they are released.

  Upstream's manager takes a key below the latest for a program that starts
  again from there, and removes the rows of later keys. Evaluations that
  `tff.learning.programs.EvaluationManager` runs at the same time finish in any
  order: there, the slower of two takes away the row of the other.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes what `tff.program.CSVFileReleaseManager` takes."""
    super().__init__(*args, **kwargs)
    # Upstream reads, then writes: two at once would lose a row as well.
    self._lock = asyncio.Lock()

  async def release(self, value: Any, key: int) -> None:
    """Adds the row of `key`, or replaces it.

    Args:
      value: A structure of numbers, or of references to them.
      key: Of the row, e.g. the round that was evaluated.
    """
    async with self._lock:
      _, rows = self._read_values()
      later = [row for row in rows if int(row[self._key_fieldname]) > key]
      await super().release(value, key)
      if later:
        names, rows = self._read_values()
        names += [name for name in later[0] if name not in names]
        self._write_values(names, [*rows, *later])
        self._latest_key = int(later[-1][self._key_fieldname])
