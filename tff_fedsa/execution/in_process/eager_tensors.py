"""Fixes a leak of 40 bytes for each eager tensor.

`object.__new__` of CPython 3.11 allocates memory for the attributes of an
instance. TensorFlow 2.14 frees eager tensors by its own function, which does
not free this memory. A round creates a thousand tensors, so memory would grow
by some MB per hundred rounds. Here tensors are allocated without memory for
attributes. Python allocates it when the first attribute is set, which is rare.
"""

import ctypes
import platform
import sys

import tensorflow as tf

# Offsets in `PyTypeObject` in CPython 3.11 on 64 bits.
_TP_ALLOC, _TP_NEW = 304, 312


def mend_leak() -> bool:
  """Allocates eager tensors without memory for attributes.

  Returns:
    Whether it succeeded. On other versions of CPython it changes nothing and
    returns False.
  """
  if (
    platform.python_implementation() != 'CPython'
    or sys.version_info[:2] != (3, 11)
    or sys.maxsize != 2**63 - 1
  ):
    return False
  eager_tensor = tf.__internal__.EagerTensor
  if _slot(object, _TP_ALLOC).value != _address('PyType_GenericAlloc'):
    return False  # The layout is unknown.
  new = _slot(eager_tensor, _TP_NEW)
  if new.value == _slot(object, _TP_NEW).value:
    # What `object.__new__` does, apart from the room and from checking its
    # arguments, which TensorFlow does not pass.
    new.value = _address('PyType_GenericNew')
  return new.value == _address('PyType_GenericNew')


def _slot(python_type: type, offset: int) -> ctypes.c_void_p:
  # In CPython the identity of an object is its address.
  return ctypes.c_void_p.from_address(id(python_type) + offset)


def _address(function: str) -> int:
  pointer = ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p)
  assert pointer.value is not None
  return pointer.value
