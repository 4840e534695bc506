"""A progress bar with the remaining time and the latest accuracies."""

from collections.abc import Mapping
from typing import Any, Optional

from tqdm import auto


class Bar:
  """Context manager; `update` is an `on_round` callback of `simulation.run`.

  It works in terminals and notebooks.

  Attributes:
    started: True after the first `update`.
  """

  def __init__(self, total_rounds: int, *, enabled: bool = True):
    self._bar = auto.tqdm(
      total=total_rounds, unit='round', disable=not enabled, dynamic_ncols=True
    )
    self.started = False

  def __enter__(self) -> 'Bar':
    return self

  def __exit__(self, *unused_error: Any) -> None:
    self._bar.close()

  def update(self, round_num: int, row: Optional[Mapping[str, Any]]) -> None:
    """Shows that a round is done.

    Args:
      round_num: Rounds done. The first call gives the start of a resumed run.
      row: The metrics of the round, or None without evaluation.
    """
    if not self.started:
      self.started = True
      self._bar.initial = self._bar.n = self._bar.last_print_n = round_num
      if round_num and not self._bar.disable:
        auto.tqdm.write(f'resuming after round {round_num}')
    if row is not None:
      parts = [
        'accuracy',
        *(
          f'{name.removesuffix("_accuracy")} {value:.3f}'
          for name, value in row.items()
          if name.endswith('_accuracy')
        ),
      ]
      if 'dp_epsilon' in row:
        parts.append(f'epsilon {row["dp_epsilon"]:.3g}')
      self._bar.set_postfix_str(' '.join(parts), refresh=False)
    # Not `refresh`, which would write a line per round to a log file.
    self._bar.update(round_num - self._bar.n)
