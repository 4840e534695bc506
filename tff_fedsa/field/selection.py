"""Which clients are drawn: our sampling, TFF's, or a user's own function."""

from collections.abc import Callable, Sequence
import inspect
import operator
from typing import Any

from tff_fedsa import sampling
from tff_fedsa.runs import errors

# fn(round_num, size, available) -> client ids.
SelectFn = Callable[[int, int, Sequence[int]], list[int]]


def build_select_fn(sampling_seed: int) -> SelectFn:
  """Returns uniform draws of `size` of the clients that are there.

  Args:
    sampling_seed: The draws follow from it and the round.
  """

  def select_fn(
    round_num: int, size: int, available: Sequence[int]
  ) -> list[int]:
    return sampling.sample_from(sampling_seed, round_num, available, size)

  return select_fn


def wrap(selection_fn: Callable[..., Any], num_clients: int) -> SelectFn:
  """Returns a user's selection function with the arguments that it takes.

  Args:
    selection_fn: Takes the round number (counted from 1), then, if it takes
      more positional arguments, how many clients to draw (see
      `FieldConfig.over_selection`), then the ids of those that are there. It
      returns ids. What `tff.simulation.build_uniform_sampling_fn` returns will
      do. A resumed run equals an uninterrupted one if the ids follow from the
      arguments alone.
    num_clients: Ids are `0 .. num_clients - 1`.

  Returns:
    A function whose draws are checked when it is called: it raises `UserError`
    if an id is unknown or occurs twice, or if there are more than asked for.
    Clients that are not there are left out. Ids are ascending.

  Raises:
    TypeError: If it takes no argument, or more than three.
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
    # An optional argument is the function's own.
    and p.default is p.empty
  ]
  if not 1 <= len(positional) <= 3:
    raise TypeError(
      'Expected selection_fn to take (round_num), (round_num, size) or '
      f'(round_num, size, available), found {len(positional)} arguments.'
    )
  return len(positional)
