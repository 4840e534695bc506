"""Trains FedSA, or another method, on one partitioned data set.

  tff-fedsa train --flagfile=fedsa.digits
  tff-fedsa train --algorithm=fedproto --total_rounds=20

The run's directory, {root_output_dir}/{experiment_name}, holds these files:

  flags.txt            every flag; also a --flagfile that repeats the run
  hparams.csv          the same flags as a table
  partition.npz        the indices of every client's train and test examples
  initial_anchors.npy  the first anchors, if the method has anchors
  metrics.csv          one row per evaluated round (docs/metrics.md)
  per_client.csv       the last evaluation, one row per client; with
                       --protocol=global per_test_set.csv, one row per domain
  checkpoints/         the server's state, all client states, the history
  tensorboard/         the metrics again: tensorboard --logdir=...
  figures/             curves, partition, clients, anchors or prototypes
  status.json          running, finished, stopped early, failed or interrupted
  run.lock             names the process that trains the run now
  summary.json         last, best and mean of the last 10 rounds, per classifier

With --directory_layout=by_kind the checkpoints are in
{root_output_dir}/checkpoints/{experiment_name}, TensorBoard's events in
.../logdir/..., and all other files in .../results/..., as in
google-research/federated.

The same command resumes the run after its latest checkpoint. The result equals
that of an uninterrupted run. A command with other flags is refused.
"""

from collections.abc import Sequence
import functools
import os

from launch import errors
from launch import experiment
from launch import runner
from tff_fedsa.execution import imports
from tff_fedsa.runs import directory

_EXPERIMENT = experiment.ExperimentFlags()


def main(argv: Sequence[str]) -> None:
  """Runs the experiment that the flags describe."""
  errors.refuse_arguments(argv)
  with errors.reported('interrupted; the same command resumes the run'):
    train()


def train() -> None:
  """Trains, and writes everything to the run's directory."""
  described = _EXPERIMENT.build()
  run = described.run_directory
  # Now, since what comes before it is owned takes a while.
  directory.refuse_owned(run)
  # Slow to import: not for --help.
  imports.quickly('tff_fedsa.runs.running')
  from tff_fedsa.reporting import summary
  from tff_fedsa.runs import running

  described.runtime.start(secure_in_the_clear=described.secure.secure)
  result = running.run_in_directory(
    described,
    progress=_EXPERIMENT.values()['progress'],
    say=functools.partial(print, flush=True),
    interrupted=errors.interrupted,
  )
  if result.stopped_early:
    patience = described.simulation.patience
    print(f'stopped early: no new best for {patience} rounds')
  for line in result.warnings:
    print(f'warning: {line}')
  print(summary.to_text(result.summary))
  print(f'figures: {os.path.join(run.figures, "*.png")}')


if __name__ == '__main__':
  runner.run(main)
