"""What flag groups share: their flags, and refusing vain ones."""

from collections.abc import Iterable
from typing import Any

from absl import flags


def of(group: Any) -> list[flags.FlagHolder]:
  """Returns the flags that a group has as attributes."""
  return [
    value
    for value in vars(group).values()
    if isinstance(value, flags.FlagHolder)
  ]


def refuse_vain(holders: Iterable[flags.FlagHolder], because: str) -> None:
  """Raises if one of these flags was set although it would be ignored.

  Args:
    holders: Flags that have no effect in this run.
    because: Completes the sentence "would be ignored: …".

  Raises:
    flags.IllegalFlagValueError: Naming the flags.
  """
  # A value equal to the default says nothing: a run's flags.txt lists all.
  vain = [
    f'--{holder.name}'
    for holder in holders
    if holder.present and holder.value != holder.default
  ]
  if vain:
    raise flags.IllegalFlagValueError(
      f'{", ".join(vain)} would be ignored: {because}.'
    )
