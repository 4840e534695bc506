"""Shows how a partition deals a data set out to clients, without training.

  tff-fedsa partition --dataset=digits --partition=dirichlet --alpha=0.5

Prints the examples and classes of each client, the clients of each class, and
the distance of each client's mix of classes from the mix of all clients. With
--output_dir=… it also writes these files:

  partition.npz  the indices; `tff-fedsa train --partition_file` takes them
  partition.png  a figure of the training examples per client and class
  counts.csv     training and test examples per client and class

The flags are those of `tff-fedsa train`. The same values give the same
partition. Flags that do not concern data are accepted and have no effect. So
presets work, e.g. --flagfile=fedsa.digits. docs/partitions.md defines the
partitions.
"""

from collections.abc import Sequence
import csv
import io
import os
import typing

from absl import flags

from launch import errors
from launch import experiment
from launch import runner

if typing.TYPE_CHECKING:
  from tff_fedsa.data import tasks
  from tff_fedsa.reporting import partition_summary

_EXPERIMENT = experiment.ExperimentFlags()
_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir',
  None,
  'Directory for partition.npz, partition.png and counts.csv. It is created if '
  'missing. Default: no files are written.',
)
_MAX_ROWS = flags.DEFINE_integer(
  'max_rows',
  40,
  'Most rows of a table. If there are more clients or classes, the table shows '
  'the largest and the smallest.',
  lower_bound=2,
)


def main(argv: Sequence[str]) -> None:
  """Draws and shows."""
  errors.refuse_arguments(argv)
  with errors.reported():
    show(_EXPERIMENT.task_spec(), _OUTPUT_DIR.value, _MAX_ROWS.value)


def show(
  spec: 'tasks.TaskSpec', directory: typing.Optional[str], max_rows: int
) -> None:
  """Prints the partition of a specification, and writes it.

  Args:
    spec: The task.
    directory: Directory of the files; None writes none.
    max_rows: See `partition_summary.to_text`.
  """
  # Slow to import: not for --help.
  from tff_fedsa.data import dealing
  from tff_fedsa.reporting import partition_summary

  source, partition = dealing.load(spec)
  summary = partition_summary.summarize(
    partition,
    source.labels,
    source.class_names,
    domains=source.domains,
    domain_names=source.domain_names,
  )
  how = 'its own clients' if spec.has_clients else spec.partition
  how = spec.partition_file or f'{how}, seed {spec.seed}'
  print(f'{source.name}, {how}')
  print(partition_summary.to_text(summary, max_rows=max_rows))
  for notice in (*source.notices, *partition.notices):
    print(notice)
  if directory is not None:
    os.makedirs(directory, exist_ok=True)
    partition.save(os.path.join(directory, 'partition.npz'))
    _write_counts(os.path.join(directory, 'counts.csv'), summary)
    _draw(os.path.join(directory, 'partition.png'), summary)
    print(
      f'\nwrote {os.path.join(directory, "partition.{npz,png}")}, counts.csv'
    )


def _write_counts(
  path: str, summary: 'partition_summary.PartitionSummary'
) -> None:
  from tff_fedsa import files

  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['client', 'class', 'name', 'train', 'test'])
  for client, counts in enumerate(summary.train_counts):
    for label, train in enumerate(counts):
      test = summary.test_counts[client, label]
      if train or test:
        writer.writerow(
          [client, label, summary.class_names[label], train, test]
        )
  files.write_bytes(path, text.getvalue().encode())


def _draw(path: str, summary: 'partition_summary.PartitionSummary') -> None:
  from tff_fedsa.reporting import figures  # Imports TFF.

  figures.save(
    figures.partition(summary.train_counts, summary.class_names), path
  )


if __name__ == '__main__':
  runner.run(main)
