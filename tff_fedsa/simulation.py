"""The round loop: sample, train, store, evaluate, record, checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
import types
from typing import Annotated, Any, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.client import attack_config
from tff_fedsa.evaluation import classification
from tff_fedsa.field import field_config
from tff_fedsa.field import outcomes
from tff_fedsa.runs import errors

with epy.lazy_imports():
  from absl import logging
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import screening
  from tff_fedsa.client import client_store
  from tff_fedsa.data import newcomers
  from tff_fedsa.data import tasks
  from tff_fedsa.evaluation import client_evaluation
  from tff_fedsa.evaluation import global_evaluation
  from tff_fedsa.evaluation import newcomers as newcomer_evaluation
  from tff_fedsa.runs import checkpoints
  from tff_fedsa.runs import metrics
  from tff_fedsa.runs import recorders as recorders_lib
  from tff_fedsa.runs import warm_start

PROTOCOLS = ('personal', 'global')


@dataclasses.dataclass(frozen=True)
class SimulationConfig(settings.Settings):
  """The run: rounds, participants, evaluation and checkpoints.

  Attributes:
    total_rounds: Communication rounds of the whole run, >= 1.
    clients_per_round: Clients drawn for each round, >= 1. Default: all.
    sampling_seed: Seed of the participants of each round, their order of
      examples and their dropout layers.
    rounds_per_evaluation: Rounds from one evaluation of all clients to the
      next, >= 1. The last round is always evaluated.
    rounds_per_checkpoint: Rounds from one checkpoint to the next, >= 1. The
      last round is always saved.
    patience: Rounds without a new best accuracy after which the run stops, >=
      1. The accuracy is that of the method's main classifier (prototype, else
      global_head, else head; with the `protocol` global, head), on validation
      examples if there are any (--validation_fraction), else on test examples.
      Default: never stop early.
    max_failed_rounds: Failed rounds in a row after which the run stops with an
      error, >= 1. A round fails if training diverged at every client, if the
      server turned every client away, or if no client returned (see --dropout
      and --round_deadline).
    clients_per_evaluation: Clients evaluated in one call, >= 1. It bounds
      memory if client states are on disk.
    protocol: How methods are tested (docs/comparing.md). personal (the paper):
      every client's model is tested on the client's own test examples. global:
      the server averages clients' weights after each round, and the averaged
      model of each architecture is tested on the data set's own test set
      (--test_set=original or per_domain).
    held_out_clients: Clients that never train, the last ones, >= 0. Each
      evaluation tests them as clients that join: with what they receive, and
      again after one round of training of their own. protocol personal only.
    metrics: Further metrics of every classifier, of all clients together and of
      each client, separated by commas: macro_f1, balanced_accuracy, recall (of
      each class), auroc, log_loss, ece, confusion (docs/metrics.md). Default:
      accuracy alone.
  """

  total_rounds: Annotated[int, settings.AtLeast(1), settings.Free()] = 100
  clients_per_round: Annotated[Optional[int], settings.AtLeast(1)] = None
  sampling_seed: int = 0
  rounds_per_evaluation: Annotated[int, settings.AtLeast(1)] = 1
  rounds_per_checkpoint: Annotated[
    int, settings.AtLeast(1), settings.Free()
  ] = 10
  patience: Annotated[Optional[int], settings.AtLeast(1), settings.Free()] = (
    None
  )
  max_failed_rounds: Annotated[
    Optional[int], settings.AtLeast(1), settings.Free()
  ] = 10
  clients_per_evaluation: Annotated[
    int, settings.AtLeast(1), settings.Flag(None)
  ] = 100
  protocol: Annotated[str, settings.OneOf(PROTOCOLS)] = 'personal'
  held_out_clients: Annotated[int, settings.AtLeast(0)] = 0
  metrics: tuple[str, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    if self.held_out_clients and self.protocol == 'global':
      raise settings.SettingsError(
        '`held_out_clients` are tested on examples of their own: they need '
        '`protocol`=personal.'
      )
    for name in self.metrics:
      if name not in classification.METRICS:
        raise settings.SettingsError(
          f'Unknown `metrics` {name!r}; known: '
          f'{", ".join(classification.METRICS)}.'
        )

  def check_clients(self, num_clients: int) -> None:
    """Checks that a task has enough clients for a round.

    Args:
      num_clients: Number of clients of the task.

    Raises:
      SettingsError: If no client would train, or fewer than
        `clients_per_round`.
    """
    held_out = self.held_out_clients
    if held_out >= num_clients:
      raise settings.SettingsError(
        f'Expected `held_out_clients` in [0, {num_clients - 1}], found '
        f'{held_out}: of {num_clients} clients, one has to train.'
      )
    num_clients -= held_out
    if (self.clients_per_round or 1) > num_clients:
      raise settings.SettingsError(
        f'Expected `clients_per_round` in [1, {num_clients}], found '
        f'{self.clients_per_round}: there are {num_clients} clients'
        f'{" that train" if held_out else ""}.'
      )


class TrainingFailedError(errors.UserError):
  """Too many rounds in a row failed: see `max_failed_rounds`."""


class SimulationResult(NamedTuple):
  """Result of a run.

  Attributes:
    server_state: Server state after the last round.
    history: One row (`metrics.COLUMNS`) per evaluated round.
    per_client: Counts and metrics of the last evaluation, one dict per client.
      Empty in protocol `global`.
    per_test_set: Counts of the last evaluation in protocol `global`, one dict
      per test set.
    stopped_early: Whether patience ended the run.
    statistics: Sums of the last evaluation by classifier, see
      `classification.zeros`. Empty without `metrics`.
  """

  server_state: composer.ServerState
  history: list[metrics.Row]
  per_client: Sequence[Mapping[str, Any]]
  stopped_early: bool
  per_test_set: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})
  statistics: Mapping[str, Mapping[str, np.ndarray]] = types.MappingProxyType(
    {}
  )


def evaluate_clients(
  evaluate: tff.Computation,
  task: tasks.FederatedTask,
  store: client_store.ClientStateStore,
  model: Any,
  *,
  clients_per_evaluation: int = 100,
  validation: bool = False,
) -> list[dict[str, Any]]:
  """Evaluates every client of a task on its own test examples.

  Args:
    evaluate: Result of `client_evaluation.build_evaluation`.
    task: Has the clients' test data.
    store: Has the clients' states.
    model: The server's model.
    clients_per_evaluation: Clients in one call.
    validation: Evaluates them on their validation examples instead.

  Returns:
    One dict per client: the number of correct examples of each classifier, and
    arrays of statistics if `evaluate` has metrics.
  """
  return client_evaluation.evaluate_clients(
    evaluate,
    model,
    (
      (
        store.get(client_id),
        task.validation_fns[client_id]() if validation else client.test,
      )
      for client_id, client in enumerate(task.clients)
    ),
    clients_per_call=clients_per_evaluation,
  )


def run(
  process: composer.StatefulProcess,
  evaluate: tff.Computation,
  task: tasks.FederatedTask,
  store: client_store.ClientStateStore,
  config: SimulationConfig,
  *,
  field: Optional[field_config.FieldConfig] = None,
  attack: Optional[attack_config.AttackConfig] = None,
  num_epochs: int | np.ndarray = 1,
  tests_averaged: bool = False,
  selection_fn: Optional[Callable[..., Sequence[int]]] = None,
  server_metrics_fn: Optional[Callable[[Any], Mapping[str, Any]]] = None,
  warm_start_fn: Optional[warm_start.WarmStartFn] = None,
  checkpoint_manager: Optional[checkpoints.CheckpointManager] = None,
  recorders: Sequence[recorders_lib.Recorder] = (),
  on_round: Callable[[int, Optional[metrics.Row]], None] = lambda *_: None,
) -> SimulationResult:
  """Runs a process, from its latest checkpoint if there is one.

  A resumed run equals an uninterrupted run bit for bit (on CPUs). The clients
  of a round, their batches and dropout are functions of seeds and round. A
  checkpoint holds everything else.

  If an exception (also KeyboardInterrupt) ends the run early, the unfinished
  round is undone and the finished rounds are saved. Then the exception is
  raised again.

  Args:
    process: Result of `composer.compose_process`, e.g. of `fedsa.build_fedsa`.
    evaluate: Result of `client_evaluation.build_evaluation` for the same
      models, or in protocol `global` of
      `global_evaluation.build_global_evaluation`.
    task: Data of all clients.
    store: States of all clients. A checkpoint replaces its content.
    config: Length of the run, intervals of evaluation and checkpoints.
    field: Decides which clients are available, drop out or are late. Default:
      all are available and return.
    attack: Attack that the process simulates. Rows of a targeted attack have
      its rates of success. Attackers of `task` have no test examples.
    num_epochs: Passes of a client over its examples in a round, for the
      field's simulated time; of all, or of each that trains.
    tests_averaged: True if `evaluate` tests averaged models in place of the
      clients' own.
    selection_fn: Draws the clients of a round: `fn(round_num)`, `fn(round_num,
      size)` or `fn(round_num, size, available)` -> ids, e.g. the result of
      `tff.simulation.build_uniform_sampling_fn`. See `selection.wrap`. Default:
      uniform draws by the `sampling_seed`.
    server_metrics_fn: Returns further columns for a server state.
    warm_start_fn: Returns the server's first state, and fills the store, unless
      a checkpoint does (see `runs.warm_start`).
    checkpoint_manager: Writes checkpoints. Default: no checkpoints.
    recorders: Receive every row.
    on_round: Called as `on_round(round_num, row)` once at the beginning and
      after each round. `row` is None for rounds without evaluation.

  Raises:
    checkpoints.CheckpointError: If a checkpoint can't be written or read.
    TrainingFailedError: See `SimulationConfig.max_failed_rounds`.
    ValueError: If `clients_per_round` exceeds the number of clients, or the
      task has no test set for the protocol `global`.
    UserError: If a file of the field is missing or wrong, or if `selection_fn`
      returns unknown clients.
  """
  task, held_out = newcomers.split(task, config.held_out_clients)
  test_sets = task.global_test() if config.protocol == 'global' else {}
  if test_sets and task.validation_fns:
    validation_set = tasks.joined_validation(task)
  server_state = process.initialize()
  history: list[metrics.Row] = []
  start_round = 0
  field = field or field_config.FieldConfig()
  clients_field = outcomes.build_field(
    task,
    field,
    clients_per_round=config.clients_per_round,
    sampling_seed=config.sampling_seed,
    num_epochs=num_epochs,
    selection_fn=selection_fn,
  )
  if checkpoint_manager is not None:
    restored = checkpoint_manager.restore(server_state, store)
    if restored is not None:
      start_round, server_state, history = restored
      logging.info('Resuming after round %d.', start_round)
  if warm_start_fn is not None and not history:
    server_state = warm_start_fn(server_state, store)
  for recorder in recorders:
    recorder.rewind(history)
  attack = attack or attack_config.AttackConfig()
  victims = _victims(task, attack) if config.protocol == 'personal' else []
  per_client: Sequence[Mapping[str, Any]] = []
  per_test_set: Mapping[str, Mapping[str, Any]] = {}

  def validate() -> Mapping[str, float]:
    """Returns accuracies on what clients hold out of training."""
    if not task.validation_fns:
      return {}
    if config.protocol == 'global':
      found = global_evaluation.evaluate_test_sets(
        evaluate, server_state.model, {'validation': validation_set}
      )
      summary = global_evaluation.summarize(found)
    else:
      summary = client_evaluation.summarize(
        evaluate_clients(
          evaluate,
          task,
          store,
          server_state.model,
          clients_per_evaluation=config.clients_per_evaluation,
          validation=True,
        )
      )
    return {
      client_evaluation.validation_column(name): summary[f'{name}_accuracy']
      for name in client_evaluation.classifiers_in(summary)
    }

  def evaluate_now() -> Mapping[str, float]:
    nonlocal per_client, per_test_set
    if config.protocol == 'global':
      per_test_set = global_evaluation.evaluate_test_sets(
        evaluate, server_state.model, test_sets
      )
      return global_evaluation.summarize(per_test_set, config.metrics)
    per_client = evaluate_clients(
      evaluate,
      task,
      store,
      server_state.model,
      clients_per_evaluation=config.clients_per_evaluation,
    )
    return {
      **client_evaluation.summarize(per_client, config.metrics),
      **success_now(),
    }

  def newcomers_now() -> Mapping[str, float]:
    if not held_out:
      return {}
    return newcomer_evaluation.evaluate(
      process,
      evaluate,
      server_state,
      held_out,
      store,
      tests_averaged=tests_averaged,
      clients_per_call=config.clients_per_evaluation,
    )

  def success_now() -> Mapping[str, float]:
    if not victims:
      return {}
    counts = client_evaluation.evaluate_clients(
      evaluate,
      server_state.model,
      ((store.get(client_id), examples) for client_id, examples in victims),
      clients_per_call=config.clients_per_evaluation,
    )
    return metrics.attack_columns(counts)

  def take_row(
    round_num: int, training: metrics.Row, *, trained: bool
  ) -> metrics.Row:
    started = time.monotonic()
    row = {
      'round': round_num,
      **evaluate_now(),
      **validate(),
      **newcomers_now(),
      **training,
      **(metrics.communication_columns(process, training) if trained else {}),
      **(server_metrics_fn(server_state) if server_metrics_fn else {}),
      'seconds_evaluation': time.monotonic() - started,
      **metrics.memory_columns(),
    }
    history.append(row)
    for recorder in recorders:
      recorder.record(row)
    return row

  def save(round_num: int) -> None:
    if checkpoint_manager is not None:
      checkpoint_manager.save(round_num, server_state, store, history)

  if not history:
    first_row = take_row(0, {}, trained=False)
    # A run that fails before its first checkpoint goes back to this state.
    save(0)
    on_round(0, first_row)
  else:
    on_round(start_round, history[-1])
  stopped_early = _should_stop(history, config.patience)
  saved_round = finished_round = start_round
  simulated_seconds = 0.0
  if field.is_used:
    simulated_seconds = clients_field.seconds_before(start_round + 1)
  failed_rounds = 0
  # The state before the unfinished round: server state, number of rows, client
  # states by id.
  before: Optional[tuple[Any, int, dict[int, Any]]] = None
  try:
    for round_num in range(start_round + 1, config.total_rounds + 1):
      if stopped_early:
        break
      started = time.monotonic()
      outcome = clients_field.outcome(round_num)
      simulated_seconds += outcome.seconds
      client_ids = outcome.returned
      old_states = [store.get(client_id) for client_id in client_ids]
      new_state, new_states = server_state, []
      measurements: Mapping[str, Any] = {}
      if client_ids:
        output = process.next(
          server_state,
          old_states,
          clients_field.examples(outcome, lambda i: task.clients[i].train),
        )
        new_state, measurements = output.state, output.measurements
        new_states = list(output.result)
        _log_rejected(round_num, measurements)
      is_last = round_num == config.total_rounds

      # From here to the end of the round, client states and server state belong
      # together.
      before = server_state, len(history), dict(zip(client_ids, old_states))
      server_state = new_state
      for client_id, state in zip(client_ids, new_states):
        store.put(client_id, state)
      row: Optional[metrics.Row] = None
      if is_last or round_num % config.rounds_per_evaluation == 0:
        training = {
          **(metrics.training_columns(measurements) if measurements else {}),
          'clients_sampled': len(outcome.sampled),
          **(
            metrics.field_columns(outcome, simulated_seconds)
            if field.is_used
            else {}
          ),
          'seconds_training': time.monotonic() - started,
        }
        row = take_row(round_num, training, trained=bool(client_ids))
        stopped_early = not is_last and _should_stop(history, config.patience)
      finished_round, before = round_num, None
      if (
        is_last
        or stopped_early
        or round_num % config.rounds_per_checkpoint == 0
      ):
        save(round_num)
        saved_round = round_num
      on_round(round_num, row)
      failed = not client_ids or metrics.diverged_everywhere(measurements)
      failed_rounds = failed_rounds + 1 if failed else 0
      if failed_rounds == config.max_failed_rounds:
        raise TrainingFailedError(
          _why_it_failed(failed_rounds, round_num, outcome, measurements)
        )
  except BaseException as error:
    try:
      if before is not None:
        server_state, num_rows, states = before
        del history[num_rows:]
        for client_id, state in states.items():
          store.put(client_id, state)
      if finished_round > saved_round:
        save(finished_round)
    except (OSError, errors.UserError) as second:
      if not isinstance(error, Exception):
        # The user who interrupted the run should know.
        raise
      error.add_note(f'Besides: {second}')
    raise
  if not per_client and not per_test_set:
    # The run was finished already, so there is nothing to train.
    evaluate_now()
  statistics = client_evaluation.statistics_of_all(
    [*per_client, *per_test_set.values()], config.metrics
  )
  return SimulationResult(
    server_state,
    history,
    client_evaluation.without_statistics(per_client, config.metrics),
    stopped_early,
    {
      name: counts
      for name, counts in zip(
        per_test_set,
        client_evaluation.without_statistics(
          list(per_test_set.values()), config.metrics
        ),
      )
    },
    statistics,
  )


def _victims(
  task: tasks.FederatedTask, attack: attack_config.AttackConfig
) -> list[tuple[int, Any]]:
  """Returns clients and their test examples of the attacked class.

  A targeted attack moves prototypes of one class to where these examples are.
  They are labelled as that class: the accuracy on them is the rate of success.
  """
  if attack.attack != 'targeted':
    return []
  found = []
  for client_id, client in enumerate(task.clients):
    test = client.test
    chosen = np.flatnonzero(test['y'] == attack.attack_target)
    if len(chosen):
      labels = np.full(len(chosen), attack.attack_source, np.int32)
      examples = {**test, 'x': test['x'][chosen], 'y': labels}
      found.append((client_id, type(test)(examples)))
  return found


def _log_rejected(round_num: int, measurements: Mapping[str, Any]) -> None:
  reasons = list(screening.REASONS.items())
  rejected = (measurements.get('screening') or {}).get('rejected', ())
  for client_id, code in np.asarray(rejected):
    name, meaning = reasons[code - 1]
    logging.warning(
      'Round %d: client %d was turned away (%s): it %s.',
      round_num,
      client_id,
      name,
      meaning,
    )


def _why_it_failed(
  failed_rounds: int,
  round_num: int,
  outcome: outcomes.Outcome,
  measurements: Mapping[str, Any],
) -> str:
  which = f'{failed_rounds} rounds in a row, the last of them round {round_num}'
  more = '--max_failed_rounds allows more such rounds.'
  rejected = (measurements.get('screening') or {}).get('clients_rejected', 0)
  if rejected:
    return (
      f'The server turned {rejected} clients away, and no other client counts, '
      f'in {which}. The log names the clients, and the columns '
      f'clients_rejected_* of metrics.csv say why; {more}'
    )
  if outcome.returned:
    return (
      f'Training diverged at every client in {which}. Start a new run with a '
      'smaller learning rate (--client_learning_rate), or look at the losses '
      f'in metrics.csv; {more}'
    )
  return (
    f'No client returned from {which}: {outcome.available} clients were '
    f'there, {len(outcome.sampled)} drawn, {len(outcome.dropped)} dropped out '
    f'and {len(outcome.late)} were late. Look at --availability, --dropout '
    f'and --round_deadline; {more}'
  )


def _should_stop(
  history: Sequence[metrics.Row], patience: Optional[int]
) -> bool:
  if patience is None or not history:
    return False
  classifiers = client_evaluation.classifiers_in(history[0])
  main = client_evaluation.main_classifier(classifiers)
  objective = client_evaluation.validation_column(main)
  if objective not in history[0]:
    objective = f'{main}_accuracy'
  accuracies = [row[objective] for row in history]
  best_round = history[int(np.argmax(accuracies))]['round']
  return history[-1]['round'] - best_round >= patience
