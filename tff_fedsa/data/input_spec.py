"""Turns stored inputs of any kind into the input of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.data import augmentation

DTYPES = ('uint8', 'float32', 'int32', 'int64')
_INTEGERS = ('int32', 'int64')

# What inputs are, in messages.
NAMES = {
  'image': 'images (height, width, channels)',
  'series': 'series (steps, channels)',
  'table': 'rows of a table',
  'tokens': 'tokens',
  'tensor': 'tensors of no known kind',
}

# What only inputs of these kinds have.
_OF_KINDS = {
  'size': ('image',),
  'channels': ('image',),
  'crop_padding': ('image', 'series'),
  'flip': ('image',),
  'jitter': ('series', 'table'),
  'scaling': ('series',),
  'token_dropout': ('tokens',),
}

# Folded into the seed of a step; models and objectives take other numbers.
_AUGMENTATION = -2


def kind_of(shape: Sequence[int], dtype: str) -> str:
  """Returns what inputs are, by their stored shape and dtype.

  Args:
    shape: Shape of one input.
    dtype: Its stored dtype.

  Returns:
    `image` (height, width, channels), `series` (steps, channels), `table` (a
    vector of columns), `tokens` (a vector of integers), or `tensor`.
  """
  if dtype in _INTEGERS:
    return 'tokens' if len(shape) == 1 else 'tensor'
  return {1: 'table', 2: 'series', 3: 'image'}.get(len(shape), 'tensor')


def _augmentation_seed(training_seed: tf.Tensor) -> tf.Tensor:
  return tf.random.experimental.stateless_fold_in(training_seed, _AUGMENTATION)


@dataclasses.dataclass(frozen=True)
class InputSpec:
  """Inputs as stored, one tensor for each example, and their way into a model.

  Inputs stay in their stored dtype (uint8 takes a quarter of the memory and
  of the traffic) until the client's step calls `preprocess`.

  Attributes:
    shape: Shape of one input as stored: (height, width, channels) of images,
      (steps, channels) of series, (columns,) of tables, (length,) of tokens,
      or any other.
    dtype: 'uint8', 'float32', 'int32' or 'int64', as stored.
    scale: The model sees `x * scale + offset`. One for all, or a tuple of one
      for each position of the last axis (channels, columns). Default: uint8 is
      mapped from [0, 255] to [-1, 1], i.e. (x / 255 - 0.5) / 0.5; float32 stays
      (1). Integers have no scale: the model sees them as int32.
    offset: See `scale`; by default -1 for uint8 and 0 for float32.
    size: (height, width) that images are resized to, bilinearly, with
      half-pixel centers and without antialiasing; None keeps them.
    channels: A multiple of the stored channels of images, which are repeated;
      None keeps them.
    crop_padding: In training, images are padded with black by this many pixels
      of `model_shape` at each side and cropped to their size anywhere; series
      likewise, with copies of their first and last step.
    flip: In training, every other image is mirrored, at random.
    jitter: In training, the standard deviation of noise that is added to series
      and tables as models see them.
    scaling: In training, the standard deviation of factors of mean 1, one for
      each series and channel.
    token_dropout: In training, the share of tokens that become padding.
    vocabulary_size: Number of different integers; they are in [0,
      vocabulary_size), and 0 is padding. None where the inputs are no integers.
    masked: Whether the last channel of series is a mask: 1 in their steps, and
      0 in those that pad their end. A model gets the mask as it is, and 0 in
      the other channels of padding.

  Raises (when constructed):
    ValueError: If a value is out of range; it is named.
  """

  shape: tuple[int, ...]
  dtype: str = 'uint8'
  scale: Any = None
  offset: Any = None
  size: Optional[tuple[int, int]] = None
  channels: Optional[int] = None
  crop_padding: int = 0
  flip: bool = False
  vocabulary_size: Optional[int] = None
  jitter: float = 0.0
  scaling: float = 0.0
  token_dropout: float = 0.0
  masked: bool = False

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    if not self.shape or min(self.shape) < 1:
      raise errors.UserError(
        'Expected inputs of one axis or more, found the shape '
        f'{self.shape}. One number for each example is a table of one column, '
        'x[:, None].'
      )
    if self.dtype not in DTYPES:
      raise errors.UserError(
        f'Expected inputs of dtype {", ".join(DTYPES)}, found {self.dtype!r}.'
      )
    is_uint8 = self.dtype == 'uint8'
    self._set_default('scale', 1.0 / 127.5 if is_uint8 else 1.0)
    self._set_default('offset', -1.0 if is_uint8 else 0.0)
    if self.masked:
      self._check_mask()
    for name in ('scale', 'offset'):
      value = getattr(self, name)
      if isinstance(value, Iterable):
        object.__setattr__(self, name, tuple(map(float, value)))
      if np.shape(value) not in ((), self.shape[-1:]):
        raise errors.UserError(
          f'Expected one {name}, or one for each of {self.shape[-1]} '
          f'{self.last_axis}, found {value}.'
        )
    if (
      not np.isfinite(self.scale).all()
      or not np.isfinite(self.offset).all()
      or not np.all(self.scale)
    ):
      raise errors.UserError(
        'Expected a finite scale other than 0 and a finite offset, found '
        f'scale={self.scale}, offset={self.offset}.'
      )
    if self.dtype in _INTEGERS and (self.scale, self.offset) != (1.0, 0.0):
      raise errors.UserError(
        f'Integers ({self.dtype}) are looked up, not scaled, found scale='
        f'{self.scale}, offset={self.offset}. Numbers of a table are float32: '
        'x.astype(np.float32).'
      )
    if self.vocabulary_size is not None and (
      self.dtype not in _INTEGERS or self.vocabulary_size < 1
    ):
      raise errors.UserError(
        'Expected vocabulary_size >= 1 of integer inputs, found '
        f'vocabulary_size={self.vocabulary_size} of {self.dtype}.'
      )
    self._check_of_kinds()

  def _set_default(self, name: str, value: float) -> None:
    if getattr(self, name) is None:
      object.__setattr__(self, name, value)

  def _check_mask(self) -> None:
    """Checks that there may be a mask, and keeps it from being scaled."""
    if self.kind != 'series' or self.dtype != 'float32' or self.shape[1] < 2:
      raise errors.UserError(
        'Expected masked inputs to be series of float32 with a channel or more '
        f'beside the mask, found {NAMES[self.kind]} of shape {self.shape} '
        f'({self.dtype}).'
      )
    if (self.scale, self.offset) != (1.0, 0.0):
      for name, of_mask in (('scale', 1.0), ('offset', 0.0)):
        values = getattr(self, name)
        if not isinstance(values, Iterable):
          values = (values,) * (self.shape[1] - 1)
        # One for each channel, perhaps with that of the mask already.
        values = (*tuple(values)[: self.shape[1] - 1], of_mask)
        object.__setattr__(self, name, values)

  def _check_of_kinds(self) -> None:
    """Checks what only some kinds of inputs have."""
    for name, kinds in _OF_KINDS.items():
      if getattr(self, name) and not self.may_have(name):
        raise errors.UserError(
          f'Only {" and ".join(NAMES[kind] for kind in kinds)} have {name}; '
          f'found inputs of shape {self.shape} ({self.dtype}), which are '
          f'{NAMES[self.kind]}.'
        )
    if self.size is not None:
      object.__setattr__(self, 'size', tuple(int(n) for n in self.size))
      if len(self.size) != 2 or min(self.size) < 1:
        raise errors.UserError(
          f'Expected size (height, width), found {self.size}.'
        )
    if self.channels is not None and (
      self.channels < 1 or self.channels % self.shape[2]
    ):
      raise errors.UserError(
        f'Expected channels to be a multiple of the {self.shape[2]} stored, '
        f'found {self.channels}.'
      )
    for name in ('crop_padding', 'jitter', 'scaling', 'token_dropout'):
      if not getattr(self, name) >= 0:
        raise errors.UserError(
          f'Expected {name} >= 0, found {getattr(self, name)}.'
        )
    if self.token_dropout >= 1:
      raise errors.UserError(
        f'Expected token_dropout < 1, found {self.token_dropout}.'
      )

  @property
  def kind(self) -> str:
    """What the inputs are, see `kind_of`."""
    return kind_of(self.shape, self.dtype)

  @property
  def last_axis(self) -> str:
    """Name of what has a scale of its own, in the plural."""
    return 'columns' if self.kind == 'table' else 'channels'

  @property
  def model_shape(self) -> tuple[int, ...]:
    """Shape of one input that a model gets."""
    if self.kind != 'image':
      return self.shape
    return (*(self.size or self.shape[:2]), self.channels or self.shape[2])

  @property
  def model_dtype(self) -> str:
    """Dtype that a model gets: 'int32' of integers, 'float32' of others."""
    return 'int32' if self.dtype in _INTEGERS else 'float32'

  def describe(self) -> str:
    """Says in words what the inputs are and what models see of them."""
    shape = ', '.join(map(str, self.shape))
    text = f'{NAMES[self.kind]}, {self.dtype}[{shape}]'
    if self.vocabulary_size is not None:
      return f'{text}, a vocabulary of {self.vocabulary_size}'
    if self.masked:
      text = f'{text}, the last of them a mask'
    if isinstance(self.scale, tuple):
      return f'{text}, each of its {self.last_axis} scaled by its own numbers'
    if (self.scale, self.offset) == (1.0, 0.0):
      return f'{text}, as stored'
    return f'{text}, x * {self.scale:g} + {self.offset:g}'

  def may_have(self, option: str) -> bool:
    """Returns whether inputs of this kind can have an option of some kinds."""
    return self.kind in _OF_KINDS[option]

  def having(self, **options: Any) -> InputSpec:
    """Returns the spec with other fields."""
    return dataclasses.replace(self, **options)

  def preprocess(
    self, inputs: tf.Tensor, training_seed: Optional[tf.Tensor] = None
  ) -> tf.Tensor:
    """Returns inputs as a model sees them.

    Args:
      inputs: `dtype`[batch, *shape], as stored.
      training_seed: int32[2], of the step, in which inputs are augmented; None
        (evaluation) leaves them as they are.

    Returns:
      `model_dtype`[batch, *model_shape].
    """
    if self.dtype in _INTEGERS:
      tokens = tf.cast(inputs, tf.int32)
      if training_seed is not None and self.token_dropout:
        tokens = augmentation.drop_tokens(
          tokens, _augmentation_seed(training_seed), rate=self.token_dropout
        )
      return tokens
    inputs = tf.cast(inputs, tf.float32) * self.scale + self.offset
    if self.masked:
      inputs *= inputs[..., -1:]
    if self.size is not None and self.size != self.shape[:2]:
      inputs = tf.image.resize(inputs, self.size, antialias=False)
    if training_seed is not None and self.is_augmented:
      inputs = self._augment(inputs, _augmentation_seed(training_seed))
    if self.channels is not None:
      inputs = tf.tile(inputs, [1, 1, 1, self.channels // self.shape[2]])
    return inputs

  @property
  def is_augmented(self) -> bool:
    """True if a training step changes inputs at random."""
    return any(
      (
        self.crop_padding,
        self.flip,
        self.jitter,
        self.scaling,
        self.token_dropout,
      )
    )

  def _augment(self, inputs: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    if self.kind == 'image':
      return augmentation.augment(
        inputs,
        seed,
        crop_padding=self.crop_padding,
        flip=self.flip,
        fill=self.offset,
      )
    return augmentation.augment_numbers(
      inputs,
      seed,
      crop_padding=self.crop_padding,
      scaling=self.scaling,
      jitter=self.jitter,
      masked=self.masked,
    )

  def to_json_dict(self) -> dict[str, Any]:
    """Returns the fields as JSON-able values; `InputSpec(**d)` undoes it."""
    return dataclasses.asdict(self)
