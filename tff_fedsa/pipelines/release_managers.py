"""Release managers for values that upstream's managers cannot keep."""

from typing import Any

import tensorflow_federated as tff


class EvaluationCSVReleaseManager(tff.program.CSVFileReleaseManager):
  """A CSV file with a row for each key, for any order of releases.

  Upstream's manager takes a key below the latest for a program that starts
  again from there, and removes the rows of later keys. Evaluations that
  `tff.learning.programs.EvaluationManager` runs at the same time finish in any
  order: there, the slower of two takes away the row of the other. Here a row
  is added, or replaces that of its key.
  """

  # Three steps of upstream's `release`.

  async def _remove_values_greater_than_key(self, key: Any) -> None:
    pass

  async def _append_value(self, value: Any) -> None:
    await self._write_value(value)

  async def _write_value(self, value: Any) -> None:
    # Nothing else is released meanwhile: there is no `await` between reading
    # and writing. The new file takes the old one's place at once.
    name = self._key_fieldname
    names, rows = self._read_values()
    names += [column for column in value if column not in names]
    kept = [row for row in rows if int(row[name]) != value[name]]
    self._write_values(
      names, sorted([*kept, value], key=lambda row: int(row[name]))
    )
