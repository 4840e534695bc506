"""Rows of runs, for tests that compare runs."""

from tff_fedsa.runs import metrics


def stable(rows):
  """Returns rows without what differs between two equal runs."""
  return [
    {
      name: value
      for name, value in row.items()
      if name not in metrics.VOLATILE_COLUMNS
    }
    for row in rows
  ]
