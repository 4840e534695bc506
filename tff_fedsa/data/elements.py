"""Elements of a client's data set: an image and a label, stacked."""

import collections
from collections.abc import Mapping, Sequence
import re
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.runs import errors

# Names of images and labels in `tff.simulation.datasets`.
_IMAGE_KEYS = ('x', 'image', 'pixels')
_LABEL_KEYS = ('y', 'label')

# Examples of a client at most; no memory is reserved for it.
_MANY = np.iinfo(np.int64).max

# Dtypes of labels that int32 always holds.
_SMALL = (tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32)

# Text that TensorFlow adds to the messages of its kernels.
_NODES = re.compile(r'\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\](?: name: *)?')


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
  is_batched = _is_batched(image_spec.shape, label_spec.shape)
  shape = tuple(image_spec.shape)[is_batched:]
  if None in shape:
    raise errors.UserError(
      f'The size of images is unknown: {shape}. Resize them to one size in '
      'the pipeline, or tell TensorFlow: image.set_shape([height, width, '
      'channels]).'
    )
  return input_spec_for(
    shape,
    image_spec.dtype.name,
    scale=scale,
    offset=offset,
    image_size=image_size,
    channels=channels,
  )


def input_spec_for(
  shape: Sequence[int],
  dtype: str,
  *,
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
) -> input_spec_lib.InputSpec:
  """Returns the input spec of images of a shape.

  Args:
    shape: (height, width) or (height, width, channels).
    dtype: 'uint8' or 'float32'.
    scale: See `client_data.task_from_client_data`, as for all others.
    offset: See there.
    image_size: See there.
    channels: See there.

  Raises:
    ValueError: If no images are of this shape or dtype.
  """
  full: Any = (*shape, 1) if len(shape) == 2 else tuple(shape)
  is_uint8 = dtype == 'uint8'
  return input_spec_lib.InputSpec(
    shape=full,
    dtype=dtype,
    scale=scale if scale is not None else (1 / 127.5 if is_uint8 else 2.0),
    offset=-1.0 if offset is None else offset,
    size=None if image_size is None else (image_size, image_size),
    channels=channels,
  )


def stack(dataset: tf.data.Dataset) -> Any:
  """Returns the examples of a data set as a process takes them.

  Works eagerly and within computations.

  Args:
    dataset: Single elements or batches; an element is a dict of an image
      (`x`, `image` or `pixels`, with or without channels) and an integer label
      (`y` or `label`), or a pair of the two.

  Returns:
    Dict of `x`, images as stored `[n, height, width, channels]`, and `y`,
    int32 labels `[n]`.

  Raises:
    ValueError: For unsuitable elements.
  """
  image_spec, label_spec = image_and_label(dataset.element_spec)
  if _is_batched(image_spec.shape, label_spec.shape):
    dataset = dataset.unbatch()
  whole = dataset.batch(_MANY).get_single_element()
  images, labels = image_and_label(whole)
  if images.shape.rank == 3:
    images = images[..., tf.newaxis]
  return collections.OrderedDict(x=images, y=class_numbers(labels))


def class_numbers(labels: tf.Tensor) -> tf.Tensor:
  """Returns labels as int32, `[n]`; wrong ones fail where they are computed.

  Args:
    labels: Whole numbers of any dtype, `[n]` or `[n, 1]`.

  Raises:
    ValueError: If they are text.
    tf.errors.InvalidArgumentError: If they are fractional or too large.
  """
  if labels.shape.rank == 2:
    labels = tf.squeeze(labels, axis=1)
  if labels.dtype in _SMALL:
    return tf.cast(labels, tf.int32)
  if not (labels.dtype.is_integer or labels.dtype.is_floating):
    raise errors.UserError(
      f'Expected integer labels, found {labels.dtype.name}. Map them to class '
      'numbers in the pipeline.'
    )
  numbers = tf.cast(labels, tf.int32)
  is_same = tf.reduce_all(tf.equal(tf.cast(numbers, labels.dtype), labels))
  message = 'Expected labels that are whole numbers and fit into int32.'
  # Not tf.debugging.assert_equal, which is a conditional in graphs.
  check = tf.raw_ops.Assert(condition=is_same, data=[message])
  with tf.control_dependencies([] if check is None else [check]):
    return tf.identity(numbers)


def gather(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
  """Reads all examples of a data set; unlike `stack` it also explains failures.

  Args:
    dataset: See `stack`; ranks may be unknown, and labels of any dtype.

  Returns:
    Images `[n, height, width, channels]` and labels `[n]`, as they are.

  Raises:
    ValueError: If there is no example, images differ in size, the pipeline
      fails (its error is quoted), or elements are unsuitable.
  """
  image_spec, label_spec = image_and_label(dataset.element_spec)
  try:
    if None in (image_spec.shape.rank, label_spec.shape.rank):
      images, labels = _one_by_one(dataset)
    else:
      if _is_batched(image_spec.shape, label_spec.shape):
        dataset = dataset.unbatch()
      whole = dataset.batch(_MANY).get_single_element()
      images, labels = (part.numpy() for part in image_and_label(whole))
  except tf.errors.OpError as error:
    raise errors.UserError(_explained(dataset, error)) from error
  if images.ndim == 3:
    images = images[..., np.newaxis]
  return images, labels


def image_and_label(element: Any) -> tuple[Any, Any]:
  """Returns the two parts of an element, a batch, or the spec of either."""
  if isinstance(element, tuple) and len(element) == 2:
    return element
  keys = tuple(element) if isinstance(element, Mapping) else ()
  image_key = next((key for key in _IMAGE_KEYS if key in keys), None)
  label_key = next((key for key in _LABEL_KEYS if key in keys), None)
  if image_key is None or label_key is None:
    raise errors.UserError(
      f'Expected elements with one of {_IMAGE_KEYS} and one of {_LABEL_KEYS}, '
      f'or pairs (image, label), found {keys or element}.'
    )
  return element[image_key], element[label_key]


def _is_batched(image: tf.TensorShape, label: tf.TensorShape) -> bool:
  """Returns whether elements of these shapes are batches of examples."""
  if image.rank is None or label.rank is None:
    raise errors.UserError(
      'The shape of elements is unknown. Tell TensorFlow in the pipeline: '
      'image.set_shape([height, width, channels]), label.set_shape([]).'
    )
  if image.rank in (2, 3) and label.rank == 0:
    return False
  # A label for itself may be an array of one number.
  if image.rank in (2, 3) and label.rank == 1 and label[0] == 1:
    if image.rank == 2 or image[0] != 1:
      return False
  same = image.rank and label.rank and image[:1].is_compatible_with(label[:1])
  if image.rank in (3, 4) and same and (label.rank == 1 or label[1:] == [1]):
    return True
  raise errors.UserError(
    'Expected elements of an image [height, width, channels] and a label, or '
    f'batches of them, found shapes {image} and {label}.'
  )


def _one_by_one(
  dataset: tf.data.Dataset,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the examples of a data set whose shapes only the data tell."""
  images, labels = [], []
  for element in dataset:
    image, label = (np.asarray(part) for part in image_and_label(element))
    if not _is_batched(
      tf.TensorShape(image.shape), tf.TensorShape(label.shape)
    ):
      image, label = image[np.newaxis], label.reshape(1)
    images.append(image)
    labels.append(label.reshape(-1))
  if not images:
    raise errors.UserError('it has no example.')
  for number, image in enumerate(images):
    _check_same_size(images[0].shape[1:], image.shape[1:], number)
  return np.concatenate(images), np.concatenate(labels)


def _check_same_size(
  first: Sequence[Any], found: Sequence[Any], number: int
) -> None:
  if tuple(first) != tuple(found):
    raise errors.UserError(
      f'its images differ in size: {tuple(first)} at first, {tuple(found)} at '
      f'element {number}. Resize them to one size in the pipeline.'
    )


def _explained(dataset: tf.data.Dataset, error: tf.errors.OpError) -> str:
  """Returns why the elements of a data set could not be read at once."""
  first, number = None, 0
  try:
    for element in dataset:
      image, _ = image_and_label(element)
      first = image.shape if first is None else first
      _check_same_size(first, image.shape, number)
      number += 1
  except tf.errors.OpError as inner:
    return f'its pipeline fails at element {number}: {_said(inner)}'
  except errors.UserError as inner:
    return str(inner)
  if not number:
    return 'it has no example.'
  return f'its examples cannot be stacked: {_said(error)}'


def _said(error: tf.errors.OpError) -> str:
  """Returns the message of a kernel, without its place in the graph."""
  message = error.message.partition('Traceback (most recent')[0]
  return ' '.join(_NODES.sub('', message).split())
