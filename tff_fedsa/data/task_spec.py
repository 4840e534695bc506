"""Description of a federated task: data set, partition and test set."""

from collections.abc import Mapping
import dataclasses
import os
from typing import Annotated, Any, Optional

from tff_fedsa import settings
from tff_fedsa.data import datasets
from tff_fedsa.data import generators
from tff_fedsa.data import held_out
from tff_fedsa.data import images
from tff_fedsa.data import normalization as normalization_lib
from tff_fedsa.data import partition as partition_lib
from tff_fedsa.data import texts
from tff_fedsa.data.readers import pamap2

# Settings of tables, and data sets of texts that are no files.
_OF_TABLES = (
  'label_column',
  'client_column',
  'text_column',
  'image_column',
  'text_with_columns',
  'drop_columns',
)
_OF_TEXTS = ('text_clients', datasets.TFDS)
_OF_SERIES = ('parquet', datasets.TFDS)
_OF_TFDS = ('tfds_name', 'input_key', 'label_key')
_OF_PARTITIONS = ('alpha', 'classes_per_client', 'balanced', 'least_samples')
_OF_DOMAINS = ('clients_per_domain', 'domain_fraction')
_OF_DRAWS = ('partition', *_OF_PARTITIONS, 'long_tail_rho', *_OF_DOMAINS)

# What own arrays and tables do not have, and clients of their own do not.
OF_FILES = (
  'dataset',
  'data_dir',
  'download',
  'cache_dir',
  'alpha_background',
  'window_length',
  *_OF_TABLES,
  *_OF_TFDS,
  *_OF_DOMAINS,
)
OF_CLIENTS = (*_OF_DRAWS, 'num_clients', 'partition_file', 'max_examples')


@dataclasses.dataclass(frozen=True)
class TaskSpec(settings.Settings):
  """The data set, its partition and how models see the images.

  Attributes:
    dataset: Always there are digits, wine and breast_cancer (scikit-learn), and
      sensor_clients and text_clients (made by formulas); from TFDS: cifar10,
      cifar100, fashion_mnist, mnist, svhn_cropped, sun397, emnist
      (emnist/byclass; or emnist/balanced, emnist/bymerge, emnist/digits,
      emnist/letters, emnist/mnist), and tfds (any other, `tfds_name`); folders
      of images: tiny_imagenet, ham10000,
      office_caltech10, digits5, domain_folder (domain/class/image.png under
      `data_dir`), image_folder (class/image.png); folders of sensors and
      texts: har, pamap2, ag_news, sogou_news, shakespeare; npz (the file
      `data_dir` with arrays x, y); csv and parquet (the file `data_dir`, a
      table); har, pamap2, shakespeare and camelyon17 (images) have clients of
      their own, and from
      tff.simulation.datasets tff_emnist, tff_emnist_digits, tff_cifar100,
      tff_gldv2, tff_gldv2_160k. docs/data.md says where to get them and how to
      lay them out.
    data_dir: TFDS directory (default: $TFDS_DATA_DIR), folder of the files,
      file (npz, csv, parquet), or folder of tff.simulation.datasets (default:
      ~/.tff).
    download: Whether TFDS or TFF may download what is missing.
    cache_dir: Directory of decoded images and recordings, which are kept until
      their files change; 'none' decodes them each time. Default: tff_fedsa in
      $XDG_CACHE_HOME or ~/.cache.
    image_size: Resize images to squares of this many pixels (bilinear): images
      of files and of sun397 when they are decoded, others in the step. Default:
      64 for sun397, tiny_imagenet, ham10000 and office_caltech10; 32 for other
      folders and `image_column`; other images keep their size.
    alpha_background: Colour behind transparent images of files: a name such as
      white or black, or #rrggbb.
    channels: Repeat channels up to this number, e.g. 3 for grey images and a
      model for colour images. Default: images keep their channels.
    label_column: Column of a table that has the labels.
    client_column: Column of a table that says whose row it is. Default: rows
      are dealt out.
    text_column: Column of a table with texts, which are the inputs instead of
      all other columns; or several such columns with commas between them, each
      an input with the same vocabulary, e.g. premise,hypothesis. Default: the
      other columns are the inputs.
    image_column: Column of a table with names of image files, relative to the
      folder of the table. They are the inputs instead of all other columns,
      beside `text_column` if that is given.
    text_with_columns: Whether the other columns are an input of their own,
      beside `text_column` or `image_column`. Default: they are left out.
    drop_columns: Columns of a table to leave out.
    vocabulary_size: Words of texts, padding and unknown ones among them: the
      most frequent ones of the clients' train examples, >= 3.
    vocabulary_file: Text file with the words of a vocabulary, one on each line.
      Default: the words of the clients' train examples.
    sequence_length: Words of a text at most, and tokens of an example where
      they differ in number; the rest is cut off, >= 1.
    series_length: Steps that series are padded or cut to, with a mask, >= 1.
      Default: if series differ in length, as many as the longest has; series of
      equal length stay as they are.
    embeddings_file: Text file of GloVe or word2vec with vectors of words, from
      which the embeddings of texts start. Default: they start at random.
    tfds_name: Name of a data set of TFDS, perhaps with a config (dataset tfds
      only), e.g. imdb_reviews or glue/sst2.
    input_key: Keys of the features that are inputs (dataset tfds only), one, or
      several: numbers are the columns of a table, arrays and texts inputs of
      their own; outer/inner within another feature. Default: those that the
      data set names.
    label_key: Key of the feature that is the label (dataset tfds only).
      Default: the one that the data set names.
    window_length: Steps of the windows that the recordings of pamap2 are cut
      into, 10 ms each, >= 1.
    normalization: Scaling of inputs. half: pixels of uint8 to [-1, 1]
      (reference), float images as they come, tables and series of floats as
      dataset; unit: to [0, 1]; imagenet or dataset: by the mean and standard
      deviation of each channel or column over ImageNet, or over this data set's
      train images or the clients' train examples; none: as stored.
    augment_crop_padding: In training, pad images with this many black pixels at
      each side, series with this many copies of their first and last step, and
      crop them to their size at a random place. 0: off.
    augment_flip: In training, mirror images at random.
    augment_jitter: In training, add noise N(0, this value squared) to series
      and rows of tables, as models see them, >= 0. 0: off.
    augment_scaling: In training, multiply each channel of a series by a draw of
      N(1, this value squared), >= 0. 0: off.
    augment_token_dropout: In training, replace this share of the tokens of
      texts by padding, at random, in [0, 1). 0: off.
    num_clients: Number of clients, >= 1.
    partition: How examples are dealt out to clients. iid; dirichlet (each class
      by `alpha`); pathological (`classes_per_client` in blocks);
      extended_dirichlet (`classes_per_client`, each by `alpha`);
      client_dirichlet (each client's mix of classes by `alpha`, equal sizes);
      nid1 (dirichlet among 10 workers each, cut into equal chunks);
      quantity_skew (sizes by `alpha`); domain (`clients_per_domain`).
      docs/partitions.md defines them, and `tff-fedsa partition` shows
      their result.
    alpha: Concentration of the Dirichlet draws of a partition, > 0; smaller is
      more heterogeneous.
    classes_per_client: Classes that a client holds (partitions pathological
      and extended_dirichlet), >= 1.
    balanced: Whether the pathological partition cuts classes into equal blocks.
    least_samples: Examples (train and test) of the smallest client, >= 1;
      draws with fewer are repeated.
    long_tail_rho: Before any partition, class c of C keeps n_max * (1 / rho) **
      (c / (C - 1)) training examples, rho >= 1. Default: off.
    clients_per_domain: Clients of each domain (partition domain only), e.g.
      amazon:2,dslr:3. Default: `num_clients`, spread evenly.
    domain_fraction: Share of its whole domain that each client gets (partition
      domain only), in (0, 1]. Default: the clients of a domain divide all of it
      that is not held out.
    partition_file: A .npz file with a partition (arrays train_i, test_i), in
      place of drawing one.
    client_rotation: Rotate all images of a client by an angle of its own, drawn
      from U(-value, value), in degrees in [0, 180]. 0: off.
    client_tint: Share of a colour of its own in all images of a client, in
      [0, 1]: x * (1 - value + value * colour). Grey images get three channels.
      0: off.
    seed: Seed of the partition, of `max_examples`, and of the clients' angles
      and colours. Repeats on the same data need the same seed.
    test_set: Test examples. split: each client holds out 25 % of its own
      examples (the paper); original: every client is tested on the data set's
      own test set; per_domain: 20 % of each domain (of all examples without
      domains) are held out, and clients are tested on those of their domains.
    train_fraction: Share of a client's examples that it trains on (test set
      split only), in (0, 1).
    validation_fraction: Share of a client's train examples that it holds out
      to choose the best round and to stop early (--patience), in [0, 1). 0: the
      test examples choose them, as in the reference.
    test_classes: Test examples of a client (test set split only). own: its own,
      of the classes that it has; all: those of all clients, of all classes.
    max_examples: Use only this many examples, with the same proportions of
      classes; held-out test sets do not count. Default: all.
    max_test_examples: Use only this many examples of each held-out test set
      (test sets original and per_domain only), with the same proportions of
      classes. Default: all.
  """

  dataset: Annotated[str, settings.OneOf(datasets.names)] = 'digits'
  data_dir: Annotated[Optional[str], settings.Free()] = None
  download: Annotated[bool, settings.Free()] = False
  cache_dir: Annotated[
    Optional[str], settings.Flag('data_cache_dir'), settings.Free()
  ] = None
  image_size: Annotated[Optional[int], settings.AtLeast(1)] = None
  alpha_background: str = 'white'
  channels: Annotated[Optional[int], settings.AtLeast(1)] = None
  label_column: str = 'label'
  client_column: Optional[str] = None
  text_column: Optional[str] = None
  image_column: Optional[str] = None
  text_with_columns: bool = False
  drop_columns: tuple[str, ...] = ()
  vocabulary_size: Annotated[int, settings.AtLeast(3)] = texts.VOCABULARY_SIZE
  vocabulary_file: Optional[str] = None
  sequence_length: Annotated[int, settings.AtLeast(1)] = texts.SEQUENCE_LENGTH
  series_length: Annotated[Optional[int], settings.AtLeast(1)] = None
  embeddings_file: Optional[str] = None
  tfds_name: Optional[str] = None
  input_key: tuple[str, ...] = ()
  label_key: Optional[str] = None
  window_length: Annotated[int, settings.AtLeast(1)] = pamap2.WINDOW_LENGTH
  normalization: Annotated[str, settings.OneOf(normalization_lib.NAMES)] = (
    'half'
  )
  augment_crop_padding: Annotated[int, settings.AtLeast(0)] = 0
  augment_flip: bool = False
  augment_jitter: Annotated[float, settings.AtLeast(0.0)] = 0.0
  augment_scaling: Annotated[float, settings.AtLeast(0.0)] = 0.0
  augment_token_dropout: Annotated[
    float, settings.AtLeast(0.0), settings.Below(1.0)
  ] = 0.0
  num_clients: Annotated[int, settings.AtLeast(1)] = 20
  partition: Annotated[str, settings.OneOf(partition_lib.NAMES)] = 'dirichlet'
  alpha: Annotated[float, settings.Above(0.0)] = 0.1
  classes_per_client: Annotated[int, settings.AtLeast(1)] = 2
  balanced: bool = True
  least_samples: Annotated[int, settings.AtLeast(1)] = 16
  long_tail_rho: Annotated[Optional[float], settings.AtLeast(1.0)] = None
  clients_per_domain: Annotated[
    Optional[Mapping[str, int]], settings.Pairs(':', 'domain:clients')
  ] = None
  domain_fraction: Annotated[
    Optional[float], settings.Above(0.0), settings.AtMost(1.0)
  ] = None
  partition_file: Optional[str] = None
  client_rotation: Annotated[
    float, settings.AtLeast(0.0), settings.AtMost(180.0)
  ] = 0.0
  client_tint: Annotated[float, settings.AtLeast(0.0), settings.AtMost(1.0)] = (
    0.0
  )
  seed: Annotated[int, settings.Flag('partition_seed')] = 0
  test_set: Annotated[str, settings.OneOf(held_out.TEST_SETS)] = 'split'
  train_fraction: Annotated[float, settings.Above(0.0), settings.Below(1.0)] = (
    0.75
  )
  validation_fraction: Annotated[
    float, settings.AtLeast(0.0), settings.Below(1.0)
  ] = 0.0
  test_classes: Annotated[str, settings.OneOf(('own', 'all'))] = 'own'
  max_examples: Annotated[Optional[int], settings.AtLeast(1)] = None
  max_test_examples: Annotated[Optional[int], settings.AtLeast(1)] = None

  def __post_init__(self):
    super().__post_init__()
    if self.alpha_background != 'white':  # Pillow is for those who need it.
      try:
        images.colour(self.alpha_background)
      except ValueError as error:
        raise settings.SettingsError(f'`alpha_background`: {error}') from error
    if self.clients_per_domain is not None:
      self._check_clients_per_domain()
    for name in ('client_rotation', 'client_tint'):
      if getattr(self, name) and self.test_set != 'split':
        raise settings.SettingsError(
          f'`{name}` changes the images of each client, and test examples that '
          f'clients share are of no client: expected `test_set`=split, found '
          f'`test_set`={self.test_set}.'
        )
    for name in ('max_examples', 'max_test_examples'):
      if self.partition_file and getattr(self, name):
        raise settings.SettingsError(
          'A `partition_file` holds indices into the whole data set: it cannot '
          f'be used with `{name}`.'
        )

  @property
  def has_clients(self) -> bool:
    """True if the data set has clients of its own."""
    return (
      self._clients_are_given
      or self.dataset in datasets.NATURAL_NAMES
      or self.dataset in generators.NAMES
    )

  @property
  def _clients_are_given(self) -> bool:
    """True if the data say themselves how many clients there are."""
    folder = datasets.FOLDERS.get(self.dataset)
    return self.client_column is not None or bool(folder and folder.has_clients)

  def cache_directory(self) -> Optional[str]:
    """Returns where decoded images are kept; None decodes them each time."""
    if self.cache_dir == 'none' or self.dataset in datasets.SHIPPED:
      return None
    if self.dataset in datasets.FILES and self.image_column is None:
      return None
    caches = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return os.path.expanduser(
      self.cache_dir or os.path.join(caches, 'tff_fedsa')
    )

  def augmentation(self) -> dict[str, Any]:
    """Returns the fields of `InputSpec` that change inputs in training."""
    return {
      'crop_padding': self.augment_crop_padding,
      'flip': self.augment_flip,
      'jitter': self.augment_jitter,
      'scaling': self.augment_scaling,
      'token_dropout': self.augment_token_dropout,
    }

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    pointless: dict[str, str] = {}

    def add(names, because):
      pointless.update({name: because for name in names} | pointless)

    if self.dataset in datasets.SHIPPED:
      add(
        ['data_dir', 'download', 'cache_dir'],
        'digits come with scikit-learn'
        if self.dataset == 'digits'
        else f'`dataset`={self.dataset} needs no file',
      )
    if self.dataset in datasets.FILES:
      add(['download'], f'{self.dataset} is a file of yours')
      if self.image_column is None:
        add(['cache_dir'], f'{self.dataset} is a file of yours')
    if self.dataset != datasets.TFDS:
      add(_OF_TFDS, f'`dataset`={self.dataset} is not tfds')
    if self.dataset not in datasets.TABLES:
      add(_OF_TABLES, f'`dataset`={self.dataset} has no columns')
    if self.text_column is None and self.image_column is None:
      add(['text_with_columns'], 'there is no `text_column` or `image_column`')
    if not (
      self.text_column is not None
      or self.dataset in _OF_TEXTS
      or datasets.takes(self.dataset, 'sequence_length')
    ):
      add(
        [
          'vocabulary_size',
          'vocabulary_file',
          'sequence_length',
          'embeddings_file',
        ],
        'the inputs are no texts',
      )
    if self.dataset not in _OF_SERIES and not datasets.takes(
      self.dataset, 'series_length'
    ):
      add(['series_length'], f'series of {self.dataset} are of equal length')
    if self.vocabulary_file is not None:
      add(['vocabulary_size'], 'the words come from `vocabulary_file`')
    if self.dataset in datasets.FOLDERS:
      add(['download'], 'neither TFDS nor TFF has these files')
      for name in ('image_size', 'cache_dir'):
        if not datasets.takes(self.dataset, name):
          add([name], f'the reader of {self.dataset} takes none')
    if not datasets.takes(self.dataset, 'window_length'):
      add(['window_length'], f'`dataset`={self.dataset} has no recordings')
    if self.image_column is None and not datasets.takes(
      self.dataset, 'alpha_background'
    ):
      add(['alpha_background'], 'only files of images are laid on a colour')
    if self.has_clients:
      names = {*_OF_DRAWS, 'partition_file', 'max_examples'}
      if self.dataset in generators.NAMES:
        names -= {'alpha'}
      if self.dataset in datasets.NATURAL_NAMES:
        names |= {'max_test_examples'}
      if self._clients_are_given:
        names |= {'num_clients'}
      add(sorted(names), f'`dataset`={self.dataset} has clients of its own')
    if self.partition_file:
      add(
        [*_OF_DRAWS, 'num_clients', 'train_fraction', 'test_set', 'seed'],
        'the partition comes from `partition_file`',
      )
    used = partition_lib.OPTIONS[self.partition]
    because = f'`partition`={self.partition}'
    if self.dataset in generators.NAMES:
      used = ('alpha',)
    add([name for name in _OF_PARTITIONS if name not in used], because)
    if self.partition != 'domain':
      add(_OF_DOMAINS, because)
    of_other_tests = (
      'max_test_examples' if self.test_set == 'split' else 'train_fraction'
    )
    add([of_other_tests], f'`test_set`={self.test_set}')
    if self.test_set != 'split' and not self.partition_file:
      add(['test_classes'], f'`test_set`={self.test_set} has all classes')
    return pointless

  def check_global_test(self) -> None:
    """Checks that there may be a test set for the protocol `global`.

    Raises:
      SettingsError: If the clients hold out examples of their own.
    """
    # A partition file says itself what is held out.
    if self.test_set == 'split' and not self.partition_file:
      raise settings.SettingsError(
        "--protocol=global tests the averaged model on the data set's own test "
        'set: it needs `test_set`=original, or `test_set`=per_domain where '
        'there is none; found `test_set`=split.'
      )

  def to_json_dict(self) -> dict[str, Any]:
    """Returns the fields; `TaskSpec(**d)` undoes it."""
    return dataclasses.asdict(self)

  def _check_clients_per_domain(self):
    assert self.clients_per_domain is not None
    counts = dict(self.clients_per_domain)
    if not counts or min(counts.values()) < 1:
      raise settings.SettingsError(
        f'Expected `clients_per_domain` of 1 or more, found {counts}.'
      )
    total = sum(counts.values())
    default = type(self).__dataclass_fields__['num_clients'].default
    if self.num_clients not in (default, total):
      raise settings.SettingsError(
        f'`num_clients` would be ignored: `clients_per_domain` has {total} '
        f'clients, found `num_clients`={self.num_clients}.'
      )
    object.__setattr__(self, 'num_clients', total)
