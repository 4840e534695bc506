"""Mends a leak: 40 bytes for each eager tensor that was ever made.

When `object.__new__` makes an instance, CPython 3.11 allocates room for its
attributes; TensorFlow 2.14 frees its eager tensors by a function of its own,
which knows nothing of that. A round makes a thousand tensors, so memory would
grow by some MB in every hundred rounds. A tensor that is allocated without that
room gets it when an attribute is set for the first time, as few ever do.
"""

import ctypes
import platform
import sys

import tensorflow as tf

# Offsets in `PyTypeObject` in CPython 3.11 on 64 bits.
_TP_ALLOC, _TP_NEW = 304, 312


def mend_leak() -> bool:
  """Makes eager tensors be allocated without room for attributes.

  Returns:
    Whether that is so now: False on other versions of CPython, which are left
    alone.
  """
  if (
    platform.python_implementation() != 'CPython'
    or sys.version_info[:2] != (3, 11)
    or sys.maxsize != 2**63 - 1
  ):
    return False
  eager_tensor = tf.__internal__.EagerTensor
  if _slot(object, _TP_ALLOC).value != _address('PyType_GenericAlloc'):
    return False  # The layout is not the one that is known here.
  new = _slot(eager_tensor, _TP_NEW)
  if new.value == _slot(object, _TP_NEW).value:
    # What `object.__new__` does, apart from the room and from checking its
    # arguments, which TensorFlow does not pass.
    new.value = _address('PyType_GenericNew')
  return new.value == _address('PyType_GenericNew')


def _slot(python_type: type, offset: int) -> ctypes.c_void_p:
  # CPython: the identity of an object is its address.
  return ctypes.c_void_p.from_address(id(python_type) + offset)


def _address(function: str) -> int:
  pointer = ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p)
  assert pointer.value is not None
  return pointer.value
