"""Values of this process: strict conversion from Python, and back.

A value is a tensor, a `tf.data.Dataset`, a `tff.structure.Struct` of values, a
Python callable, or one of the two placed kinds below.
"""

from collections.abc import Sequence
import typing
from typing import Any, NamedTuple, Optional
import weakref

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.compiler import array
from tensorflow_federated.python.core.impl.types import type_conversions
from tensorflow_federated.python.core.impl.utils import tensorflow_utils
import tree

from tff_fedsa.execution import arrays
from tff_fedsa.runs import errors

Struct = tff.structure.Struct


class AtServer(NamedTuple):
  """A value at the server."""

  value: Any


class AtClients(NamedTuple):
  """One value per client. All share one object if the type is all-equal."""

  values: list[Any]


def ingest(value: Any, value_type: tff.Type, num_clients: int) -> Any:
  """Converts a Python value into a value of this process.

  The conversion is strict: a float64 array does not become a float32 tensor.

  Args:
    value: NumPy arrays, tensors, data sets, containers of these, and lists of
      these for clients.
    value_type: Any type except functions.
    num_clients: Number of clients of the computation.

  Raises:
    TypeError: If the value does not fit. The message names the place, the
      expected and the found type.
  """
  return _ingest(value, value_type, num_clients, '')


def _ingest(
  value: Any, value_type: tff.Type, num_clients: int, path: str
) -> Any:
  if isinstance(value_type, tff.FederatedType):
    member = value_type.member
    if value_type.placement is tff.SERVER:
      return AtServer(_ingest(value, member, num_clients, path))
    if value_type.all_equal:
      one = _ingest(value, member, num_clients, path)
      return AtClients([one] * num_clients)
    if not isinstance(value, list | tuple):
      raise _mismatch(path, f'a list of values of type {member}', value)
    if len(value) != num_clients:
      raise _mismatch(
        path, f'values of {num_clients} clients', f'{len(value)} values'
      )
    return AtClients(
      [
        _ingest(part, member, num_clients, f'{path}client {i}: ')
        for i, part in enumerate(value)
      ]
    )
  if isinstance(value_type, tff.StructType):
    return _ingest_struct(value, value_type, num_clients, path)
  if isinstance(value_type, tff.SequenceType):
    return _ingest_sequence(value, value_type, path)
  if isinstance(value_type, tff.TensorType):
    return _ingest_tensor(value, value_type, path)
  raise _mismatch(path, f'a value of type {value_type}', value)


def _ingest_struct(value, value_type, num_clients, path):
  try:
    parts = tff.structure.to_elements(tff.structure.from_container(value))
  except TypeError:
    raise _mismatch(path, f'a structure {value_type}', value) from None
  types = tff.structure.to_elements(value_type)
  names = [name for name, _ in parts]
  if len(parts) != len(types) or any(
    found not in (None, expected) for found, (expected, _) in zip(names, types)
  ):
    raise _mismatch(
      path, f'a structure {value_type}', f'one of {len(parts)} elements {names}'
    )
  return Struct(
    [
      (name, _ingest(part, t, num_clients, f'{path}{_label(name, i)}'))
      for i, ((_, part), (name, t)) in enumerate(zip(parts, types))
    ]
  )


def _label(name, index):
  return f'.{name}' if name else f'[{index}]'


def _ingest_sequence(value, value_type, path):
  if isinstance(value, list):
    return tensorflow_utils.make_data_set_from_elements(
      None, value, value_type.element
    )
  if not isinstance(value, tf.data.Dataset):
    raise _mismatch(path, f'a data set of type {value_type}', value)
  found = tff.SequenceType(tff.types.tensorflow_to_type(value.element_spec))
  if not value_type.is_assignable_from(found):
    raise _mismatch(
      path, f'a data set of type {value_type}', f'one of type {found}'
    )
  return value


def _ingest_tensor(value, value_type, path):
  dtype = value_type.dtype.type
  if isinstance(value, arrays.RemoteArray):
    shape = tf.TensorShape(value_type.shape)
    if value.dtype.type is not dtype or not shape.is_compatible_with(
      value.shape
    ):
      raise _mismatch(path, f'a tensor of type {value_type}', str(value))
    return value
  if isinstance(value, tf.Variable):
    value = value.read_value()
  if tf.is_tensor(value):
    shape = tf.TensorShape(value_type.shape)
    if value.dtype != tf_dtype(dtype) or not shape.is_compatible_with(
      value.shape
    ):
      raise _mismatch(
        path,
        f'a tensor of type {value_type}',
        f'{value.dtype.name}{list(value.shape)}',
      )
    return value
  if isinstance(value, Sequence) and not isinstance(value, str | bytes):
    if not all(
      array.is_compatible_dtype(x, dtype) for x in tree.flatten(value)
    ):
      raise _mismatch(path, f'a tensor of type {value_type}', value)
    value = np.asarray(value, dtype)
  elif not isinstance(value, typing.get_args(array.Array)):
    raise _mismatch(path, f'a tensor of type {value_type}', value)
  if not (
    array.is_compatible_shape(value, value_type.shape)
    and array.is_compatible_dtype(value, dtype)
  ):
    raise _mismatch(path, f'a tensor of type {value_type}', value)
  tensor = _shared.tensor_of(value)
  if tensor is not None:
    return tensor
  return tf.convert_to_tensor(value, tf_dtype(dtype))


def tf_dtype(dtype: Any) -> tf.DType:
  """Returns TensorFlow's type for a NumPy type of a TFF type."""
  return tf.string if dtype is np.str_ else tf.as_dtype(dtype)


def _mismatch(path: str, expected: str, found: Any) -> TypeError:
  if isinstance(found, np.ndarray | np.generic):
    found = f'{found.dtype.name}{list(found.shape)}'
  elif not isinstance(found, str):
    found = f'{type(found).__name__} {str(found)[:80]}'
  where = f'{path.rstrip(": ")}: ' if path else ''
  return TypeError(f'{where}Expected {expected}, found {found}.')


def release(value: Any, value_type: tff.Type) -> Any:
  """Returns a value in the form of TFF's contexts, with tensors."""
  if isinstance(value, AtServer):
    return release(value.value, value_type.member)
  if isinstance(value, AtClients):
    if not value_type.all_equal:
      return [release(part, value_type.member) for part in value.values]
    if not value.values:
      raise errors.UserError(
        f'A value of type {value_type} has no representation with no client.'
      )
    return release(value.values[0], value_type.member)
  if isinstance(value_type, tff.StructType):
    return Struct(
      [
        (name, release(part, t))
        for part, (name, t) in zip(
          value, tff.structure.iter_elements(value_type)
        )
      ]
    )
  return value


class _SharedMemory:
  """Maps arrays to the tensors that share their memory.

  Large states return unchanged in every round, so they need no copy. A tensor
  is kept only while its memory is in use.
  """

  def __init__(self) -> None:
    self._tensors: dict[int, tuple[weakref.ref, tf.Tensor]] = {}

  def add(self, array: np.ndarray, tensor: tf.Tensor) -> None:
    key, tensors = id(array), self._tensors
    tensors[key] = (weakref.ref(array, lambda _: tensors.pop(key)), tensor)

  def tensor_of(self, array: Any) -> Optional[tf.Tensor]:
    entry = self._tensors.get(id(array))
    return None if entry is None else entry[1]


_shared = _SharedMemory()
_WORTH_SHARING_BYTES = 100_000


def to_numpy(result: Any) -> Any:
  """Returns a result with NumPy arrays (read-only, not copied) for tensors."""

  def convert(value):
    if not isinstance(value, tf.Tensor):
      return None
    if value.shape.rank and value.dtype.is_floating | value.dtype.is_integer:
      try:
        array = np.asarray(memoryview(value))
      except (TypeError, ValueError, BufferError):
        # The tensor is on a GPU, or NumPy does not know its type.
        return value.numpy()
      if array.nbytes >= _WORTH_SHARING_BYTES:
        _shared.add(array, value)
      return array
    return value.numpy()

  # Not `map_structure`, which sorts keys of dicts.
  return tree.traverse(convert, result)


def element_spec(sequence_type: tff.SequenceType) -> Any:
  """Returns the structure of `tf.TypeSpec`s of a data set."""
  return type_conversions.type_to_tf_structure(sequence_type.element)


def to_dataset(
  elements: Sequence[Any], sequence_type: tff.SequenceType
) -> tf.data.Dataset:
  """Returns a data set with these values."""
  element_type = sequence_type.element
  return tensorflow_utils.make_data_set_from_elements(
    None,
    [
      type_conversions.type_to_py_container(element, element_type)
      for element in elements
    ],
    element_type,
  )


def elements_of(dataset: tf.data.Dataset) -> list[Any]:
  """Returns the elements of a data set as values."""
  return [
    element
    if tf.is_tensor(element)
    else tff.structure.from_container(element, recursive=True)
    for element in dataset
  ]
