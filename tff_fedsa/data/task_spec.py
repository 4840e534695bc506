"""What determines a federated task."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, Optional

from tff_fedsa.data import datasets
from tff_fedsa.data import held_out
from tff_fedsa.data import normalization
from tff_fedsa.data import partition as partition_lib


@dataclasses.dataclass(frozen=True)
class TaskSpec:
  """Everything that determines a task, validated and JSON-able.

  Attributes:
    dataset: One of `datasets.NAMES`.
    data_dir: See `datasets.load`.
    download: See `datasets.load`.
    cache_dir: See `datasets.load`.
    num_clients: M.
    partition: One of `partition.NAMES`.
    alpha: Of the partitions that `partition.OPTIONS` says, as the next ones.
    classes_per_client: Classes that a client holds.
    balanced: Whether blocks of the pathological partition are equal.
    least_samples: Examples (train and test) of the smallest client.
    long_tail_rho: Before any partition, class c is cut to
      n_max * (1 / rho) ** (c / (C - 1)) examples; None keeps all. With a test
      set that is held out, only the rest is cut.
    clients_per_domain: Of the domain partition, by name of the domain,
      `num_clients` in all; None spreads clients evenly.
    domain_fraction: Of the domain partition: the share of its domain, test
      examples included, that each client gets; None deals all out.
    partition_file: Takes the partition from this file instead.
    seed: Of the partition and of `max_examples`.
    test_set: `split`: each client's examples are divided `train_fraction` to
      the rest (the paper's protocol, train and test set merged before);
      `original`: only the original train set is dealt out and every client is
      tested on the whole original test set; `per_domain`: a fifth of each
      domain is held out (of everything where there are no domains), and
      clients are tested on that of the domains that they train on. The last
      two are also what a global model is tested on.
    train_fraction: In (0, 1), of `split`.
    max_examples: Use only so many examples, drawn with the class proportions
      kept; None uses all. Where a test set is held out, it applies to the rest.
    max_test_examples: The same of each test set that is held out.
    image_size: Images are resized to this many pixels square in the client's
      step; None keeps their size.
    channels: Images get this many channels by repetition; None keeps them.
    normalization: One of `normalization.NAMES`.
    augment_crop_padding: See `InputSpec.crop_padding`.
    augment_flip: See `InputSpec.flip`.
  """

  dataset: str = 'digits'
  data_dir: Optional[str] = None
  download: bool = False
  cache_dir: Optional[str] = None
  num_clients: int = 20
  partition: str = 'dirichlet'
  alpha: float = 0.1
  classes_per_client: int = 2
  balanced: bool = True
  least_samples: int = 16
  long_tail_rho: Optional[float] = None
  clients_per_domain: Optional[Mapping[str, int]] = None
  domain_fraction: Optional[float] = None
  partition_file: Optional[str] = None
  seed: int = 0
  test_set: str = 'split'
  train_fraction: float = 0.75
  max_examples: Optional[int] = None
  max_test_examples: Optional[int] = None
  image_size: Optional[int] = None
  channels: Optional[int] = None
  normalization: str = 'half'
  augment_crop_padding: int = 0
  augment_flip: bool = False

  def __post_init__(self):
    _check_known('dataset', self.dataset, datasets.NAMES)
    _check_known('partition', self.partition, partition_lib.NAMES)
    _check_known('normalization', self.normalization, normalization.NAMES)
    _check_known('test_set', self.test_set, held_out.TEST_SETS)
    if not self.alpha > 0.0:
      raise ValueError(f'Expected alpha > 0, found {self.alpha}.')
    if self.long_tail_rho is not None and not self.long_tail_rho >= 1.0:
      raise ValueError(
        f'Expected long_tail_rho >= 1, found {self.long_tail_rho}.'
      )
    if self.domain_fraction is not None and not (
      0.0 < self.domain_fraction <= 1.0
    ):
      raise ValueError(
        f'Expected domain_fraction in (0, 1], found {self.domain_fraction}.'
      )
    if self.clients_per_domain is not None:
      total = sum(self.clients_per_domain.values())
      if min(self.clients_per_domain.values()) < 1 or total != self.num_clients:
        raise ValueError(
          'Expected clients_per_domain of 1 or more, '
          f'num_clients={self.num_clients} in all, found '
          f'{dict(self.clients_per_domain)}.'
        )
    if not 0.0 < self.train_fraction < 1.0:
      raise ValueError(
        f'Expected train_fraction in (0, 1), found {self.train_fraction}.'
      )
    for name in (
      'num_clients',
      'classes_per_client',
      'least_samples',
      'max_examples',
      'max_test_examples',
      'image_size',
      'channels',
    ):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'Expected {name} >= 1, found {value}.')
    for name in ('max_examples', 'max_test_examples'):
      if self.partition_file and getattr(self, name):
        raise ValueError(
          'A partition_file holds indices into the whole data set: it cannot '
          f'be used with {name}.'
        )

  def to_json_dict(self) -> dict[str, Any]:
    """Returns the fields; `TaskSpec(**d)` undoes it."""
    return dataclasses.asdict(self)


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
  if value not in known:
    raise ValueError(f'Unknown {name} {value!r}; known: {", ".join(known)}.')
