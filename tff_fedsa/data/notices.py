"""Notices about odd but usable data."""

from collections.abc import Iterable

from absl import logging


def logged(notices: Iterable[str]) -> tuple[str, ...]:
  """Logs notices as warnings, and returns each once for `tasks.report`."""
  once = tuple(dict.fromkeys(notices))
  for notice in once:
    logging.warning('%s', notice)
  return once
