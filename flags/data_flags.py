"""Flags of a data set: where it comes from, and how models see its images."""

import os
import typing

from absl import flags

from flags import holders

flags.disclaim_key_flags()


class DataFlags:
  """Defines the flags of a data set; `build()` returns fields of `TaskSpec`."""

  def __init__(self):
    self._dataset = flags.DEFINE_string(
      'dataset',
      'digits',
      'digits (scikit-learn, always there); from TFDS: cifar10, cifar100, '
      'fashion_mnist, mnist, svhn_cropped, sun397, emnist (emnist/byclass; or '
      'emnist/balanced, emnist/bymerge, emnist/digits, emnist/letters, '
      'emnist/mnist); folders of images: tiny_imagenet, ham10000, '
      'office_caltech10, digits5, domain_folder (domain/class/image.png under '
      '--data_dir), image_folder (class/image.png); npz (the file --data_dir '
      'with arrays x, y); from tff.simulation.datasets, with clients of their '
      'own: tff_emnist, tff_emnist_digits, tff_cifar100, tff_gldv2, '
      'tff_gldv2_160k. docs/data.md says where to get them and how to lay them '
      'out.',
    )
    self._data_dir = flags.DEFINE_string(
      'data_dir',
      None,
      'TFDS directory (default: $TFDS_DATA_DIR), folder of images, .npz file, '
      'or folder of tff.simulation.datasets (default: ~/.tff).',
    )
    self._download = flags.DEFINE_boolean(
      'download', False, 'Whether TFDS or TFF may download what is missing.'
    )
    self._data_cache_dir = flags.DEFINE_string(
      'data_cache_dir',
      None,
      'Where decoded images are kept, as long as their files do not change; '
      "'none' decodes them each time. Default: tff_fedsa in $XDG_CACHE_HOME or "
      '~/.cache.',
    )
    self._image_size = flags.DEFINE_integer(
      'image_size',
      None,
      'Resize images to this many pixels square (bilinear): those of folders '
      'and of sun397 when they are decoded, others in the step. Default: 64 '
      'for sun397, tiny_imagenet, ham10000 and office_caltech10; 32 for other '
      'folders; else as they are.',
      lower_bound=1,
    )
    self._channels = flags.DEFINE_integer(
      'channels',
      None,
      'Give images this many channels by repetition, e.g. 3 for grey images '
      'and a model for colour ones.',
      lower_bound=1,
    )
    self._normalization = flags.DEFINE_string(
      'normalization',
      'half',
      'How pixels are scaled: half, to [-1, 1] (reference); unit, to [0, 1]; '
      "imagenet or dataset, by each channel's mean and standard deviation over "
      "ImageNet or over this data set's train images.",
    )
    self._crop_padding = flags.DEFINE_integer(
      'augment_crop_padding',
      0,
      'In training, pad images with so many black pixels at each side, and '
      'crop them to their size anywhere. 0: off.',
      lower_bound=0,
    )
    self._flip = flags.DEFINE_boolean(
      'augment_flip', False, 'In training, mirror images at random.'
    )

  @property
  def dataset(self) -> str:
    """The name of the data set."""
    return self._dataset.value

  @property
  def has_clients(self) -> bool:
    """Whether the data set has clients of its own."""
    from tff_fedsa.data import datasets  # Imports TensorFlow.

    return self.dataset in datasets.NATURAL_NAMES

  def build(self) -> dict[str, typing.Any]:
    """Returns fields of `tasks.TaskSpec`, by name.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
    """
    from tff_fedsa.data import datasets  # Imports TensorFlow.

    if self.dataset == 'digits':
      holders.refuse_vain(
        [self._data_dir, self._download, self._data_cache_dir],
        'digits come with scikit-learn',
      )
    if self.dataset == 'npz':
      holders.refuse_vain(
        [self._download, self._data_cache_dir], 'npz is a file of yours'
      )
    if self.dataset in datasets.FOLDERS:
      holders.refuse_vain(
        [self._download], 'neither TFDS nor TFF has these images'
      )
    return dict(
      dataset=self.dataset,
      data_dir=self._data_dir.value,
      download=self._download.value,
      cache_dir=self._cache_dir(),
      image_size=self._image_size.value,
      channels=self._channels.value,
      normalization=self._normalization.value,
      augment_crop_padding=self._crop_padding.value,
      augment_flip=self._flip.value,
    )

  def _cache_dir(self) -> typing.Optional[str]:
    given = self._data_cache_dir.value
    if given == 'none' or self.dataset in ('digits', 'npz'):
      return None
    caches = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return os.path.expanduser(given or os.path.join(caches, 'tff_fedsa'))
