"""Which example belongs to which client: index maths only.

`draw` returns a whole partition for a seed. Its parts take labels and a random
stream and return index arrays, one per client; `split` divides them into train
and test. Randomness is one `np.random.RandomState(seed)` stream, the legacy
generator of the reference, so that the Dirichlet partition is the reference's,
index for index.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Optional

import numpy as np
from sklearn import model_selection

NAMES = ('iid', 'dirichlet', 'pathological')

# A draw that leaves a client with too few examples is repeated.
_MAX_DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Partition:
  """Indices into a data set, per client, in the order of training.

  Attributes:
    train: One int64 array per client.
    test: One int64 array per client. Clients may share test examples (the
      original test set), never train examples.

  Raises (when constructed):
    ValueError: If a client has no train or no test example, an index is
      negative or repeated, or an example is in train and test.
  """

  train: tuple[np.ndarray, ...]
  test: tuple[np.ndarray, ...]

  def __post_init__(self):
    for name in ('train', 'test'):
      arrays = tuple(np.asarray(a, np.int64) for a in getattr(self, name))
      object.__setattr__(self, name, arrays)
    if not self.train or len(self.train) != len(self.test):
      raise ValueError(
        'Expected train and test indices of the same clients, found '
        f'{len(self.train)} and {len(self.test)} clients.'
      )
    for name in ('train', 'test'):
      for client, indices in enumerate(getattr(self, name)):
        if indices.ndim != 1 or not indices.size:
          raise ValueError(
            f'Client {client} has no {name} example. Use fewer clients, a '
            'larger alpha or least_samples.'
          )
        if indices.min() < 0:
          raise ValueError(f'Client {client} has a negative {name} index.')
    all_train = np.concatenate(self.train)
    unique, counts = np.unique(all_train, return_counts=True)
    if counts.max() > 1:
      raise ValueError(
        'Expected each train example at one client, found index '
        f'{unique[counts.argmax()]} {counts.max()} times.'
      )
    for client, indices in enumerate(self.test):
      if np.unique(indices).size != indices.size:
        raise ValueError(f'Client {client} has a test index twice.')
      both = np.isin(indices, unique, assume_unique=True)
      if both.any():
        raise ValueError(
          f'Example {indices[both][0]} is a test example of client {client} '
          'and a train example.'
        )

  @property
  def num_clients(self) -> int:
    return len(self.train)

  def save(self, path: str) -> None:
    """Writes an `.npz` file of arrays `train_0`, `test_0`, `train_1`, …."""
    arrays = {}
    for name in ('train', 'test'):
      for client, indices in enumerate(getattr(self, name)):
        arrays[f'{name}_{client}'] = indices
    np.savez_compressed(path, **arrays)


def load(path: str) -> Partition:
  """Reads a partition file as `Partition.save` writes it.

  Args:
    path: An `.npz` file with integer arrays `train_i` and `test_i` for clients
      i = 0, 1, …; other arrays are ignored.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is not a partition file, or the partition is invalid.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'No partition file at {path!r}.')
  try:
    with np.load(path) as arrays:
      num_clients = sum(name.startswith('train_') for name in arrays.files)
      train, test = (
        tuple(arrays[f'{name}_{client}'] for client in range(num_clients))
        for name in ('train', 'test')
      )
  except (KeyError, OSError, ValueError, EOFError) as error:
    raise ValueError(
      f'{path!r} is not a partition file: expected an .npz file with arrays '
      f'train_0, test_0, train_1, …; {error}'
    ) from error
  return Partition(train, test)


def iid(
  labels: np.ndarray, num_clients: int, *, rng: np.random.RandomState
) -> list[np.ndarray]:
  """Shuffles all examples and deals out equal shares (sizes differ by <= 1)."""
  return np.array_split(rng.permutation(len(labels)), num_clients)


def dirichlet(
  labels: np.ndarray,
  num_clients: int,
  *,
  alpha: float,
  least_samples: int = 16,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Divides each class among clients by proportions ~ Dir(alpha).

  A client that already holds its fair share (num_examples / num_clients) gets
  nothing more. The whole draw is repeated until every client has at least
  `least_samples`.

  Source: `separate_data` in `dataset/utils/dataset_utils.py`,
  TsingZ0/PFLlib@d832e76 and lokinko/FedSA@75bf106 (whose `least_samples` is 1).

  Args:
    labels: int[num_examples], in `[0, num_classes)`.
    num_clients: M.
    alpha: Concentration > 0; smaller is more heterogeneous.
    least_samples: Examples, train and test together, of the smallest client.
    rng: The stream to draw from.

  Raises:
    ValueError: If no draw satisfies `least_samples`.
  """
  num_examples = len(labels)
  for _ in range(_MAX_DRAWS):
    shares: list[list[int]] = [[] for _ in range(num_clients)]
    for label in range(int(labels.max()) + 1):
      indices = np.where(labels == label)[0]
      rng.shuffle(indices)
      proportions = rng.dirichlet(np.repeat(alpha, num_clients))
      open_shares = [len(s) < num_examples / num_clients for s in shares]
      proportions = proportions * open_shares
      total = proportions.sum()
      if not total > 0:
        # Everything fell to clients that are full: not a valid draw.
        shares = [[] for _ in range(num_clients)]
        break
      cuts = (np.cumsum(proportions / total) * len(indices)).astype(int)[:-1]
      for share, part in zip(shares, np.split(indices, cuts)):
        share.extend(part.tolist())
    if min(map(len, shares)) >= max(least_samples, 1):
      return [np.array(share, np.int64) for share in shares]
  raise ValueError(
    f'No Dirichlet draw of {_MAX_DRAWS} gave each of {num_clients} clients at '
    f'least {least_samples} of {num_examples} examples at alpha={alpha}. Use '
    'fewer clients, a larger alpha or a smaller least_samples.'
  )


def pathological(
  labels: np.ndarray,
  num_clients: int,
  *,
  classes_per_client: int,
  balanced: bool = True,
  least_samples: int = 1,
  rng: np.random.RandomState,
) -> list[np.ndarray]:
  """Gives each client examples of a few classes only.

  Classes in order; class i goes to the first ceil(M / C * k) clients, by id,
  that have fewer than k classes. Balanced: equal blocks, the remainder to the
  last; else random sizes.

  Source: `separate_data` (`pat`), TsingZ0/PFLlib@d832e76.

  Args:
    labels: int[num_examples].
    num_clients: M.
    classes_per_client: k, at least 1.
    balanced: Whether blocks of a class are equal.
    least_samples: Where sizes are random, no block of a class is smaller than
      `least_samples / num_classes` or a tenth of an equal block.
    rng: The stream for sizes where they are random.

  Raises:
    ValueError: If some client or class gets nothing.
  """
  num_classes = int(labels.max()) + 1
  if not 1 <= classes_per_client <= num_classes:
    raise ValueError(
      f'Expected classes_per_client in [1, {num_classes}], found '
      f'{classes_per_client}.'
    )
  budgets = [classes_per_client] * num_clients
  shares: list[list[int]] = [[] for _ in range(num_clients)]
  clients_per_class = int(
    np.ceil(num_clients / num_classes * classes_per_client)
  )
  for label in range(num_classes):
    indices = np.where(labels == label)[0]
    takers = [c for c in range(num_clients) if budgets[c] > 0]
    takers = takers[:clients_per_class]
    if not takers:
      raise ValueError(
        f'No client is left for class {label}: {num_clients} clients of '
        f'{classes_per_client} classes cannot hold {num_classes} classes. Use '
        'more clients or a larger classes_per_client.'
      )
    size = len(indices) / len(takers)
    if balanced:
      sizes = [int(size)] * (len(takers) - 1)
    else:
      smallest = int(max(size / 10, least_samples / num_classes))
      sizes = rng.randint(smallest, int(size), len(takers) - 1).tolist()
    for taker, part in zip(
      takers, np.split(indices, np.cumsum(sizes)), strict=False
    ):
      shares[taker].extend(part.tolist())
      budgets[taker] -= 1
  empty = [client for client, share in enumerate(shares) if not share]
  if empty:
    raise ValueError(
      f'Clients {empty} got no example: {num_classes} classes of '
      f'{clients_per_class} clients each do not reach {num_clients} clients.'
    )
  return [np.array(share, np.int64) for share in shares]


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
      raise ValueError(
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
  alpha: float = 0.1,
  classes_per_client: int = 2,
  balanced: bool = True,
  least_samples: int = 16,
  train_fraction: float = 0.75,
  test: Optional[np.ndarray] = None,
) -> Partition:
  """Draws a partition, a pure function of its arguments.

  >>> labels = np.arange(80) % 4
  >>> drawn = draw(labels, 'pathological', 4, seed=1, classes_per_client=2)
  >>> [len(set(labels[train])) for train in drawn.train]
  [2, 2, 2, 2]
  >>> sum(len(train) for train in drawn.train)  # 75 % of each client's
  60

  Args:
    labels: int[num_examples], of the examples to be dealt out.
    name: One of `NAMES`.
    num_clients: M.
    seed: Of the stream.
    alpha: Of `dirichlet`.
    classes_per_client: Of `pathological`.
    balanced: Of `pathological`.
    least_samples: Of `dirichlet` and unbalanced `pathological`.
    train_fraction: Of `split`.
    test: Indices of a test set that all clients share, instead of a split.

  Raises:
    ValueError: For an unknown name or an impossible partition.
  """
  if name not in NAMES:
    raise ValueError(f'Unknown partition {name!r}; known: {", ".join(NAMES)}.')
  if not 1 <= num_clients <= len(labels):
    raise ValueError(
      f'Expected num_clients in [1, {len(labels)}] for {len(labels)} '
      f'examples, found {num_clients}.'
    )
  rng = np.random.RandomState(seed)
  if name == 'iid':
    shares = iid(labels, num_clients, rng=rng)
  elif name == 'dirichlet':
    shares = dirichlet(
      labels, num_clients, alpha=alpha, least_samples=least_samples, rng=rng
    )
  else:
    shares = pathological(
      labels,
      num_clients,
      classes_per_client=classes_per_client,
      balanced=balanced,
      least_samples=least_samples,
      rng=rng,
    )
  if test is not None:
    return Partition(tuple(shares), (test,) * num_clients)
  return split(shares, train_fraction=train_fraction, rng=rng)
