"""Flags of a task: data, partition, test set."""

import typing

from absl import flags

from flags import data_flags
from flags import holders

if typing.TYPE_CHECKING:
  from tff_fedsa.data import tasks

flags.disclaim_key_flags()


class TaskFlags:
  """Defines the flags of a task; `build()` returns a `tasks.TaskSpec`."""

  def __init__(self):
    self._data_flags = data_flags.DataFlags()
    self._num_clients = flags.DEFINE_integer(
      'num_clients', 20, 'Clients in all.', lower_bound=1
    )
    self._partition = flags.DEFINE_string(
      'partition',
      'dirichlet',
      'How examples are dealt out: iid; dirichlet (each class by --alpha); '
      'pathological (--classes_per_client in blocks); extended_dirichlet '
      '(--classes_per_client, each by --alpha); client_dirichlet (each '
      "client's mix of classes by --alpha, equal sizes); nid1 (dirichlet among "
      '10 workers each, cut into equal chunks); quantity_skew (sizes by '
      '--alpha); domain (--clients_per_domain). docs/partitions.md defines '
      'them, `python -m launch.partition` shows what they give.',
    )
    self._alpha = flags.DEFINE_float(
      'alpha',
      0.1,
      'Concentration of the Dirichlet draws of a partition; smaller is more '
      'heterogeneous.',
      lower_bound=1e-6,
    )
    self._classes_per_client = flags.DEFINE_integer(
      'classes_per_client',
      2,
      'Classes that a client holds (--partition=pathological or '
      'extended_dirichlet).',
      lower_bound=1,
    )
    self._balanced = flags.DEFINE_boolean(
      'balanced',
      True,
      'Whether the pathological partition cuts classes into equal blocks.',
    )
    self._least_samples = flags.DEFINE_integer(
      'least_samples',
      16,
      'Examples (train and test) of the smallest client; draws with fewer are '
      'repeated.',
      lower_bound=1,
    )
    self._long_tail_rho = flags.DEFINE_float(
      'long_tail_rho',
      None,
      'Before any partition, makes class c of C as rare as n_max * '
      '(1 / rho) ** (c / (C - 1)) training examples. Default: off.',
      lower_bound=1.0,
    )
    self._clients_per_domain = flags.DEFINE_list(
      'clients_per_domain',
      [],
      'With --partition=domain: how many clients each domain has, e.g. '
      'amazon:2,dslr:3. Default: --num_clients spread evenly.',
    )
    self._domain_fraction = flags.DEFINE_float(
      'domain_fraction',
      None,
      'With --partition=domain: the share of its whole domain that each client '
      'gets. Default: clients share all of it that is not held out.',
      lower_bound=1e-6,
      upper_bound=1.0,
    )
    self._partition_file = flags.DEFINE_string(
      'partition_file',
      None,
      'Takes the partition from this .npz file (arrays train_i, test_i) '
      'instead of drawing it.',
    )
    self._partition_seed = flags.DEFINE_integer(
      'partition_seed',
      0,
      'Of the partition and of --max_examples. Keep it over repeats that '
      'should see the same data.',
    )
    self._test_set = flags.DEFINE_string(
      'test_set',
      'split',
      'split: each client holds out 25 % of its own examples (the paper); '
      "original: every client is tested on the data set's own test set; "
      'per_domain: 20 % of each domain (of all examples where there are no '
      'domains) are held out, and clients are tested on those of their '
      'domains.',
    )
    self._train_fraction = flags.DEFINE_float(
      'train_fraction',
      0.75,
      "Share of a client's examples that it trains on (--test_set=split).",
      lower_bound=0.01,
      upper_bound=0.99,
    )
    self._max_examples = flags.DEFINE_integer(
      'max_examples',
      None,
      'Use only so many examples, class proportions kept; with '
      '--test_set=original or per_domain, of those that are not held out. '
      'Default: all.',
      lower_bound=1,
    )
    self._max_test_examples = flags.DEFINE_integer(
      'max_test_examples',
      None,
      'With --test_set=original or per_domain: use only so many examples of '
      'each test set, class proportions kept. Default: all.',
      lower_bound=1,
    )

  def check_global_test(self) -> None:
    """Checks that there is a test set for `--protocol=global`.

    Raises:
      flags.IllegalFlagValueError: If the clients hold out their own.
    """
    # A partition file says itself what is held out.
    if self._test_set.value == 'split' and not self._partition_file.value:
      raise flags.IllegalFlagValueError(
        "--protocol=global tests the averaged model on the data set's own test "
        'set: it needs --test_set=original, or --test_set=per_domain where '
        'there is none; found --test_set=split.'
      )

  def build(self) -> 'tasks.TaskSpec':
    """Returns the `tasks.TaskSpec`.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
      ValueError: If a value is unknown or out of range.
    """
    # Imports TensorFlow.
    from tff_fedsa.data import partition
    from tff_fedsa.data import tasks

    kind = self._partition.value
    of_draws = [
      self._partition,
      self._alpha,
      self._classes_per_client,
      self._balanced,
      self._least_samples,
      self._long_tail_rho,
      self._clients_per_domain,
      self._domain_fraction,
    ]
    if self._data_flags.has_clients:
      holders.refuse_vain(
        [
          *of_draws,
          self._partition_file,
          self._max_examples,
          self._max_test_examples,
        ],
        f'--dataset={self._data_flags.dataset} has clients of its own',
      )
    if self._partition_file.value:
      holders.refuse_vain(
        [
          *of_draws,
          self._num_clients,
          self._train_fraction,
          self._test_set,
          self._partition_seed,
        ],
        'the partition comes from --partition_file',
      )
    used = partition.OPTIONS.get(kind)
    if used is not None:  # Else TaskSpec says what is known.
      optional = (
        self._alpha,
        self._classes_per_client,
        self._balanced,
        self._least_samples,
      )
      holders.refuse_vain(
        [holder for holder in optional if holder.name not in used],
        f'--partition={kind}',
      )
    if kind != 'domain':
      holders.refuse_vain(
        [self._clients_per_domain, self._domain_fraction],
        f'--partition={kind}',
      )
    num_clients = self._num_clients.value
    clients_per_domain = self._by_domain()
    if clients_per_domain is not None:
      num_clients = sum(clients_per_domain.values())
      # A preset may say how many there are in all.
      if self._num_clients.value != num_clients:
        holders.refuse_vain(
          [self._num_clients], f'--clients_per_domain has {num_clients} clients'
        )
    test_set = self._test_set.value
    if test_set == 'split':
      holders.refuse_vain([self._max_test_examples], '--test_set=split')
    else:
      holders.refuse_vain([self._train_fraction], f'--test_set={test_set}')
    return tasks.TaskSpec(
      **self._data_flags.build(),
      num_clients=num_clients,
      partition=kind,
      alpha=self._alpha.value,
      classes_per_client=self._classes_per_client.value,
      balanced=self._balanced.value,
      least_samples=self._least_samples.value,
      long_tail_rho=self._long_tail_rho.value,
      clients_per_domain=clients_per_domain,
      domain_fraction=self._domain_fraction.value,
      partition_file=self._partition_file.value,
      seed=self._partition_seed.value,
      test_set=test_set,
      train_fraction=self._train_fraction.value,
      max_examples=self._max_examples.value,
      max_test_examples=self._max_test_examples.value,
    )

  def _by_domain(self) -> typing.Optional[dict[str, int]]:
    """Returns `--clients_per_domain` as a dict; None where it is not set."""
    pairs = [item.rpartition(':') for item in self._clients_per_domain.value]
    if not pairs:
      return None
    for name, _, count in pairs:
      if not name or not count.isdecimal():
        raise flags.IllegalFlagValueError(
          '--clients_per_domain: expected domain:clients, separated by commas, '
          f'found {",".join(self._clients_per_domain.value)!r}.'
        )
    return {name: int(count) for name, _, count in pairs}
