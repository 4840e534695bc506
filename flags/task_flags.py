"""Flags of the data: source, partition, test set."""

import typing

from absl import flags

from flags import holders

if typing.TYPE_CHECKING:
  from tff_fedsa.data import tasks

flags.disclaim_key_flags()


class TaskFlags:
  """Defines the flags of a task; `build()` returns a `tasks.TaskSpec`."""

  def __init__(self):
    self._dataset = flags.DEFINE_string(
      'dataset',
      'digits',
      'digits (scikit-learn, always there), a TFDS name (cifar10, cifar100, '
      'fashion_mnist, mnist), image_folder (class/image.png under --data_dir) '
      'or npz (the file --data_dir with arrays x, y).',
    )
    self._data_dir = flags.DEFINE_string(
      'data_dir',
      None,
      'TFDS directory (default: $TFDS_DATA_DIR), image folder or .npz file.',
    )
    self._download = flags.DEFINE_boolean(
      'download', False, 'Whether TFDS may download what is missing.'
    )
    self._num_clients = flags.DEFINE_integer(
      'num_clients', 20, 'Clients in all.', lower_bound=1
    )
    self._partition = flags.DEFINE_string(
      'partition',
      'dirichlet',
      'How examples are dealt out: iid, dirichlet (--alpha) or pathological '
      '(--classes_per_client).',
    )
    self._alpha = flags.DEFINE_float(
      'alpha',
      0.1,
      'Concentration of the dirichlet partition; smaller is more '
      'heterogeneous.',
      lower_bound=1e-6,
    )
    self._classes_per_client = flags.DEFINE_integer(
      'classes_per_client',
      2,
      'Classes that a client holds in the pathological partition.',
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
      "original: every client is tested on the data set's own test set.",
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
      'Use only so many examples, class proportions kept. Default: all.',
      lower_bound=1,
    )
    self._image_size = flags.DEFINE_integer(
      'image_size',
      None,
      'Resize images to this many pixels square (bilinear, in the step). '
      'Default: as they are; 32 for image_folder.',
      lower_bound=1,
    )
    self._channels = flags.DEFINE_integer(
      'channels',
      None,
      'Give images this many channels by repetition, e.g. 3 for grey images '
      'and a model for colour ones.',
      lower_bound=1,
    )

  def build(self) -> 'tasks.TaskSpec':
    """Returns the `tasks.TaskSpec`.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
      ValueError: If a value is unknown or out of range.
    """
    from tff_fedsa.data import tasks  # Imports TensorFlow.

    kind = self._partition.value
    if self._partition_file.value:
      holders.refuse_vain(
        [
          self._partition,
          self._alpha,
          self._classes_per_client,
          self._balanced,
          self._least_samples,
          self._num_clients,
          self._train_fraction,
          self._test_set,
          self._partition_seed,
        ],
        'the partition comes from --partition_file',
      )
    if kind != 'dirichlet':
      holders.refuse_vain([self._alpha], f'--partition={kind}')
    if kind != 'pathological':
      holders.refuse_vain(
        [self._classes_per_client, self._balanced], f'--partition={kind}'
      )
    if kind == 'iid':
      holders.refuse_vain([self._least_samples], '--partition=iid')
    if self._test_set.value == 'original':
      holders.refuse_vain([self._train_fraction], '--test_set=original')
    if self._dataset.value == 'digits':
      holders.refuse_vain(
        [self._data_dir, self._download], 'digits come with scikit-learn'
      )
    return tasks.TaskSpec(
      dataset=self._dataset.value,
      data_dir=self._data_dir.value,
      download=self._download.value,
      num_clients=self._num_clients.value,
      partition=kind,
      alpha=self._alpha.value,
      classes_per_client=self._classes_per_client.value,
      balanced=self._balanced.value,
      least_samples=self._least_samples.value,
      partition_file=self._partition_file.value,
      seed=self._partition_seed.value,
      test_set=self._test_set.value,
      train_fraction=self._train_fraction.value,
      max_examples=self._max_examples.value,
      image_size=self._image_size.value,
      channels=self._channels.value,
    )
