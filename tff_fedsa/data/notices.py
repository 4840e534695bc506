"""Notices about odd data that are used all the same."""

from collections.abc import Iterable

from absl import logging


def logged(notices: Iterable[str]) -> tuple[str, ...]:
  """Logs notices as warnings; returns them for `tasks.report`, each once."""
  once = tuple(dict.fromkeys(notices))
  for notice in once:
    logging.warning('%s', notice)
  return once
