"""Errors of TensorFlow's operations with the types that TFF's users expect.

In TFF's stock runtime a failing operation raises a `grpc.RpcError`. TFF's users
and tests catch this type. Here TensorFlow itself raises, e.g.
`tf.errors.InvalidArgumentError`. Users receive an error of both types.
"""

import functools
import re
from typing import Any

import grpc
import tensorflow as tf

_FUNCTION = r'\{\{function_node (?P<function>[^}]*)\}\}'
_WITHIN = re.compile(_FUNCTION + r'\s+')
_OPERATION = re.compile(
  rf'\s*\[\[({_FUNCTION})?\{{\{{node (?P<node>[^}}]*)\}}\}}\]\]'
)
_CALLS = re.compile(r'(\n\s+\[\[[\w/]+\]\])*\s*(\[Op:[^\]]*\])?\s*$')


def as_users_catch_it(error: tf.errors.OpError) -> tf.errors.OpError:
  """Turns an error of an operation into one for users of TFF.

  Args:
    error: TensorFlow's error. Its message contains details of the import.

  Returns:
    An error of the same type that is also a `grpc.RpcError`. Its message names
    the failed operation.
  """
  message = _WITHIN.sub('', error.message)
  # Of a function that was made part of the graph: it, and the operation in it.
  operations = [
    '/'.join(filter(None, match.group('function', 'node')))
    for match in _OPERATION.finditer(message)
  ]
  message = _CALLS.sub('', _OPERATION.sub('', message)).strip()
  if operations:
    message += f' (operation {operations[-1]})'
  kind: Any = type(error)
  return _kind(kind)(error.node_def, error.op, message)


@functools.cache
def _kind(kind: Any) -> Any:
  """Returns a subtype of an error type that is also a `grpc.RpcError`."""

  class Both(kind, grpc.RpcError):
    """An error of TensorFlow and of TFF's stock runtime."""

    def code(self) -> grpc.StatusCode:
      """Returns the status, like `grpc.Call`."""
      # TensorFlow uses gRPC's numbers.
      return _STATUS[self.error_code]

    def details(self) -> str:
      """Returns the message, like `grpc.Call`."""
      return self.message

    def __reduce__(self) -> Any:
      return kind, (self.node_def, self.op, self.message)

  Both.__name__, Both.__qualname__ = kind.__name__, kind.__qualname__
  Both.__module__ = kind.__module__
  return Both


_STATUS = {status.value[0]: status for status in grpc.StatusCode}
