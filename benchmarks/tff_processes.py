"""Compares TFF's own processes in process and in the stock runtime.

  python -m benchmarks.tff_processes
  python -m benchmarks.tff_processes --processes=3 --only=fed_prox,mime

Each process starts anew, with another seed of Python's hashes and at other
addresses, and runs all cases of `benchmarks.tff_cases`. The first one also runs
what it has built in TFF's stock runtime (secure sums in the clear, as
everywhere here), and has TFF's worker execute what is compiled here. The
worker's kernels are of another build of TensorFlow than this process's, and
round differently. One more process runs all in the stock runtime again.

Printed is a table: in how many processes the results of a case were those of
the stock runtime, how nearly, and how nearly those of the worker that executed
what is compiled here. `--directory` keeps results, and goes on with what it
finds there.
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import traceback
from typing import Any

from absl import app
from absl import flags
import numpy as np

from launch import runner

_PROCESSES = flags.DEFINE_integer(
  'processes', 20, 'Fresh processes that run all cases.', lower_bound=1
)
_AT_A_TIME = flags.DEFINE_integer(
  'at_a_time', 1, 'Processes that run at a time.', lower_bound=1
)
_ONLY = flags.DEFINE_list('only', [], 'Cases with one of these in their name.')
_DIRECTORY = flags.DEFINE_string(
  'directory', '', 'Where results are kept; by default nowhere.'
)

# Result of a case: its arrays, or its error.
Results = Mapping[str, list[np.ndarray] | str]

# Runtimes of the first process, and of the one that repeats the stock runtime.
_ALL, _AGAIN = ('in_process', 'stock', 'worker'), ('stock',)
_PROGRAM = (
  'import sys; from benchmarks import tff_processes; '
  'tff_processes.run_here(sys.argv[1], sys.argv[2].split(","), sys.argv[3:])'
)


def run_here(
  path: str, runtimes: Sequence[str], only: Sequence[str] = ()
) -> None:
  """Runs cases in this process and writes their results to a file.

  Each case is built once and runs in all runtimes.

  Args:
    path: Path of the file.
    runtimes: `in_process`; `stock`; `worker`: compiled here, executed by TFF's
      worker.
    only: Parts of names; all cases if there are none.
  """
  from tff_fedsa.execution import imports

  imports.quickly('tensorflow_federated')
  import tensorflow as tf
  import tensorflow_federated as tff

  from benchmarks import tff_cases
  from tff_fedsa.execution import comparison
  from tff_fedsa.execution import native
  from tff_fedsa.execution.in_process import contexts

  # Ends the workers of the contexts that follow.
  native.set_native_context()
  create = {
    'in_process': lambda: contexts.create_in_process_context(
      secure_in_the_clear=True
    ),
    'stock': tff.backends.test.create_sync_test_cpp_execution_context,
    'worker': comparison.create_worker_context,
  }
  found = {runtime: create[runtime]() for runtime in runtimes}
  results: dict[str, dict[str, Any]] = {runtime: {} for runtime in runtimes}
  for name, case in chosen(tff_cases.cases(), only).items():
    run = None
    for runtime, context in found.items():
      tff.framework.set_default_context(context)
      try:
        run = run or case.build()
        leaves = tf.nest.flatten(run())
        results[runtime][name] = [np.asarray(leaf) for leaf in leaves]
      except Exception as error:
        traceback.print_exc()
        results[runtime][name] = f'{type(error).__name__}: {error}'
  native.stop_workers()
  whole = pathlib.Path(f'{path}.part')
  whole.write_bytes(pickle.dumps(results))
  whole.rename(path)


def chosen(cases: Mapping[str, Any], only: Sequence[str]) -> dict[str, Any]:
  """Returns the cases with one of `only` in their name, or all.

  A whole name means this case alone.
  """
  return {
    name: case
    for name, case in cases.items()
    if not only
    or name in only
    or any(part in name for part in only if part not in cases)
  }


def run_in_fresh_processes(
  num_processes: int,
  directory: str,
  *,
  again: bool = True,
  at_a_time: int = 1,
  only: Sequence[str] = (),
) -> tuple[list[Results], Results, list[Results]]:
  """Runs cases without results in fresh processes.

  Args:
    num_processes: Processes of the in-process runtime, >= 1.
    directory: Where results are written.
    again: Whether one more process runs them in the stock runtime.
    at_a_time: Processes that run at a time.
    only: See `run_here`.

  Returns:
    Results of the stock runtime, one mapping for each process; of the worker
    that executes what is compiled here; and in process.

  Raises:
    RuntimeError: If a process ends without results: what it wrote last.
  """

  def run(number: int, runtimes: Sequence[str]) -> Mapping[str, Results]:
    path = pathlib.Path(directory, f'{"_".join(runtimes)}_{number}')
    if not path.exists():
      with path.with_suffix('.log').open('w+') as log:
        ended = subprocess.run(
          [sys.executable, '-c', _PROGRAM, path, ','.join(runtimes), *only],
          env={
            **os.environ,
            'PYTHONHASHSEED': str(number),
            'PYTHONPATH': os.getcwd(),
          },
          stdout=log,
          stderr=log,
        )
        log.seek(0)
        if not path.exists():
          raise RuntimeError(
            f'A process ended with {ended.returncode}: {log.read()[-2000:]}'
          )
    return pickle.loads(path.read_bytes())

  with futures.ThreadPoolExecutor(at_a_time) as pool:
    first = pool.submit(run, 0, _ALL)
    repeated = [pool.submit(run, 1, _AGAIN)] if again else []
    ours = [
      pool.submit(run, number, ['in_process'])
      for number in range(1, num_processes)
    ]
    results = first.result()
    return (
      [results['stock'], *(each.result()['stock'] for each in repeated)],
      results['worker'],
      [
        results['in_process'],
        *(each.result()['in_process'] for each in ours),
      ],
    )


def difference(
  expected: list[np.ndarray] | str, found: list[np.ndarray] | str
) -> float:
  """Returns the largest difference, relative to the largest number.

  Returns:
    0.0 if all bits are equal, infinity if errors, dtypes or shapes differ, or
    anything that is no floating-point number.
  """
  if isinstance(expected, str) or isinstance(found, str):
    return np.inf
  if not same_kind(expected, found):
    return np.inf
  largest = 0.0
  for a, b in zip(expected, found):
    if a.tobytes() == b.tobytes() and a.dtype != object:
      continue
    if a.dtype.kind not in 'fc':
      if not np.array_equal(a, b):
        return np.inf
      continue
    scale = np.max(np.abs(a), initial=0.0)
    distance = np.max(np.abs(a - b), initial=0.0)
    if distance:
      largest = max(largest, float(distance / scale) if scale else np.inf)
  return largest


def same_kind(
  expected: list[np.ndarray] | str, found: list[np.ndarray] | str
) -> bool:
  """Returns whether results have the same dtypes and shapes, and are finite."""
  if isinstance(expected, str) or isinstance(found, str):
    return False
  return len(expected) == len(found) and all(
    a.dtype == b.dtype
    and a.shape == b.shape
    and (a.dtype.kind not in 'fc' or bool(np.all(np.isfinite(b))))
    for a, b in zip(expected, found)
  )


def is_right(case: Any, expected: Any, found: Any) -> bool:
  """Returns whether the results of a case fit those of the stock runtime."""
  if case.tolerance is None:
    return same_kind(expected, found)
  return difference(expected, found) <= case.tolerance


def table(
  cases: Mapping[str, Any],
  stock: Sequence[Results],
  worker: Results,
  ours: Sequence[Results],
) -> str:
  """Returns a Markdown table with one line per case."""
  lines = [
    '| | case | equal in | largest difference | in the worker | stock, again |',
    '|---|---|---|---|---|---|',
  ]
  for name, case in cases.items():
    expected = stock[0][name]
    right = sum(is_right(case, expected, results[name]) for results in ours)
    cells = [case.group, name, f'{right} of {len(ours)}']
    if case.tolerance is None:
      cells += [f'only in kind compared: {case.reason}', '', '']
    else:
      largest = max(difference(expected, results[name]) for results in ours)
      cells.append(_in_words(largest))
      if largest and case.reason:
        cells[-1] += f': {case.reason}'
      cells.append(_in_words(difference(expected, worker[name])))
      cells.append(_in_words(difference(expected, stock[-1][name])))
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def wrong_cases(
  cases: Mapping[str, Any],
  stock: Sequence[Results],
  worker: Results,
  ours: Sequence[Results],
) -> list[str]:
  """Returns the names of cases that differ from the stock runtime.

  In process by more than the case allows; in the worker by a bit, unless the
  stock runtime differs from itself.
  """
  wrong = []
  for name, case in cases.items():
    expected, again = stock[0][name], stock[-1][name]
    if not (
      all(is_right(case, expected, results[name]) for results in ours)
      and is_right(case, expected, worker[name])
      and (
        case.tolerance is None
        or case.draws
        or difference(expected, worker[name]) == 0.0
      )
      and is_right(case, expected, again)
    ):
      wrong.append(name)
  return wrong


def _in_words(found: float) -> str:
  return f'{found:.0e}' if found else 'bit for bit'


def main(argv: Sequence[str]) -> None:
  """Runs and prints a table. The status is 1 if a case differs."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  from benchmarks import tff_cases

  with tempfile.TemporaryDirectory() as temporary:
    directory = _DIRECTORY.value or temporary
    os.makedirs(directory, exist_ok=True)
    stock, worker, ours = run_in_fresh_processes(
      _PROCESSES.value,
      directory,
      at_a_time=_AT_A_TIME.value,
      only=_ONLY.value,
    )
  cases = chosen(tff_cases.cases(), _ONLY.value)
  print(table(cases, stock, worker, ours))
  wrong = wrong_cases(cases, stock, worker, ours)
  if wrong:
    print(f'\nNot equal: {"; ".join(wrong)}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  runner.run(main)
