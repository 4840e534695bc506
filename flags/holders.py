"""What flag groups share: the values that were set, and refusing vain ones."""

from collections.abc import Iterable

from absl import flags


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
