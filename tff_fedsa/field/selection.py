"""Draws the clients of a round: our sampling, TFF's, or a user's function."""

from collections.abc import Callable, Sequence
import inspect
import operator
from typing import Any

from tff_fedsa import sampling
from tff_fedsa.runs import errors

# fn(round_num, size, available) -> client ids.
SelectFn = Callable[[int, int, Sequence[int]], list[int]]


def build_select_fn(sampling_seed: int) -> SelectFn:
  """Returns a function that draws `size` available clients uniformly.

  Args:
    sampling_seed: Seed of the draws, together with the round.
  """

  def select_fn(
    round_num: int, size: int, available: Sequence[int]
  ) -> list[int]:
    return sampling.sample_from(sampling_seed, round_num, available, size)

  return select_fn


def wrap(selection_fn: Callable[..., Any], num_clients: int) -> SelectFn:
  """Wraps a user's selection function, and checks its results.

  Args:
    selection_fn: Takes one to three positional arguments: the round number
      (counted from 1), the number of clients to draw (see
      `FieldConfig.over_selection`), and the ids of the available clients. It
      returns ids. Results of `tff.simulation.build_uniform_sampling_fn` work. A
      resumed run equals an uninterrupted run if the ids depend only on the
      arguments.
    num_clients: Ids are `0 .. num_clients - 1`.

  Returns:
    A function that checks each draw. It raises `UserError` if an id is unknown
    or occurs twice, or if there are too many. It leaves out unavailable
    clients. Ids are ascending.

  Raises:
    TypeError: If `selection_fn` takes no argument, or more than three.
  """
  count = _num_arguments(selection_fn)

  def select_fn(
    round_num: int, size: int, available: Sequence[int]
  ) -> list[int]:
    drawn = selection_fn(*(round_num, size, available)[:count])
    try:
      ids = [operator.index(client_id) for client_id in drawn]
    except TypeError:
      raise errors.UserError(
        f'Round {round_num}: expected selection_fn to return ids of clients, '
        f'integers, found {drawn!r}.'
      ) from None
    wrong = [i for i in ids if not 0 <= i < num_clients]
    if wrong:
      raise errors.UserError(
        f'Round {round_num}: selection_fn returned {wrong[0]}; {num_clients} '
        f'clients are numbered 0 to {num_clients - 1}.'
      )
    if len(ids) > size:
      raise errors.UserError(
        f'Round {round_num}: selection_fn returned {len(ids)} clients, more '
        f'than the {size} asked for (clients_per_round).'
      )
    if len(set(ids)) < len(ids):
      raise errors.UserError(
        f'Round {round_num}: selection_fn returned a client twice, found '
        f'{sorted(ids)}. Sample without replacement.'
      )
    return sorted(set(ids) & set(available))

  return select_fn


def _num_arguments(selection_fn: Callable[..., Any]) -> int:
  parameters = inspect.signature(selection_fn).parameters.values()
  if any(p.kind == p.VAR_POSITIONAL for p in parameters):
    return 3
  positional = [
    p
    for p in parameters
    if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    # Optional arguments belong to the function.
    and p.default is p.empty
  ]
  if not 1 <= len(positional) <= 3:
    raise TypeError(
      'Expected selection_fn to take (round_num), (round_num, size) or '
      f'(round_num, size, available), found {len(positional)} arguments.'
    )
  return len(positional)
