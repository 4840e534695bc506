"""Sources: where images and labels come from, before any partition."""

import dataclasses
from typing import Optional

import numpy as np

from tff_fedsa.data import input_spec


@dataclasses.dataclass(frozen=True)
class Source:
  """All examples of a data set, train first.

  Attributes:
    name: For messages and file names.
    images: uint8 or float32[num_examples, height, width, channels].
    labels: int32[num_examples], in `[0, num_classes)`.
    class_names: One per class.
    num_train: How many of the first examples are the original train set; the
      rest is the original test set. None where the data set has no such split.
    scale: Models see `images * scale + offset`.
    offset: See `scale`.
    domains: int32[num_examples], in `[0, len(domain_names))`; where an example
      comes from. None where the data set has no domains.
    domain_names: One per domain.

  Raises (when constructed):
    ValueError: If arrays do not fit, labels or domains are out of range, or
      images hold NaN or infinity; the first bad example is named.
    TypeError: For images or labels of another dtype.
  """

  name: str
  images: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  num_train: Optional[int] = None
  scale: float = 1.0 / 127.5
  offset: float = -1.0
  domains: Optional[np.ndarray] = None
  domain_names: tuple[str, ...] = ()

  def __post_init__(self):
    _check_images(self.name, self.images)
    num_images = len(self.images)
    labels = _checked_indices(
      self.name, 'label', self.labels, num_images, self.num_classes
    )
    object.__setattr__(self, 'labels', labels)
    if self.domains is not None:
      domains = _checked_indices(
        self.name, 'domain', self.domains, num_images, len(self.domain_names)
      )
      object.__setattr__(self, 'domains', domains)
    elif self.domain_names:
      raise ValueError(
        f'{self.name}: domain_names {self.domain_names} without domains.'
      )

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def input_spec(self) -> input_spec.InputSpec:
    """How a model sees the images, without resizing."""
    _, height, width, channels = self.images.shape
    return input_spec.InputSpec(
      shape=(height, width, channels),
      dtype=self.images.dtype.name,
      scale=self.scale,
      offset=self.offset,
    )


def _check_images(name: str, images: np.ndarray) -> None:
  if images.dtype not in (np.uint8, np.float32):
    raise TypeError(
      f'{name}: expected images of dtype uint8 or float32, found '
      f'{images.dtype}. Convert them, e.g. images.astype(np.float32).'
    )
  if images.ndim != 4 or not images.size:
    raise ValueError(
      f'{name}: expected images [num_examples, height, width, channels], found '
      f'shape {images.shape}. Grey images need a last axis of 1.'
    )
  if images.dtype == np.float32:
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    if not finite.all():
      raise ValueError(
        f'{name}: {np.sum(~finite)} of {len(images)} images hold NaN or '
        f'infinity; the first is example {finite.argmin()}.'
      )


def _checked_indices(
  name: str, what: str, indices: np.ndarray, num_images: int, limit: int
) -> np.ndarray:
  """Returns labels or domains as int32[num_images], all in `[0, limit)`."""
  indices = np.asarray(indices)
  if not np.issubdtype(indices.dtype, np.integer):
    raise TypeError(f'{name}: expected integer {what}s, found {indices.dtype}.')
  if indices.shape != (num_images,):
    raise ValueError(
      f'{name}: expected one {what} for each of {num_images} images, found '
      f'{what}s of shape {indices.shape}.'
    )
  bad = (indices < 0) | (indices >= limit)
  if bad.any():
    first = bad.argmax()
    raise ValueError(
      f'{name}: expected {what}s in [0, {limit}), found '
      f'{indices[first]} at example {first} ({bad.sum()} such {what}s).'
    )
  return indices.astype(np.int32)


def from_arrays(
  images: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: Optional[int] = None,
  num_train: Optional[int] = None,
  name: str = 'arrays',
  scale: Optional[float] = None,
  offset: Optional[float] = None,
) -> Source:
  """Makes a source of own arrays.

  Args:
    images: uint8 or float32[num_examples, height, width(, channels)].
    labels: int[num_examples].
    num_classes: By default the largest label + 1.
    num_train: See `Source`.
    name: See `Source`.
    scale: See `Source`; by default 1 / 127.5 for uint8 and 1 for float32.
    offset: By default -1 for uint8 and 0 for float32.

  Raises:
    ValueError, TypeError: See `Source`.
  """
  images, labels = np.asarray(images), np.asarray(labels)
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if num_classes is None:
    num_classes = int(labels.max(initial=-1)) + 1
  is_uint8 = images.dtype == np.uint8
  if scale is None:
    scale = 1.0 / 127.5 if is_uint8 else 1.0
  if offset is None:
    offset = -1.0 if is_uint8 else 0.0
  return Source(
    name=name,
    images=images,
    labels=labels,
    class_names=tuple(map(str, range(num_classes))),
    num_train=num_train,
    scale=scale,
    offset=offset,
  )
