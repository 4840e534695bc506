"""Elements of a client's data set: an input and a label, stacked."""

import collections
from collections.abc import Mapping, Sequence
import re
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import inputs as inputs_lib
from tff_fedsa.data import packing
from tff_fedsa.runs import errors

# Names of inputs and labels in `tff.simulation.datasets`.
_IMAGE_KEYS = ('image', 'pixels')
_INPUT_KEYS = ('x', *_IMAGE_KEYS)
_LABEL_KEYS = ('y', 'label')

# Examples of a client at most; no memory is reserved for it.
_MANY = np.iinfo(np.int64).max

# Dtypes of labels that int32 always holds.
_SMALL = (tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32)

# Dtypes of inputs that are stored as another one.
_STORED_AS = {
  tf.as_dtype(name): tf.as_dtype(stored)
  for name, stored in inputs_lib.STORED_AS.items()
}

# Text that TensorFlow adds to the messages of its kernels.
_NODES = re.compile(r'\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\](?: name: *)?')


def input_spec_of(
  element_spec: Any,
  *,
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
  vocabulary_size: Optional[int | Mapping[str, int]] = None,
) -> input_spec_lib.InputSpec | packing.PackedSpec:
  """Returns the input spec of the inputs in elements of a data set.

  Args:
    element_spec: `ClientData.element_type_structure`; see `stack`.
    scale: See `input_spec_for`, as for all others.
    offset: See there.
    image_size: See there.
    channels: See there.
    vocabulary_size: See there; needed for integers. A dict by name, if there
      are several inputs.

  Raises:
    ValueError: For unsuitable elements.
  """
  input_element, label_spec = input_and_label(element_spec)
  is_batched = _is_batched(input_element, label_spec)
  if isinstance(input_element, Mapping):
    if (scale, offset) != (None, None):
      raise errors.UserError(
        'Several inputs have no scale or offset in common: scale them in the '
        'pipeline.'
      )
    options = {
      'size': None if image_size is None else (image_size, image_size),
      'channels': channels,
    }
    packed = _packed_spec_of(input_element, is_batched, vocabulary_size)
    return packed.having(**{k: value for k, value in options.items() if value})
  if isinstance(vocabulary_size, Mapping):
    raise errors.UserError(
      f'Expected one vocabulary_size of one input, found {vocabulary_size}.'
    )
  shape = tuple(input_element.shape)[is_batched:]
  dtype = _stored_dtype(input_element, shape, vocabulary_size)
  # An axis of examples, as `inputs.with_channels` expects it.
  stacked = inputs_lib.with_channels(
    np.empty((0, *shape), dtype.as_numpy_dtype),
    are_images=_are_images(element_spec),
  )
  return input_spec_for(
    stacked.shape[1:],
    dtype.name,
    scale=scale,
    offset=offset,
    image_size=image_size,
    channels=channels,
    vocabulary_size=vocabulary_size,
  )


def _packed_spec_of(
  inputs: Mapping[str, tf.TensorSpec],
  is_batched: bool,
  vocabulary_size: Optional[int | Mapping[str, int]],
) -> packing.PackedSpec:
  """Returns the spec of several inputs, in the order of their names."""
  sizes = {} if vocabulary_size is None else vocabulary_size
  if not isinstance(sizes, Mapping):
    raise errors.UserError(
      'Expected vocabulary_size by name of several inputs, found '
      f'{vocabulary_size}.'
    )
  parts = []
  for name, element in _sorted(inputs):
    if element.shape.rank is None:
      raise errors.UserError(f'The shape of the input {name!r} is unknown.')
    shape = tuple(element.shape)[is_batched:]
    try:
      _check_numbers(element.dtype)
      dtype = _stored_dtype(element, shape, sizes.get(name))
    except errors.UserError as error:
      raise errors.UserError(f'Input {name!r}: {error}') from error
    stored = inputs_lib.as_part(np.empty((0, *shape), dtype.as_numpy_dtype))
    spec = input_spec_for(
      stored.shape[1:], dtype.name, vocabulary_size=sizes.get(name)
    )
    parts.append((name, spec))
  return packing.PackedSpec(tuple(parts))


def _stored_dtype(
  element: tf.TensorSpec,
  shape: tuple[Any, ...],
  vocabulary_size: Optional[int],
) -> tf.DType:
  """Returns the dtype in which an input of a shape is stored."""
  if None in shape:
    raise errors.UserError(
      f'The size of inputs is unknown: {shape}. Resize or pad them to one size '
      'in the pipeline, or tell TensorFlow, e.g. image.set_shape([height, '
      'width, channels]).'
    )
  dtype = _STORED_AS.get(element.dtype, element.dtype)
  if dtype in (tf.int32, tf.int64) and vocabulary_size is None:
    raise errors.UserError(
      'Expected vocabulary_size, the number of different tokens, of integer '
      f'inputs {shape}; found none.'
    )
  return dtype


def _sorted(inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
  """Returns several inputs in the order in which they are packed.

  TFF keeps the order of a dict, `tf.data` does not always.
  """
  return sorted((str(name), value) for name, value in inputs.items())


def _check_numbers(dtype: tf.DType) -> None:
  if dtype == tf.string:
    raise errors.UserError(
      'Expected inputs of numbers, found text. Map text to numbers in the '
      'pipeline, e.g. by tf.keras.layers.TextVectorization.'
    )


def input_spec_for(
  shape: Sequence[int],
  dtype: str,
  *,
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  image_size: Optional[int] = None,
  channels: Optional[int] = None,
  vocabulary_size: Optional[int] = None,
) -> input_spec_lib.InputSpec:
  """Returns the input spec of inputs of a shape.

  Args:
    shape: Shape of one input.
    dtype: Its stored dtype.
    scale: Models see `x * scale + offset`; by default that of the dtype, see
      `InputSpec`.
    offset: See `scale`.
    image_size: Images are resized to this many pixels square in the step.
    channels: Images get this many channels by repetition.
    vocabulary_size: See `InputSpec`.

  Raises:
    ValueError: If no inputs are of this shape or dtype.
  """
  return input_spec_lib.InputSpec(
    shape=tuple(shape),
    dtype=dtype,
    scale=scale,
    offset=offset,
    size=None if image_size is None else (image_size, image_size),
    channels=channels,
    vocabulary_size=vocabulary_size,
  )


def stack(dataset: tf.data.Dataset) -> Any:
  """Returns the examples of a data set as a process takes them.

  Works eagerly and within computations.

  Args:
    dataset: Single elements or batches; an element is a dict of an input (`x`,
      `image` or `pixels`) and an integer label (`y` or `label`), or a pair of
      the two. Inputs of uint8, and those called `image` or `pixels`, may be
      images without channels. An input may be a dict of several inputs by name.

  Returns:
    Dict of `x`, inputs as stored `[n, …]`, and `y`, int32 labels `[n]`. Several
    inputs are rows of bytes, see `packing`, in the order of their names.

  Raises:
    ValueError: For unsuitable elements.
  """
  input_element, label_spec = input_and_label(dataset.element_spec)
  if _is_batched(input_element, label_spec):
    dataset = dataset.unbatch()
  whole = dataset.batch(_MANY).get_single_element()
  return collections.OrderedDict(zip('xy', of_batch(whole)))


def of_batch(batch: Any) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns inputs as stored, and int32 labels, of a batch of elements.

  Args:
    batch: Batch of elements as `stack` takes them.

  Raises:
    ValueError: For text.
  """
  inputs, labels = input_and_label(batch)
  if isinstance(inputs, Mapping):
    parts = [inputs_lib.as_part(_stored(value)) for _, value in _sorted(inputs)]
    return packing.rows_of(parts), class_numbers(labels)
  inputs = _stored(inputs)
  inputs = inputs_lib.with_channels(inputs, are_images=_are_images(batch))
  return inputs, class_numbers(labels)


def _stored(inputs: tf.Tensor) -> tf.Tensor:
  """Returns inputs in the dtype in which they are stored."""
  _check_numbers(inputs.dtype)
  return tf.cast(inputs, _STORED_AS.get(inputs.dtype, inputs.dtype))


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


def taken(inputs: Any, indices: np.ndarray) -> Any:
  """Returns some of the inputs: an array, or several arrays by name."""
  if isinstance(inputs, Mapping):
    return {name: array[indices] for name, array in inputs.items()}
  return inputs[indices]


def gather(dataset: tf.data.Dataset) -> tuple[Any, np.ndarray]:
  """Reads all examples of a data set; unlike `stack` it also explains failures.

  Args:
    dataset: See `stack`; ranks may be unknown, and labels of any dtype.

  Returns:
    Inputs `[n, …]` and labels `[n]`, as they are; images have channels.
    Several inputs are arrays by name; texts among them are text[n].

  Raises:
    ValueError: If there is no example, inputs differ in size, the pipeline
      fails (its error is quoted), or elements are unsuitable.
  """
  input_element, label_spec = input_and_label(dataset.element_spec)
  if isinstance(input_element, Mapping):
    return _gather_parts(dataset)
  try:
    if None in (input_element.shape.rank, label_spec.shape.rank):
      inputs, labels = _one_by_one(dataset)
    else:
      if _is_batched(input_element, label_spec):
        dataset = dataset.unbatch()
      whole = dataset.batch(_MANY).get_single_element()
      inputs, labels = (part.numpy() for part in input_and_label(whole))
  except tf.errors.OpError as error:
    raise errors.UserError(_explained(dataset, error)) from error
  are_images = _are_images(dataset.element_spec)
  return inputs_lib.with_channels(inputs, are_images=are_images), labels


def _gather_parts(
  dataset: tf.data.Dataset,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Reads all examples of a data set whose elements have several inputs."""
  try:
    if _is_batched(*input_and_label(dataset.element_spec)):
      dataset = dataset.unbatch()
    whole = dataset.batch(_MANY).get_single_element()
  except tf.errors.OpError as error:
    raise errors.UserError(
      'its examples cannot be read; there is none, they differ in size, or the '
      f'pipeline fails: {_said(error)}'
    ) from error
  inputs, labels = input_and_label(whole)
  found = {}
  for name, values in inputs.items():
    array = values.numpy()
    if values.dtype == tf.string:
      array = np.array([text.decode('utf-8', 'replace') for text in array])
    found[str(name)] = array
  return found, labels.numpy()


def input_and_label(element: Any) -> tuple[Any, Any]:
  """Returns the two parts of an element, a batch, or the spec of either."""
  if isinstance(element, tuple) and len(element) == 2:
    return element
  keys = tuple(element) if isinstance(element, Mapping) else ()
  input_key = next((key for key in _INPUT_KEYS if key in keys), None)
  label_key = next((key for key in _LABEL_KEYS if key in keys), None)
  if input_key is None or label_key is None:
    raise errors.UserError(
      f'Expected elements with one of {_INPUT_KEYS} and one of {_LABEL_KEYS}, '
      f'or pairs (input, label), found {keys or element}.'
    )
  return element[input_key], element[label_key]


def _are_images(element: Any) -> bool:
  """Returns whether elements name their input an image."""
  return isinstance(element, Mapping) and not {'x'} & set(element)


def _is_batched(given_inputs: Any, given_label: Any) -> bool:
  """Returns whether elements are batches of examples.

  Args:
    given_inputs: Array, tensor or its spec, or a dict of several by name. With
      several, the label alone decides.
    given_label: Array, tensor or its spec.

  Raises:
    ValueError: If shapes of one input and label do not tell.
  """
  label = tf.TensorShape(given_label.shape)
  if isinstance(given_inputs, Mapping):
    return bool(label.rank)
  inputs = tf.TensorShape(given_inputs.shape)
  if inputs.rank is None or label.rank is None:
    raise errors.UserError(
      'The shape of elements is unknown. Tell TensorFlow in the pipeline: '
      'image.set_shape([height, width, channels]), label.set_shape([]).'
    )
  if inputs.rank and label.rank == 0:
    return False
  # A label for itself may be an array of one number.
  if inputs.rank and label.rank == 1 and label[0] == 1:
    if inputs.rank == 1 or inputs[0] != 1:
      return False
  same = label.rank and inputs[:1].is_compatible_with(label[:1])
  if inputs.rank >= 2 and same and (label.rank == 1 or label[1:] == [1]):
    return True
  raise errors.UserError(
    'Expected elements of an input, e.g. an image [height, width, channels] or '
    f'a row [columns], and a label, or batches of them, found shapes {inputs} '
    f'and {label}.'
  )


def _one_by_one(
  dataset: tf.data.Dataset,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the examples of a data set whose shapes only the data tell."""
  inputs, labels = [], []
  for element in dataset:
    own, label = (np.asarray(part) for part in input_and_label(element))
    if not _is_batched(own, label):
      own, label = own[np.newaxis], label.reshape(1)
    inputs.append(own)
    labels.append(label.reshape(-1))
  if not inputs:
    raise errors.UserError('it has no example.')
  for number, own in enumerate(inputs):
    _check_same_size(inputs[0].shape[1:], own.shape[1:], number)
  return np.concatenate(inputs), np.concatenate(labels)


def _check_same_size(
  first: Sequence[Any], found: Sequence[Any], number: int
) -> None:
  if tuple(first) != tuple(found):
    raise errors.UserError(
      f'its inputs differ in size: {tuple(first)} at first, {tuple(found)} at '
      f'element {number}. Resize or pad them to one size in the pipeline.'
    )


def _explained(dataset: tf.data.Dataset, error: tf.errors.OpError) -> str:
  """Returns why the elements of a data set could not be read at once."""
  first, number = None, 0
  try:
    for element in dataset:
      own, _ = input_and_label(element)
      first = own.shape if first is None else first
      _check_same_size(first, own.shape, number)
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
