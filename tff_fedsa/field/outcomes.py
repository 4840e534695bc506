"""Outcomes of the clients of a round: a function of seeds and round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple, Optional, TYPE_CHECKING

import numpy as np

from tff_fedsa import settings
from tff_fedsa.field import availability
from tff_fedsa.field import device_speed
from tff_fedsa.field import field_config
from tff_fedsa.field import selection
from tff_fedsa.field import streams
from tff_fedsa.runs import errors

if TYPE_CHECKING:
  from tff_fedsa.data import tasks


class Outcome(NamedTuple):
  """Outcome of the clients of a round. Ids are ascending.

  Attributes:
    round_num: Counted from 1.
    available: Number of available clients.
    sampled: Drawn clients: the three following fields together.
    returned: Clients whose update counts.
    dropped: Clients that drop out.
    late: Clients that return after the deadline, or after enough others.
    num_examples: Training examples of each client in `returned`.
    partial: Clients in `returned` that train on a part of their examples.
    seconds: Simulated seconds of the round.
  """

  round_num: int
  available: int
  sampled: Sequence[int]
  returned: Sequence[int]
  dropped: Sequence[int]
  late: Sequence[int]
  num_examples: Sequence[int]
  partial: Sequence[int]
  seconds: float


class Field:
  """Outcomes of the clients of one population.

  Outcomes depend only on seeds and the round number, so a resumed run has the
  rounds of an uninterrupted run.

  In the field, a client that drops out or is late would train, too. But its
  update is lost, and it begins its next round with the state from before this
  one, like a device that was switched off. So the simulation skips its
  training.

  A client needs (training examples) x (local epochs) / (speed) simulated
  seconds for a round. Sending takes no time.
  """

  def __init__(
    self,
    config: field_config.FieldConfig,
    num_examples: Sequence[int],
    select_fn: selection.SelectFn,
    *,
    clients_per_round: Optional[int] = None,
    num_epochs: int | np.ndarray = 1,
  ):
    """Initializes `Field`.

    Args:
      config: Settings of the field.
      num_examples: Training examples of each client.
      select_fn: Draws the clients that take part.
      clients_per_round: How many updates a round is to have; by default all.
      num_epochs: Passes of a client over its examples in a round; of all, or
        of each.

    Raises:
      FieldFileError: If a file of the settings is missing or wrong.
      UserError: If `clients_per_round` is not in `[1, number of clients]`, or
        every client would always be late.
      settings.SettingsError: If a setting has no effect.
    """
    config.refuse_ignored()
    self.config = config
    self.num_clients = len(num_examples)
    self._num_examples = np.asarray(num_examples, np.int64)
    self._num_epochs = np.broadcast_to(num_epochs, [self.num_clients])
    self._select_fn = select_fn
    if clients_per_round is None:
      if config.over_selection > 1:
        raise settings.SettingsError(
          '`over_selection` would be ignored: all clients take part. Give '
          '`clients_per_round`, too.'
        )
      clients_per_round = self.num_clients
    if not 1 <= clients_per_round <= self.num_clients:
      raise errors.UserError(
        f'Expected clients_per_round in [1, {self.num_clients}], found '
        f'{clients_per_round}.'
      )
    self._wanted = clients_per_round
    # 1.1 x 10 is 11, in spite of rounding.
    size = math.ceil(round(config.over_selection * clients_per_round, 9))
    self._size = min(size, self.num_clients)
    self._availability_fn = availability.build_availability_fn(
      config, self.num_clients
    )
    self._speed_fn = device_speed.build_speed_fn(config, self.num_clients)
    self._refuse_hopeless()

  def outcome(self, round_num: int) -> Outcome:
    """Returns the outcome of a round.

    Args:
      round_num: Counted from 1.
    """
    config = self.config
    there = np.flatnonzero(self._availability_fn(round_num)).tolist()
    sampled = self._select_fn(round_num, self._size, there)
    ids = np.array(sampled, np.int64)
    examples = self._num_examples[ids]
    speeds = self._speed_fn(round_num)[ids]
    num_epochs = self._num_epochs[ids]
    seconds = examples * num_epochs / speeds
    drawn = streams.generator(
      config.field_seed, streams.Purpose.DROPOUT, round_num
    ).random(self.num_clients)
    dropped = drawn[ids] < config.dropout
    deadline = math.inf
    if config.round_deadline is not None:
      deadline = config.round_deadline
    all_examples = examples
    if config.partial_work:
      examples, seconds = self._partial_work(
        examples, num_epochs, speeds, seconds, deadline
      )
    in_time = np.flatnonzero(~dropped & (seconds <= deadline))
    by_time = in_time[np.argsort(seconds[in_time], kind='stable')]
    wanted = min(self._wanted, len(sampled))
    counted = np.sort(by_time[:wanted])
    late = np.setdiff1d(np.flatnonzero(~dropped), counted)
    if len(counted) == wanted:
      duration = seconds[counted].max(initial=0.0)
    elif deadline < math.inf:
      duration = deadline
    elif len(counted):
      # The server notices broken connections.
      duration = seconds[counted].max()
    else:
      duration = seconds.max(initial=0.0)
    is_partial = examples[counted] < all_examples[counted]
    return Outcome(
      round_num=round_num,
      available=len(there),
      sampled=sampled,
      returned=ids[counted].tolist(),
      dropped=ids[dropped].tolist(),
      late=ids[late].tolist(),
      num_examples=examples[counted].tolist(),
      partial=ids[counted][is_partial].tolist(),
      seconds=float(duration),
    )

  def examples(
    self, outcome: Outcome, train_fn: Callable[[int], Mapping[str, Any]]
  ) -> list[Mapping[str, Any]]:
    """Returns the training examples of the clients of a round.

    Args:
      outcome: Outcome of the round.
      train_fn: Returns all training examples of a client.
    """
    found = []
    for client_id, count in zip(outcome.returned, outcome.num_examples):
      examples = train_fn(client_id)
      if client_id in outcome.partial:
        examples = self._part(examples, count, outcome.round_num, client_id)
      found.append(examples)
    return found

  def seconds_before(self, round_num: int) -> float:
    """Returns the simulated seconds of all rounds before this one."""
    return sum(self.outcome(r).seconds for r in range(1, round_num)) + 0.0

  def _part(self, examples, count, round_num, client_id):
    """Draws some examples of a client for the round, in their order."""
    chosen = np.sort(
      streams.generator(
        self.config.field_seed,
        streams.Purpose.PARTIAL_WORK,
        round_num,
        client_id,
      ).permutation(int(self._num_examples[client_id]))[:count]
    )
    return type(examples)(
      (n, np.asarray(v)[chosen]) for n, v in examples.items()
    )

  def _partial_work(self, examples, num_epochs, speeds, seconds, deadline):
    """Returns the work of clients by the deadline, and its duration."""
    # 0.29 seconds at 100 examples per second is 29 examples, not 28.
    possible = np.floor(np.round(deadline * speeds / num_epochs, 9))
    # A client that cannot finish one example is late.
    cut = (seconds > deadline) & (possible > 0)
    return (
      np.where(cut, possible, examples).astype(np.int64),
      np.where(cut, deadline, seconds),
    )

  def _refuse_hopeless(self) -> None:
    """Refuses a deadline that no client can ever meet."""
    config = self.config
    trained = self._num_examples > 0
    if (
      config.round_deadline is None
      or config.device_speed_jitter
      or not trained.any()
    ):
      return
    speeds = self._speed_fn(1)
    seconds = self._num_examples * self._num_epochs / speeds
    if config.partial_work:
      _, seconds = self._partial_work(
        self._num_examples,
        self._num_epochs,
        speeds,
        seconds,
        config.round_deadline,
      )
    least = seconds[trained].min()
    if least > config.round_deadline:
      raise errors.UserError(
        f'No client can ever return: the fastest one needs {least:.4g} '
        'simulated seconds for a round, the deadline (--round_deadline) is '
        f'{config.round_deadline:g}. Give a later one, faster devices '
        '(--device_speed_median), or --partial_work.'
      )


def build_field(
  task: tasks.FederatedTask,
  config: field_config.FieldConfig,
  *,
  clients_per_round: Optional[int] = None,
  sampling_seed: int = 0,
  num_epochs: int | np.ndarray = 1,
  selection_fn: Optional[Callable[..., Any]] = None,
) -> Field:
  """Returns the outcomes of a task's clients.

  Args:
    task: Has the clients' training examples.
    config: Settings of the field.
    clients_per_round: How many updates a round is to have; by default all.
    sampling_seed: Seed of uniform draws.
    num_epochs: Passes of a client over its examples in a round; of all, or of
      each.
    selection_fn: Replaces uniform draws; see `selection.wrap`.

  Raises:
    UserError: See `Field`.
    TypeError: If `selection_fn` takes other arguments.
  """
  if selection_fn is None:
    select_fn = selection.build_select_fn(sampling_seed)
  else:
    select_fn = selection.wrap(selection_fn, task.num_clients)
  return Field(
    config,
    # Without settings of the field, no time is simulated and no file is read.
    _num_examples(task) if config.is_used else [0] * task.num_clients,
    select_fn,
    clients_per_round=clients_per_round,
    num_epochs=num_epochs,
  )


def _num_examples(task: tasks.FederatedTask) -> list[int]:
  if task.partition is not None:
    return [len(indices) for indices in task.partition.train]
  return [len(client.train['y']) for client in task.clients]
