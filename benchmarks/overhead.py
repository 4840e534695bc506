"""Measures the cost of federation: a FedSA round and a plain loop of its steps.

  python -m benchmarks.overhead
  python -m benchmarks.overhead --models=fedavg_cnn,resnet8 --batch_sizes=10,50

The plain loop is one `tf.function` per client without TFF, server or client
state: the same training step, SGD and prototypes, in a `tf.while_loop` over the
client's stacked examples, called by as many Python threads as clients run at a
time. Both run alternately in one process, after a warm-up. Printed are the
seconds of a round (minimum and median), the ratio of the medians, and the
ratio of the CPU seconds, which other programs on the machine disturb less.

  python -m benchmarks.overhead --splits=2x1,1x2,2x2 \
      --models=fedavg_cnn,resnet8 --batch_sizes=10,50

compares ways to divide the cores instead: clients at a time x threads of one
operation. TensorFlow has one number of threads per process, so each way has a
process of its own; they take turns. Printed are the seconds of a round, minimum
/ median / minimum of the CPU seconds.

  python -m benchmarks.overhead --share_weights=extractor,model \
      --models=fedavg_cnn/resnet8

compares rounds with and without weights that clients of one architecture share.
Clients have the architectures in turn.

  python -m benchmarks.overhead --without_check

compares rounds with and without the server's check of contributions.

  python -m benchmarks.overhead --jit_compile --models=fedavg_cnn,digits3

compares rounds with and without training steps that XLA compiles. Printed, too,
are the seconds of the first round, in which it compiles.

  git worktree add --detach ../before REVISION
  python -m benchmarks.overhead --other_tree=../before \
      --models=fedavg_cnn,digits3 --num_clients=8 --num_examples=200

compares FedSA's rounds in another version of this project with rounds in this
one. Each version has a process of its own, with its library and its benchmark.
The two processes take turns, round by round, and several pairs of processes
follow each other. Printed are the seconds of a round (minimum and median of
all pairs), and the ratios of the medians of wall-clock and of CPU seconds, now
by before, with the range of the ratios of single pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple
from unittest import mock

from absl import app
from absl import flags
import numpy as np

from launch import runner

_MODELS = flags.DEFINE_list(
  'models',
  ['fedavg_cnn'],
  'Architectures, each measured on its own; A/B: clients have both in turn.',
)
_BATCH_SIZES = flags.DEFINE_list('batch_sizes', ['10'], 'Examples of one step.')
_SPLITS = flags.DEFINE_list(
  'splits',
  [],
  'Compares these ways to divide the cores, CLIENTSxTHREADS each.',
)
_SHARE_WEIGHTS = flags.DEFINE_list(
  'share_weights',
  [],
  'Compares rounds in which clients share these parts of their models '
  '(extractor, model) with rounds in which they share none.',
)
_WITHOUT_CHECK = flags.DEFINE_bool(
  'without_check',
  False,
  'Compares rounds with and without the check of contributions.',
)
_JIT_COMPILE = flags.DEFINE_bool(
  'jit_compile',
  False,
  'Compares rounds with and without training steps that XLA compiles.',
)
_OTHER_TREE = flags.DEFINE_string(
  'other_tree',
  None,
  "Folder of another version of this project; compares its FedSA's rounds with "
  'those of this version.',
)
_PAIRS = flags.DEFINE_integer(
  'pairs', 3, 'Processes of each version (--other_tree).', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 5, 'Measured rounds of each contender.', lower_bound=1
)
_CLIENTS = flags.DEFINE_integer(
  'num_clients', 20, 'Clients of a round.', lower_bound=1
)
_EXAMPLES = flags.DEFINE_integer(
  'num_examples', 500, 'Images, 32x32x3, of a client.', lower_bound=1
)

# Run in the folder of a version: its own benchmark builds its own rounds.
_IN_A_TREE = """
import json, os, sys, time
answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)  # What is printed is no answer.
from benchmarks import overhead
from tff_fedsa.execution.in_process import contexts

contexts.set_in_process_context(
  max_concurrent_clients=len(os.sched_getaffinity(0)), intra_op_threads=1
)
workload = overhead.Workload(**json.loads(sys.argv[1]))
contender = overhead.build_federated(workload)
state = contender.initial
for what in sys.stdin:
  if what.strip() == 'round':
    state = contender.next(state)
  print(time.process_time(), file=answers, flush=True)
"""

_IMAGE_SHAPE = (32, 32, 3)
_NUM_CLASSES = 10
_FEATURE_DIM = 512
_LEARNING_RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Workload:
  """Size and content of a round.

  Attributes:
    model: Name of the architecture of all clients.
    batch_size: Examples of one step.
    num_clients: Clients of a round.
    num_examples: Examples of each client, a multiple of `batch_size`.
    batch_clients: Clients that FedSA trains together; None for each alone.
    share_weights: What clients of one architecture share in FedSA's rounds:
      none, extractor or model.
    shuffle: Whether FedSA shuffles the examples, as it does by default; the
      plain loop never does.
    checked: Whether FedSA's rounds check contributions, as they always do
      outside this benchmark.
  """

  model: str
  batch_size: int
  num_clients: int = 20
  num_examples: int = 500
  shuffle: bool = True
  share_weights: str = 'none'
  checked: bool = True
  batch_clients: int | None = None

  def __post_init__(self):
    if self.num_examples % self.batch_size:
      raise ValueError(
        'Expected full batches, found batch_size '
        f'{self.batch_size} for {self.num_examples} examples.'
      )


class Contender(NamedTuple):
  """A way to compute a round.

  Attributes:
    initial: The first state.
    next: `next(state) -> state`: one round.
    weights: `weights(state)`, a list of each client's float32[?].
    cpu_time: CPU seconds so far of the process that computes.
  """

  initial: Any
  next: Callable[[Any], Any]
  weights: Callable[[Any], list[np.ndarray]]
  cpu_time: Callable[[], float] = time.process_time


class Timing(NamedTuple):
  """Measurements of one contender's rounds, without the warm-up.

  Attributes:
    seconds: Wall-clock time of each.
    cpu_seconds: CPU time of each, all threads of the process.
  """

  seconds: list[float]
  cpu_seconds: list[float]


def _input_spec() -> Any:
  from tff_fedsa.data import input_spec

  return input_spec.InputSpec(_IMAGE_SHAPE, 'uint8', 1 / 127.5, -1.0)


def _build_models(workload: Workload) -> Any:
  from tff_fedsa.models import families

  return families.build_family(
    workload.model.replace('/', ','), _IMAGE_SHAPE, _NUM_CLASSES, _FEATURE_DIM
  )


def _examples(workload: Workload) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(0)
  size = workload.num_examples
  return [
    {
      'x': rng.integers(0, 256, [size, *_IMAGE_SHAPE]).astype(np.uint8),
      'y': rng.integers(0, _NUM_CLASSES, size).astype(np.int32),
    }
    for _ in range(workload.num_clients)
  ]


def build_federated(workload: Workload) -> Contender:
  """Returns FedSA's round in TFF's current context, without evaluation."""
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.models import tiers
  from tff_fedsa.server import averaging

  models = _build_models(workload)
  with contextlib.nullcontext() if workload.checked else _without_check():
    process = fedsa.build_fedsa(
      models,
      input_spec=_input_spec(),
      optimizer=local_optimizer.LocalOptimizer(
        tff.learning.optimizers.build_sgdm(_LEARNING_RATE)
      ),
      local=local_training.LocalTrainingConfig(
        batch_size=workload.batch_size,
        shuffle=workload.shuffle,
        batch_clients=workload.batch_clients,
      ),
    )
    if workload.share_weights != 'none':
      process = composer.with_averaging(
        process,
        averaging.build_weight_averaging(
          models, tiers=tiers.Tiers(models, workload.share_weights)
        ),
      )
  initial_state = client_state.build_initial_state_fn(models)
  examples = _examples(workload)

  def run_round(state):
    output = process.next(*state, examples)
    return output.state, list(output.result)

  return Contender(
    initial=(
      process.initialize(),
      [initial_state(i) for i in range(workload.num_clients)],
    ),
    next=run_round,
    weights=lambda state: [np.asarray(s.weights) for s in state[1]],
  )


def _without_check() -> contextlib.AbstractContextManager[Any]:
  """Processes that are built meanwhile take what clients send as it comes."""
  import tensorflow as tf

  from tff_fedsa.aggregation import screening

  def no_fault(value, limits):
    del value, limits  # Nobody looks at them.
    return tf.constant(0)

  return mock.patch.multiple(
    screening,
    clean=lambda update, limits: update,
    fault=no_fault,
    metrics_fault=no_fault,
    screen=lambda value, fault_fn: screening.Screened(value, fault_fn(value)),
  )


def build_plain(workload: Workload, clients_at_a_time: int) -> Contender:
  """Returns the same steps without TFF, with as many Python threads."""
  return build_plain_fn(workload)(clients_at_a_time)


def build_plain_fn(workload: Workload) -> Callable[[int], Contender]:
  """Returns `fn(clients_at_a_time)`: `build_plain` with a shared trace."""
  import tensorflow as tf

  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.maths import anchors as anchors_lib
  from tff_fedsa.maths import prototypes

  (model,) = _build_models(workload)
  batch_size = workload.batch_size
  objective = fedsa.build_objective(_NUM_CLASSES, _FEATURE_DIM)
  step_fn = model.build_train_step(
    objective.loss_fn,
    batch_size=batch_size,
    context_specs=objective.context_specs,
    input_spec=_input_spec(),
  )
  # Inlined in a loop, oneDNN's rewriting may meet the gradient of a pooling
  # layer before the layer, and leaves it a kernel 15 times as slow.
  step = tf.function(
    lambda *arguments: step_fn(*arguments),
    autograph=False,
    experimental_attributes={'_noinline': True},
  )
  anchors = tf.constant(anchors_lib.initial_anchors(_NUM_CLASSES, _FEATURE_DIM))
  examples = tf.nest.map_structure(tf.constant, _examples(workload))

  @tf.function(autograph=False)
  def train(client, images, labels):
    context = objective.context_fn(anchors, client, 0)
    trainable, state = model.split(client.weights)

    def body(index, trainable, state, sums, counts, loss):
      start = index * batch_size
      batch_labels = labels[start : start + batch_size]
      output = step(
        trainable,
        state,
        tf.ensure_shape(
          images[start : start + batch_size], [batch_size, *_IMAGE_SHAPE]
        ),
        tf.ensure_shape(batch_labels, [batch_size]),
        context,
        tf.zeros([2], tf.int32),
      )
      trainable = [
        weight - _LEARNING_RATE * gradient
        for weight, gradient in zip(trainable, output.gradients)
      ]
      batch_sums, batch_counts = prototypes.class_sums(
        output.features, batch_labels, _NUM_CLASSES
      )
      return (
        index + 1,
        trainable,
        output.state,
        sums + batch_sums,
        counts + batch_counts,
        loss + output.losses['loss'],
      )

    _, trainable, state, sums, counts, _ = tf.while_loop(
      lambda index, *_: index < tf.shape(labels)[0] // batch_size,
      body,
      (
        tf.constant(0),
        trainable,
        state,
        tf.zeros([_NUM_CLASSES, _FEATURE_DIM]),
        tf.zeros([_NUM_CLASSES]),
        tf.zeros([]),
      ),
    )
    return _PlainClient(
      weights=model.flatten(trainable, state),
      prototypes=prototypes.class_means(sums, counts),
      counts=counts,
    )

  first = _PlainClient(
    weights=tf.constant(model.initial_weights(0)),
    prototypes=tf.zeros([_NUM_CLASSES, _FEATURE_DIM]),
    counts=tf.zeros([_NUM_CLASSES]),
  )

  def contender(clients_at_a_time: int) -> Contender:
    threads = futures.ThreadPoolExecutor(clients_at_a_time)

    def run_round(clients):
      return list(
        threads.map(
          lambda client, data: train(client, data['x'], data['y']),
          clients,
          examples,
        )
      )

    return Contender(
      initial=[first] * workload.num_clients,
      next=run_round,
      weights=lambda clients: [client.weights.numpy() for client in clients],
    )

  return contender


class _PlainClient(NamedTuple):
  """The plain loop's state of a client."""

  weights: Any
  prototypes: Any
  counts: Any


def compare(
  contenders: Sequence[Contender], rounds: int
) -> tuple[list[Timing], list[Any]]:
  """Runs contenders in turn, and returns their timings and last states."""
  states = [contender.initial for contender in contenders]
  timings = [Timing([], []) for _ in contenders]
  # The first round traces and compiles. The second has cold caches.
  for round_num in range(rounds + 2):
    for i, contender in enumerate(contenders):
      started, cpu_started = time.perf_counter(), contender.cpu_time()
      states[i] = contender.next(states[i])
      seconds = time.perf_counter() - started
      cpu_seconds = contender.cpu_time() - cpu_started
      if round_num >= 2:
        timings[i].seconds.append(seconds)
        timings[i].cpu_seconds.append(cpu_seconds)
  return timings, states


class _Remote:
  """A federated round in a process with its own number of threads."""

  def __init__(self, workload: Workload, split: tuple[int, int]):
    spawn = multiprocessing.get_context('spawn')
    self._pipe, other_end = spawn.Pipe()
    self._process = spawn.Process(
      target=_serve, args=(other_end, workload, split), daemon=True
    )
    self._process.start()

  def next(self, unused_state: Any) -> None:
    self._ask('round')

  def cpu_time(self) -> float:
    return self._ask('cpu_time')

  def close(self) -> None:
    self._ask('end')
    self._process.join()

  def _ask(self, what: str) -> Any:
    self._pipe.send(what)
    return self._pipe.recv()


def _serve(pipe: Any, workload: Workload, split: tuple[int, int]) -> None:
  """Computes a round on each request, and answers with its CPU time."""
  from tff_fedsa.execution.in_process import contexts

  clients, threads = split
  contexts.set_in_process_context(
    max_concurrent_clients=clients, intra_op_threads=threads
  )
  contender = build_federated(workload)
  state = contender.initial
  while (what := pipe.recv()) != 'end':
    if what == 'round':
      state = contender.next(state)
    pipe.send(time.process_time())
  pipe.send(None)


def compare_splits(
  workload: Workload, splits: Sequence[tuple[int, int]], rounds: int
) -> list[Timing]:
  """Returns the timings of `(clients at a time, threads)`, in turns."""
  remotes = [_Remote(workload, split) for split in splits]
  timings, _ = compare(
    [
      Contender(None, remote.next, lambda _: [], remote.cpu_time)
      for remote in remotes
    ],
    rounds,
  )
  for remote in remotes:
    remote.close()
  return timings


def parse_split(text: str) -> tuple[int, int]:
  """Parses `(clients at a time, threads)`, e.g. from `2x1`.

  Raises:
    ValueError: If it is not of this form.
  """
  clients, _, threads = text.partition('x')
  if not (clients.isdecimal() and threads.isdecimal()):
    raise ValueError(f'Expected CLIENTSxTHREADS, e.g. 2x1, found {text!r}.')
  return int(clients), int(threads)


def _workloads() -> list[Workload]:
  return [
    Workload(model, int(size), _CLIENTS.value, _EXAMPLES.value)
    for model in _MODELS.value
    for size in _BATCH_SIZES.value
  ]


def _print_overheads() -> None:
  cores = _start_runtime()
  print(
    '| model | batch size | FedSA: min | median | plain loop: min | median | '
    'ratio | of CPU seconds |\n|---|---|---|---|---|---|---|---|'
  )
  for workload in _workloads():
    (ours, plain), _ = compare(
      [build_federated(workload), build_plain(workload, cores)], _ROUNDS.value
    )
    median = statistics.median
    print(
      f'| {workload.model} | {workload.batch_size} | {min(ours.seconds):.2f} | '
      f'{median(ours.seconds):.2f} | {min(plain.seconds):.2f} | '
      f'{median(plain.seconds):.2f} | '
      f'{median(ours.seconds) / median(plain.seconds):.2f} | '
      f'{median(ours.cpu_seconds) / median(plain.cpu_seconds):.2f} |',
      flush=True,
    )


def _print_splits() -> None:
  splits = [parse_split(text) for text in _SPLITS.value]
  columns = [f'{clients} x {threads}' for clients, threads in splits]
  print(
    f'| model | batch size | {" | ".join(columns)} |\n'
    f'|---|---|{"---|" * len(splits)}'
  )
  for workload in _workloads():
    timings = compare_splits(workload, splits, _ROUNDS.value)
    cells = [
      ' / '.join(
        f'{x:.2f}'
        for x in (
          min(timing.seconds),
          statistics.median(timing.seconds),
          min(timing.cpu_seconds),
        )
      )
      for timing in timings
    ]
    print(
      f'| {workload.model} | {workload.batch_size} | {" | ".join(cells)} |',
      flush=True,
    )


def _print_variants(title: str, variants: Mapping[str, Any]) -> None:
  """Compares variants of a workload with the first of them.

  Args:
    title: What the variants differ in.
    variants: Name -> fields of `Workload` to replace.
  """
  _start_runtime()
  print(
    f'| models | {title} | min | median | ratio | of CPU seconds |\n'
    '|---|---|---|---|---|---|'
  )
  median = statistics.median
  for workload in _workloads():
    timings, _ = compare(
      [
        build_federated(dataclasses.replace(workload, **changes))
        for changes in variants.values()
      ],
      _ROUNDS.value,
    )
    first = timings[0]
    for name, timing in zip(variants, timings):
      print(
        f'| {workload.model} | {name} | {min(timing.seconds):.3f} | '
        f'{median(timing.seconds):.3f} | '
        f'{median(timing.seconds) / median(first.seconds):.3f} | '
        f'{median(timing.cpu_seconds) / median(first.cpu_seconds):.3f} |',
        flush=True,
      )


def _print_compilers() -> None:
  import tensorflow_federated as tff

  print(
    '| models | XLA | first round | min | median | ratio | of CPU seconds |\n'
    '|---|---|---|---|---|---|---|'
  )
  median = statistics.median
  stack = tff.framework.get_context_stack()
  for workload in _workloads():
    contenders, first_rounds = [], []
    for jit_compile in (False, True):
      _start_runtime(jit_compile=jit_compile)
      contender = _in_context(stack.current, build_federated(workload))
      started = time.perf_counter()
      contender.next(contender.initial)
      first_rounds.append(time.perf_counter() - started)
      contenders.append(contender)
    timings, _ = compare(contenders, _ROUNDS.value)
    for name, first_round, timing in zip(('off', 'on'), first_rounds, timings):
      print(
        f'| {workload.model} | {name} | {first_round:.2f} | '
        f'{min(timing.seconds):.3f} | {median(timing.seconds):.3f} | '
        f'{median(timing.seconds) / median(timings[0].seconds):.2f} | '
        f'{median(timing.cpu_seconds) / median(timings[0].cpu_seconds):.2f} |',
        flush=True,
      )


def _in_context(context: Any, contender: Contender) -> Contender:
  """Returns a contender that computes in a context of its own."""
  import tensorflow_federated as tff

  def run_round(state):
    tff.framework.set_default_context(context)
    return contender.next(state)

  return contender._replace(next=run_round)


class _InTree:
  """A federated round in a process of another version of this project."""

  def __init__(self, workload: Workload, tree: str):
    # Versions may differ in the other fields.
    names = ('model', 'batch_size', 'num_clients', 'num_examples')
    fields = json.dumps({name: getattr(workload, name) for name in names})
    self._tree = tree
    self._errors = tempfile.TemporaryFile('w+')
    self._process = subprocess.Popen(
      [sys.executable, '-c', _IN_A_TREE, fields],
      cwd=tree,
      env={**os.environ, 'PYTHONPATH': os.path.abspath(tree)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
    )

  def next(self, unused_state: Any) -> None:
    self._ask('round')

  def cpu_time(self) -> float:
    return self._ask('cpu_time')

  def close(self) -> None:
    self._process.communicate()
    self._errors.close()

  def _ask(self, what: str) -> float:
    assert self._process.stdin and self._process.stdout
    with contextlib.suppress(BrokenPipeError):
      print(what, file=self._process.stdin, flush=True)
    answer = self._process.stdout.readline()
    if not answer:
      self._errors.seek(0)
      said = self._errors.read().strip()[-500:]
      raise RuntimeError(f'{self._tree}: {said}')
    return float(answer)


def compare_trees(
  workload: Workload, trees: Sequence[str], rounds: int
) -> list[Timing]:
  """Returns the timings of versions of this project, in turns.

  Args:
    workload: Size of a round.
    trees: Folders of the versions, each with its `benchmarks.overhead`.
    rounds: Measured rounds of each version.

  Raises:
    RuntimeError: If a process fails; its last words are quoted.
  """
  with contextlib.ExitStack() as stack:
    processes = [_InTree(workload, tree) for tree in trees]
    for process in processes:
      stack.callback(process.close)
    timings, _ = compare(
      [
        Contender(None, process.next, lambda _: [], process.cpu_time)
        for process in processes
      ],
      rounds,
    )
  return timings


def _print_trees() -> None:
  here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  print(
    '| models | before: min | median | now: min | median | ratio of medians '
    '(of pairs) | of CPU seconds (of pairs) |\n|---|---|---|---|---|---|---|'
  )
  median = statistics.median
  for workload in _workloads():
    pairs = [
      compare_trees(workload, [_OTHER_TREE.value, here], _ROUNDS.value)
      for _ in range(_PAIRS.value)
    ]
    cells = []
    for own in zip(*pairs):
      seconds = [one for timing in own for one in timing.seconds]
      cells += [f'{min(seconds):.3f}', f'{median(seconds):.3f}']
    for clock in Timing._fields:
      before, now = ([getattr(t, clock) for t in own] for own in zip(*pairs))
      whole = median(sum(now, [])) / median(sum(before, []))
      ratios = [median(n) / median(b) for b, n in zip(before, now)]
      cells.append(f'{whole:.3f} ({min(ratios):.3f} to {max(ratios):.3f})')
    print(f'| {workload.model} | {" | ".join(cells)} |', flush=True)


def _start_runtime(*, jit_compile: bool = False) -> int:
  """Starts the in-process runtime on all cores, and returns their number."""
  from tff_fedsa.execution.in_process import contexts

  cores = len(os.sched_getaffinity(0))
  contexts.set_in_process_context(
    max_concurrent_clients=cores, intra_op_threads=1, jit_compile=jit_compile
  )
  return cores


def main(argv: Sequence[str]) -> None:
  """Measures and prints a table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  if _OTHER_TREE.value:
    _print_trees()
  elif _SPLITS.value:
    _print_splits()
  elif _SHARE_WEIGHTS.value:
    _print_variants(
      'shared',
      {
        part: {'share_weights': part}
        for part in ('none', *_SHARE_WEIGHTS.value)
      },
    )
  elif _WITHOUT_CHECK.value:
    _print_variants(
      'check', {'without': {'checked': False}, 'with': {'checked': True}}
    )
  elif _JIT_COMPILE.value:
    _print_compilers()
  else:
    _print_overheads()


if __name__ == '__main__':
  runner.run(main)
