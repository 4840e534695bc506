"""Elements of a client's data set: an image and a label, stacked."""

import collections
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.data import input_spec as input_spec_lib

# What the data sets of `tff.simulation.datasets` call images and labels.
_IMAGE_KEYS = ('x', 'image', 'pixels')
_LABEL_KEYS = ('y', 'label')

# Examples of a client at most; no memory is reserved for it.
_MANY = np.iinfo(np.int64).max


def input_spec_of(
  element_spec: Any,
  *,
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
) -> input_spec_lib.InputSpec:
  """Returns the input spec of the images in elements of a data set.

  Args:
    element_spec: `ClientData.element_type_structure`; see `stack`.
    scale: See `client_data.task_from_client_data`, as for all others.
    offset: See there.
    image_size: See there.
    channels: See there.

  Raises:
    ValueError: For unsuitable elements.
  """
  image_spec, label_spec = image_and_label(element_spec)
  shape = list(image_spec.shape)[label_spec.shape.rank :]
  if len(shape) == 2:
    shape.append(1)
  is_uint8 = image_spec.dtype == tf.uint8
  return input_spec_lib.InputSpec(
    shape=tuple(shape),
    dtype=image_spec.dtype.name,
    scale=scale if scale is not None else (1 / 127.5 if is_uint8 else 2.0),
    offset=-1.0 if offset is None else offset,
    size=None if image_size is None else (image_size, image_size),
    channels=channels,
  )


def stack(dataset: tf.data.Dataset) -> Any:
  """Returns the examples of a data set as a process takes them.

  Works eagerly and within computations.

  Args:
    dataset: Of single elements or of batches; an element is a dict of an image
      (`x`, `image` or `pixels`, with or without channels) and an integer label
      (`y` or `label`), or a pair of the two.

  Returns:
    Dict of `x`, images as stored `[n, height, width, channels]`, and `y`,
    int32 labels `[n]`.

  Raises:
    ValueError: For unsuitable elements.
  """
  _, label_spec = image_and_label(dataset.element_spec)
  if label_spec.shape.rank == 1:
    dataset = dataset.unbatch()
  whole = dataset.batch(_MANY).get_single_element()
  images, labels = image_and_label(whole)
  if images.shape.rank == 3:
    images = images[..., tf.newaxis]
  return collections.OrderedDict(x=images, y=tf.cast(labels, tf.int32))


def image_and_label(element: Any) -> tuple[Any, Any]:
  """Returns the two parts of an element, a batch, or the spec of either."""
  if isinstance(element, tuple) and len(element) == 2:
    return element
  keys = tuple(element) if isinstance(element, Mapping) else ()
  image_key = next((key for key in _IMAGE_KEYS if key in keys), None)
  label_key = next((key for key in _LABEL_KEYS if key in keys), None)
  if image_key is None or label_key is None:
    raise ValueError(
      f'Expected elements with one of {_IMAGE_KEYS} and one of {_LABEL_KEYS}, '
      f'or pairs (image, label), found {keys or element}.'
    )
  return element[image_key], element[label_key]
