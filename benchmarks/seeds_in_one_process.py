"""Runs the seeds of a sweep's variants in one process, on few cores.

  SWEEP=flags/sweeps/collaboration_digits.toml
  python -m benchmarks.seeds_in_one_process --sweep=$SWEEP

`tff-fedsa sweep` starts a process for every run, which imports and traces for
longer than a small run computes. Here all seeds of a variant share the traced
computations, which no seed changes; initial weights, anchors and data are those
of the seed. Directories and numbers are those of `tff-fedsa sweep` with
--max_concurrent_clients=1 and --intra_op_threads=1. Finished runs are skipped.

Where a computation holds a seed (--dp_seed) or a method's first server model
depends on one (FedGen, FedGH, FedTGP), each seed gets a process of its own.
"""

from collections.abc import Sequence
import os
import time

from absl import app
from absl import flags

from benchmarks import shared_traces
from launch import errors
from launch import runner
from tff_fedsa import experiment as experiment_lib
from tff_fedsa.runs import directory
from tff_fedsa.sweeps import sweep_file
from tff_fedsa.sweeps import values

_SWEEP = flags.DEFINE_string('sweep', None, 'The sweep file.')
_ROOT = flags.DEFINE_string(
  'root_output_dir', 'runs', 'Where runs are written.'
)
_ONLY = flags.DEFINE_list('only', [], 'Patterns of variants; all by default.')
_SEEDS = flags.DEFINE_list('seeds', [], "Seeds in place of the file's.")
flags.mark_flag_as_required('sweep')

_LIMITS = {'max_concurrent_clients': 1, 'intra_op_threads': 1}


def main(argv: Sequence[str]) -> None:
  """Runs the sweep."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  with errors.reported():
    sweep = sweep_file.choose(
      sweep_file.read(_SWEEP.value), _SEEDS.value, _ONLY.value
    )
    for variant in sweep.variants:
      run_variant(sweep, variant, os.path.join(_ROOT.value, sweep.name))


def run_variant(sweep: sweep_file.Sweep, variant: str, root: str) -> None:
  """Runs all seeds of a variant that are not finished.

  Args:
    sweep: The sweep.
    variant: Name of the variant.
    root: Directory of the sweep.
  """
  base = experiment_lib.Experiment.from_arguments(
    [
      *values.arguments(_LIMITS),
      *values.arguments(sweep.flags),
      *values.arguments(sweep.variants[variant]),
    ]
  )
  of_seed = set(sweep.seed_flags) - set(base.ignored_flags())
  missing = {}
  for seed in sweep.seeds:
    path = os.path.join(root, variant, f'seed_{seed}')
    if directory.read_status(directory.RunDirectory(path)).state != (
      directory.FINISHED
    ):
      missing[path] = base.replace(**dict.fromkeys(of_seed, seed))
  if not missing:
    return
  # Before TensorFlow reads data: after that, its threads can't be limited.
  base.start_runtime()
  # The check of contributions knows the largest client.
  largest = max(missing.values(), key=lambda one: one.task.max_train_examples)
  base = largest.replace()
  for path, seeded in missing.items():
    started = time.monotonic()
    shared_traces.share_traces(base, seeded)
    result = seeded.run(path, progress=False)
    print(
      f'{path}: {result.summary["head"]["last"]:.4f}, '
      f'{time.monotonic() - started:.1f} s',
      flush=True,
    )


if __name__ == '__main__':
  runner.run(main)
