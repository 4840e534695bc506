"""Draws the clients of a round: a pure function of (seed, round)."""

from collections.abc import Callable, Sequence

import numpy as np

from tff_fedsa.runs import errors


def sample_clients(
  seed: int, round_num: int, num_clients: int, clients_per_round: int
) -> list[int]:
  """Draws the clients of a round uniformly, without replacement.

  A resumed run draws the same clients as an uninterrupted run, because the draw
  depends only on the arguments.

  >>> sample_clients(0, 1, 20, 4) == sample_clients(0, 1, 20, 4)
  True
  >>> sample_clients(0, 1, 4, 4)
  [0, 1, 2, 3]

  Args:
    seed: The sampling seed.
    round_num: Counted from 1.
    num_clients: Size of the population. Ids are `0 .. num_clients - 1`.
    clients_per_round: Number of clients to draw.

  Returns:
    Client ids, ascending.

  Raises:
    ValueError: If `clients_per_round` is not in `[1, num_clients]`.
  """
  if not 1 <= clients_per_round <= num_clients:
    raise errors.UserError(
      f'Expected clients_per_round in [1, {num_clients}], found '
      f'{clients_per_round}.'
    )
  return sample_from(seed, round_num, range(num_clients), clients_per_round)


def sample_from(
  seed: int, round_num: int, candidates: Sequence[int], size: int
) -> list[int]:
  """Draws some of the available clients; see `sample_clients`.

  >>> sample_from(0, 1, [2, 5, 7], 10)
  [2, 5, 7]

  Args:
    seed: The sampling seed.
    round_num: Counted from 1.
    candidates: Client ids, ascending.
    size: Number of clients to draw. If there are fewer, all are drawn.

  Returns:
    Client ids, ascending.
  """
  if size >= len(candidates):
    return list(candidates)
  rng = np.random.default_rng([seed, round_num])
  drawn = rng.choice(len(candidates), size, replace=False)
  return [candidates[index] for index in sorted(drawn)]


def build_selection_fn(
  seed: int, num_clients: int, clients_per_round: int
) -> Callable[[int], list[int]]:
  """Returns `fn(round_num) -> client ids`; see `sample_clients`.

  Raises:
    ValueError: If `clients_per_round` is not in `[1, num_clients]`. It is
      raised here, not by the result.
  """

  def selection_fn(round_num: int) -> list[int]:
    return sample_clients(seed, round_num, num_clients, clients_per_round)

  selection_fn(1)
  return selection_fn
