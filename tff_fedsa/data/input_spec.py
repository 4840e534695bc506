"""Turns stored images into the input of a model."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

  from tff_fedsa.data import augmentation

_DTYPES = ('uint8', 'float32')

# Folded into the seed of a step; models and objectives take other numbers.
_AUGMENTATION = -2


@dataclasses.dataclass(frozen=True)
class InputSpec:
  """Images as stored, and their way into a model.

  Images stay in their stored dtype (uint8 takes a quarter of the memory and
  of the traffic) until the client's step calls `preprocess`.

  Attributes:
    shape: (height, width, channels) as stored.
    dtype: 'uint8' or 'float32', as stored.
    scale: The model sees `x * scale + offset`; the default maps [0, 255] to
      [-1, 1], i.e. (x / 255 - 0.5) / 0.5. One for all channels, or a tuple of
      one for each.
    offset: See `scale`.
    size: (height, width) that images are resized to, bilinearly, with
      half-pixel centers and without antialiasing; None keeps them.
    channels: A multiple of the stored channels, which are repeated; None keeps
      them.
    crop_padding: In training, images are padded with black by this many pixels
      of `model_shape` at each side and cropped to their size anywhere.
    flip: In training, every other image is mirrored, at random.

  Raises (when constructed):
    ValueError: If a value is out of range; it is named.
  """

  shape: tuple[int, int, int]
  dtype: str = 'uint8'
  scale: float | tuple[float, ...] = 1.0 / 127.5
  offset: float | tuple[float, ...] = -1.0
  size: Optional[tuple[int, int]] = None
  channels: Optional[int] = None
  crop_padding: int = 0
  flip: bool = False

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    if len(self.shape) != 3 or min(self.shape) < 1:
      raise errors.UserError(
        'Expected images of shape (height, width, channels), found '
        f'{self.shape}.'
      )
    if self.dtype not in _DTYPES:
      raise errors.UserError(
        f'Expected images of dtype uint8 or float32, found {self.dtype!r}.'
      )
    for name in ('scale', 'offset'):
      value = getattr(self, name)
      if isinstance(value, Iterable):
        object.__setattr__(self, name, tuple(map(float, value)))
      if np.shape(value) not in ((), self.shape[2:]):
        raise errors.UserError(
          f'Expected one {name}, or one for each of {self.shape[2]} channels, '
          f'found {value}.'
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
    if self.crop_padding < 0:
      raise errors.UserError(
        f'Expected crop_padding >= 0, found {self.crop_padding}.'
      )

  @property
  def model_shape(self) -> tuple[int, int, int]:
    """(height, width, channels) that a model gets."""
    return (*(self.size or self.shape[:2]), self.channels or self.shape[2])

  def preprocess(
    self, images: tf.Tensor, training_seed: Optional[tf.Tensor] = None
  ) -> tf.Tensor:
    """Returns images as a model sees them.

    Args:
      images: `dtype`[batch, *shape], as stored.
      training_seed: int32[2], of the step, in which images are augmented; None
        (evaluation) leaves them as they are.

    Returns:
      float32[batch, *model_shape].
    """
    images = tf.cast(images, tf.float32) * self.scale + self.offset
    if self.size is not None and self.size != self.shape[:2]:
      images = tf.image.resize(images, self.size, antialias=False)
    if training_seed is not None and (self.crop_padding or self.flip):
      images = augmentation.augment(
        images,
        tf.random.experimental.stateless_fold_in(training_seed, _AUGMENTATION),
        crop_padding=self.crop_padding,
        flip=self.flip,
        fill=self.offset,
      )
    if self.channels is not None:
      images = tf.tile(images, [1, 1, 1, self.channels // self.shape[2]])
    return images

  def to_json_dict(self) -> dict[str, Any]:
    """Returns the fields as JSON-able values; `InputSpec(**d)` undoes it."""
    return dataclasses.asdict(self)
