"""How stored images become what a model sees."""

import dataclasses
from typing import Any, Optional

import numpy as np
import tensorflow as tf

_DTYPES = ('uint8', 'float32')


@dataclasses.dataclass(frozen=True)
class InputSpec:
  """Images as stored, and their way into a model.

  Images stay in their stored dtype (uint8 takes a quarter of the memory and
  of the traffic) until the client's step calls `preprocess`.

  Attributes:
    shape: (height, width, channels) as stored.
    dtype: 'uint8' or 'float32', as stored.
    scale: The model sees `x * scale + offset`; the default maps [0, 255] to
      [-1, 1], i.e. (x / 255 - 0.5) / 0.5.
    offset: See `scale`.
    size: (height, width) that images are resized to, bilinearly, with
      half-pixel centers and without antialiasing; None keeps them.
    channels: A multiple of the stored channels, which are repeated; None keeps
      them.

  Raises (when constructed):
    ValueError: If a value is out of range; it is named.
  """

  shape: tuple[int, int, int]
  dtype: str = 'uint8'
  scale: float = 1.0 / 127.5
  offset: float = -1.0
  size: Optional[tuple[int, int]] = None
  channels: Optional[int] = None

  def __post_init__(self):
    object.__setattr__(self, 'shape', tuple(int(n) for n in self.shape))
    if len(self.shape) != 3 or min(self.shape) < 1:
      raise ValueError(
        'Expected images of shape (height, width, channels), found '
        f'{self.shape}.'
      )
    if self.dtype not in _DTYPES:
      raise ValueError(
        f'Expected images of dtype uint8 or float32, found {self.dtype!r}.'
      )
    if not np.isfinite([self.scale, self.offset]).all() or self.scale == 0.0:
      raise ValueError(
        'Expected a finite scale other than 0 and a finite offset, found '
        f'scale={self.scale}, offset={self.offset}.'
      )
    if self.size is not None:
      object.__setattr__(self, 'size', tuple(int(n) for n in self.size))
      if len(self.size) != 2 or min(self.size) < 1:
        raise ValueError(f'Expected size (height, width), found {self.size}.')
    if self.channels is not None and (
      self.channels < 1 or self.channels % self.shape[2]
    ):
      raise ValueError(
        f'Expected channels to be a multiple of the {self.shape[2]} stored, '
        f'found {self.channels}.'
      )

  @property
  def model_shape(self) -> tuple[int, int, int]:
    """(height, width, channels) that a model gets."""
    return (*(self.size or self.shape[:2]), self.channels or self.shape[2])

  def preprocess(self, images: tf.Tensor) -> tf.Tensor:
    """Returns images as a model sees them.

    Args:
      images: `dtype`[batch, *shape], as stored.

    Returns:
      float32[batch, *model_shape].
    """
    images = tf.cast(images, tf.float32) * self.scale + self.offset
    if self.size is not None and self.size != self.shape[:2]:
      images = tf.image.resize(images, self.size, antialias=False)
    if self.channels is not None:
      images = tf.tile(images, [1, 1, 1, self.channels // self.shape[2]])
    return images

  def to_json_dict(self) -> dict[str, Any]:
    """Returns the fields as JSON-able values; `InputSpec(**d)` undoes it."""
    return dataclasses.asdict(self)
