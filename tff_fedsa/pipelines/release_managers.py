"""Release managers for values that TFF's managers cannot keep."""

from typing import Any

import tensorflow_federated as tff


class EvaluationCSVReleaseManager(tff.program.CSVFileReleaseManager):
  """A CSV file with one row per key, for releases in any order.

  TFF's manager mistakes a key below the latest for a restart, and removes the
  rows of later keys. But evaluations of
  `tff.learning.programs.EvaluationManager` run in parallel and finish in any
  order, so a slower one would remove the row of a faster one. Here a row is
  added, or replaces the row of its key.
  """

  # Three steps of TFF's `release`.

  async def _remove_values_greater_than_key(self, key: Any) -> None:
    pass

  async def _append_value(self, value: Any) -> None:
    await self._write_value(value)

  async def _write_value(self, value: Any) -> None:
    # No other release happens meanwhile, because there is no `await` between
    # reading and writing. The new file replaces the old one at once.
    name = self._key_fieldname
    names, rows = self._read_values()
    names += [column for column in value if column not in names]
    kept = [row for row in rows if int(row[name]) != value[name]]
    self._write_values(
      names, sorted([*kept, value], key=lambda row: int(row[name]))
    )
