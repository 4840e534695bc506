"""A partition in numbers: sizes, classes, heterogeneity."""

from collections.abc import Sequence
import dataclasses
from typing import Optional

import numpy as np

from tff_fedsa.data import partition as partition_lib


@dataclasses.dataclass(frozen=True)
class PartitionSummary:
  """Numbers of a partition, for training examples by default.

  Attributes:
    class_names: One per class.
    train_counts: int64[num_clients, num_classes].
    test_counts: int64[num_clients, num_classes], of test examples.
    domain_names: The domains of each client's training examples. Empty if the
      data set has no domains.
    global_tests: Number of test examples of a global model, by test set.
  """

  class_names: tuple[str, ...]
  train_counts: np.ndarray
  test_counts: np.ndarray
  domain_names: tuple[str, ...] = ()
  global_tests: dict[str, int] = dataclasses.field(default_factory=dict)

  @property
  def mixes(self) -> np.ndarray:
    """float64[num_clients, num_classes], each client's shares of classes."""
    return self.train_counts / self.train_counts.sum(axis=1, keepdims=True)

  @property
  def effective_classes(self) -> np.ndarray:
    """float64[num_clients], exp(entropy of the mix), in [1, num_classes].

    A client with equally many examples of k classes has the value k.
    """
    logs = np.log(
      self.mixes, out=np.zeros_like(self.mixes), where=self.mixes > 0
    )
    return np.exp(-np.sum(self.mixes * logs, axis=1))

  @property
  def distances(self) -> np.ndarray:
    """float64[num_clients], distance of the mix from the mix of all clients.

    This is the total variation: half the sum of absolute differences, in [0,
    1].
    """
    counts = self.train_counts.sum(axis=0)
    return np.abs(self.mixes - counts / counts.sum()).sum(axis=1) / 2


def summarize(
  partition: partition_lib.Partition,
  labels: np.ndarray,
  class_names: Sequence[str],
  *,
  domains: Optional[np.ndarray] = None,
  domain_names: Sequence[str] = (),
) -> PartitionSummary:
  """Counts the examples of a partition.

  Args:
    partition: Indices of examples per client.
    labels: int[num_examples], in `[0, num_classes)`.
    class_names: One per class.
    domains: int[num_examples], in `[0, len(domain_names))`, or None.
    domain_names: One per domain.
  """

  def count(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(
      [np.bincount(labels[own], minlength=len(class_names)) for own in parts]
    )

  held: tuple[str, ...] = ()
  if domains is not None:
    held = tuple(
      ' '.join(domain_names[domain] for domain in np.unique(domains[own]))
      for own in partition.train
    )
  return PartitionSummary(
    class_names=tuple(class_names),
    train_counts=count(partition.train),
    test_counts=count(partition.test),
    domain_names=held,
    global_tests={
      name: len(indices) for name, indices in partition.global_test.items()
    },
  )


def to_text(summary: PartitionSummary, *, max_rows: int = 40) -> str:
  """Returns the numbers as tables for a terminal.

  Args:
    summary: The numbers.
    max_rows: Most rows of a table. A longer table shows only the rows with the
      most and the fewest training examples.
  """
  return '\n\n'.join(
    [
      _overview(summary),
      _clients(summary, max_rows),
      _classes(summary, max_rows),
    ]
  )


def _overview(summary: PartitionSummary) -> str:
  sizes = summary.train_counts.sum(axis=1)
  classes = (summary.train_counts > 0).sum(axis=1)
  class_sizes = summary.train_counts.sum(axis=0)
  lines = [
    f'{len(sizes)} clients, {len(class_sizes)} classes, {sizes.sum()} training '
    'examples',
    'of all clients               min  median    mean     max',
    _spread('training examples', sizes, 0),
    _spread('test examples', summary.test_counts.sum(axis=1), 0),
    _spread('classes', classes, 0),
    _spread('effective classes', summary.effective_classes, 2),
    _spread('distance from the mix', summary.distances, 3),
    '(effective classes: exp of the entropy of their shares; distance: total '
    'variation, 0 is iid)',
  ]
  if summary.global_tests:
    sets = (f'{name} {size}' for name, size in summary.global_tests.items())
    lines.append(f'test sets of a global model: {", ".join(sets)}')
  nowhere = np.flatnonzero(class_sizes == 0)
  if nowhere.size:
    names = [summary.class_names[label] for label in nowhere[:10]]
    lines.append(
      f'no client trains on {nowhere.size} class(es): {", ".join(names)}'
      + (', …' if nowhere.size > 10 else '')
    )
  return '\n'.join(lines)


def _spread(what: str, values: np.ndarray, digits: int) -> str:
  return (
    f'  {what:<22}{values.min():>8.{digits}f}{np.median(values):>8.{digits}f}'
    f'{values.mean():>8.{max(digits, 1)}f}{values.max():>8.{digits}f}'
  )


def _clients(summary: PartitionSummary, max_rows: int) -> str:
  sizes = summary.train_counts.sum(axis=1)
  rows, note = _shown(sizes, max_rows)
  lines = [
    'client   train    test  classes  effective  distance  most examples'
    + ('       domain' if summary.domain_names else '')
  ]
  for client in rows:
    counts = summary.train_counts[client]
    largest = int(counts.argmax())
    most = f'{counts[largest]} of {summary.class_names[largest]}'
    domain = summary.domain_names[client] if summary.domain_names else ''
    lines.append(
      f'{client:>6} {sizes[client]:>7} '
      f'{summary.test_counts[client].sum():>7} {np.sum(counts > 0):>8} '
      f'{summary.effective_classes[client]:>10.2f} '
      f'{summary.distances[client]:>9.3f}  {most:<18}  {domain}'.rstrip()
    )
  return '\n'.join([*lines, *note])


def _classes(summary: PartitionSummary, max_rows: int) -> str:
  sizes = summary.train_counts.sum(axis=0)
  rows, note = _shown(sizes, max_rows)
  lines = [' class   train  clients  largest share  name']
  for label in rows:
    counts = summary.train_counts[:, label]
    share = counts.max() / max(sizes[label], 1)
    lines.append(
      f'{label:>6} {sizes[label]:>7} {np.sum(counts > 0):>8} {share:>14.3f}  '
      f'{summary.class_names[label]}'
    )
  return '\n'.join([*lines, *note])


def _shown(sizes: np.ndarray, max_rows: int) -> tuple[np.ndarray, list[str]]:
  """Returns the rows to show, and a note about the others."""
  if len(sizes) <= max_rows:
    return np.arange(len(sizes)), []
  order = np.argsort(-sizes, kind='stable')
  half = max_rows // 2
  shown = np.concatenate([order[: max_rows - half], order[len(order) - half :]])
  return shown, [
    f'  (the {max_rows - half} largest and the {half} smallest of {len(sizes)})'
  ]
