"""Which example belongs to which client: index maths only.

`draw` returns a whole partition for a seed. The functions in `partitions` take
labels and a random stream and return index arrays, one per client; `split`
divides them into train and test. Randomness is one
`np.random.RandomState(seed)` stream, the legacy generator of the reference, so
that the Dirichlet partition is the reference's, index for index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Optional

from etils import epy
import numpy as np

from tff_fedsa.data import labels as labels_lib
from tff_fedsa.data import partition_file
from tff_fedsa.data.partitions import client_dirichlet
from tff_fedsa.data.partitions import dirichlet
from tff_fedsa.data.partitions import domain
from tff_fedsa.data.partitions import extended_dirichlet
from tff_fedsa.data.partitions import long_tail
from tff_fedsa.data.partitions import nid1
from tff_fedsa.data.partitions import pathological
from tff_fedsa.data.partitions import quantity
from tff_fedsa.runs import errors

with epy.lazy_imports():
  from sklearn import model_selection

_DEAL: dict[str, Callable[..., list[np.ndarray]]] = {
  'iid': quantity.iid,
  'dirichlet': dirichlet.dirichlet,
  'pathological': pathological.pathological,
  'extended_dirichlet': extended_dirichlet.extended_dirichlet,
  'client_dirichlet': client_dirichlet.client_dirichlet,
  'nid1': nid1.nid1,
  'quantity_skew': quantity.quantity_skew,
}

# Which arguments of `draw` a partition uses.
OPTIONS = {
  'iid': (),
  'dirichlet': ('alpha', 'least_samples'),
  'pathological': ('classes_per_client', 'balanced', 'least_samples'),
  'extended_dirichlet': ('classes_per_client', 'alpha', 'least_samples'),
  'client_dirichlet': ('alpha',),
  'nid1': ('alpha',),
  'quantity_skew': ('alpha', 'least_samples'),
  'domain': (),
}

NAMES = tuple(OPTIONS)


@dataclasses.dataclass(frozen=True)
class Partition:
  """Indices into a data set, per client, in the order of training.

  Attributes:
    train: One int64 array per client.
    test: One int64 array per client. Clients may share test examples (the
      original test set), never train examples.
    global_test: By name, test examples of a global model; empty where there
      are only the clients' own.
    origin: Whose examples the indices count; None where that is not known.
    notices: Notices for the user.
    client_names: One per client, where they have names.

  Raises (when constructed):
    ValueError: If a client has no train or no test example, an index is no
      whole number, negative or repeated, or an example is in train and test.
  """

  train: tuple[np.ndarray, ...]
  test: tuple[np.ndarray, ...]
  global_test: Mapping[str, np.ndarray] = dataclasses.field(
    default_factory=dict
  )
  origin: Optional[partition_file.Origin] = None
  notices: tuple[str, ...] = ()
  client_names: tuple[str, ...] = ()

  def __post_init__(self):
    for name in ('train', 'test'):
      arrays = tuple(
        partition_file.checked_indices(
          own,
          f'Client {client} has',
          f'{name} example',
          'Use fewer clients, a larger alpha or least_samples.',
        )
        for client, own in enumerate(getattr(self, name))
      )
      object.__setattr__(self, name, arrays)
    global_test = {
      name: partition_file.checked_indices(
        own, f'Global test {name!r} has', 'example'
      )
      for name, own in self.global_test.items()
    }
    object.__setattr__(self, 'global_test', global_test)
    if not self.train or len(self.train) != len(self.test):
      raise errors.UserError(
        'Expected train and test indices of the same clients, found '
        f'{len(self.train)} and {len(self.test)} clients.'
      )
    all_train = np.concatenate(self.train)
    unique, counts = np.unique(all_train, return_counts=True)
    if counts.max() > 1:
      raise errors.UserError(
        'Expected each train example at one client, found index '
        f'{unique[counts.argmax()]} {counts.max()} times.'
      )
    tested = [(f'client {c}', own) for c, own in enumerate(self.test)]
    tested += [(f'global test {n!r}', own) for n, own in global_test.items()]
    for what, indices in tested:
      if np.unique(indices).size != indices.size:
        raise errors.UserError(
          f'{what[0].upper()}{what[1:]} has a test index twice.'
        )
      both = np.isin(indices, unique, assume_unique=True)
      if both.any():
        raise errors.UserError(
          f'Example {indices[both][0]} is a test example of {what} and a train '
          'example.'
        )

  @property
  def num_clients(self) -> int:
    return len(self.train)

  def save(self, path: str) -> None:
    """Writes an `.npz` file of arrays `train_0`, `test_0`, `train_1`, ….

    Args:
      path: Path of the file. Test sets of a global model are arrays
        `global_test_<name>`; the origin is `order`, `labels_sha256` and
        `class_counts`.

    Raises:
      OSError: If writing fails; an old file stays as it was.
    """
    partition_file.write(
      path, self.train, self.test, self.global_test, self.origin
    )


def load(
  path: str,
  *,
  labels: Optional[np.ndarray] = None,
  order: str = 'these data',
  ids_fn: Optional[Callable[[], np.ndarray]] = None,
) -> Partition:
  """Reads a partition file, see `partition_file.read`.

  Args:
    path: Path of the file.
    labels: int32[num_examples], of the data that it is used with; None checks
      nothing of it.
    order: Order of these data, see `partition_file.Origin`.
    ids_fn: Reads the ids of these data, text[num_examples].

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is not a partition file, the partition is invalid, or it
      was made for other data or another order; the file is named, and the array
      if it is one array.
  """
  data = None if labels is None else partition_file.origin_of(labels, order)
  found = partition_file.read(path, data, ids_fn=ids_fn)
  try:
    return Partition(*found)
  except ValueError as error:
    raise errors.UserError(f'{path!r}: {error}') from error


def split(
  shares: Sequence[np.ndarray],
  *,
  train_fraction: float = 0.75,
  rng: np.random.RandomState,
) -> Partition:
  """Divides each client's examples into train and test, not stratified.

  Source: `split_data`, TsingZ0/PFLlib@d832e76: scikit-learn's
  `train_test_split`, client after client, on one stream.

  Args:
    shares: One index array per client.
    train_fraction: In (0, 1).
    rng: The stream; for parity with the reference the one that the shares
      were drawn from.

  Raises:
    ValueError: If a client has fewer than two examples.
  """
  train, test = [], []
  for client, share in enumerate(shares):
    if len(share) < 2:
      raise errors.UserError(
        f'Client {client} has {len(share)} example(s): at least 2 are needed '
        'to split them into train and test. Use a larger least_samples.'
      )
    parts = model_selection.train_test_split(
      share, train_size=train_fraction, shuffle=True, random_state=rng
    )
    train.append(parts[0])
    test.append(parts[1])
  return Partition(tuple(train), tuple(test))


def draw(
  labels: np.ndarray,
  name: str,
  num_clients: int,
  *,
  seed: int,
  pool: Optional[np.ndarray] = None,
  long_tail_rho: Optional[float] = None,
  alpha: float = 0.1,
  classes_per_client: int = 2,
  balanced: bool = True,
  least_samples: int = 16,
  domains: Optional[np.ndarray] = None,
  clients_per_domain: Optional[Sequence[int]] = None,
  examples_per_client: Optional[Sequence[int]] = None,
  train_fraction: float = 0.75,
  test: Optional[np.ndarray | Callable[[np.ndarray], np.ndarray]] = None,
) -> Partition:
  """Draws a partition, a pure function of its arguments.

  >>> labels = np.arange(80) % 4
  >>> drawn = draw(labels, 'pathological', 4, seed=1, classes_per_client=2)
  >>> [len(set(labels[train])) for train in drawn.train]
  [2, 2, 2, 2]
  >>> sum(len(train) for train in drawn.train)  # 75 % of each client's
  60

  Args:
    labels: Whole numbers or text[num_examples], see `labels.for_partition`.
    name: One of `NAMES`.
    num_clients: M.
    seed: Seed of the stream.
    pool: Indices of the examples to be dealt out; all by default.
    long_tail_rho: Makes classes rare first, see `partitions.long_tail`.
    alpha: See `OPTIONS` for who uses it, as for the next ones.
    classes_per_client: See `OPTIONS`.
    balanced: See `OPTIONS`.
    least_samples: See `OPTIONS`.
    domains: int[num_examples], of `domain`.
    clients_per_domain: Clients of each domain (`domain`), `num_clients` in all.
    examples_per_client: Examples of each client (`domain`), one number per
      domain.
    train_fraction: Train share of each client's examples (`split`).
    test: Indices of a test set that all clients share, or a function that
      returns a client's given its train indices; instead of a split.

  Raises:
    ValueError: For an unknown name or an impossible partition.
  """
  if name not in NAMES:
    raise errors.UserError(
      f'Unknown partition {name!r}; known: {", ".join(NAMES)}.'
    )
  labels = labels_lib.for_partition(labels)
  rng = np.random.RandomState(seed)
  dealt = np.arange(len(labels)) if pool is None else pool
  if long_tail_rho is not None:
    kept = long_tail.long_tail(labels[dealt], rho=long_tail_rho, rng=rng)
    dealt = dealt[kept]
  if not 1 <= num_clients <= len(dealt):
    raise errors.UserError(
      f'Expected num_clients in [1, {len(dealt)}] for {len(dealt)} examples, '
      f'found {num_clients}.'
    )
  if name == 'domain':
    if domains is None or clients_per_domain is None:
      raise errors.UserError('The domain partition needs domains.')
    own = domain.domain(
      domains[dealt],
      clients_per_domain,
      examples_per_client=examples_per_client,
      rng=rng,
    )
  else:
    options = {
      'alpha': alpha,
      'classes_per_client': classes_per_client,
      'balanced': balanced,
      'least_samples': least_samples,
    }
    own = _DEAL[name](
      labels[dealt],
      num_clients,
      **{option: options[option] for option in OPTIONS[name]},
      rng=rng,
    )
  shares = [dealt[indices] for indices in own]
  if test is None:
    return split(shares, train_fraction=train_fraction, rng=rng)
  if callable(test):
    return Partition(tuple(shares), tuple(map(test, shares)))
  return Partition(tuple(shares), (test,) * num_clients)
