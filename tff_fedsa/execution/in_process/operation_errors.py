"""Errors of TensorFlow's operations, as users of TFF know them.

TFF's stock runtime runs in a worker: an operation that fails ends in a
`grpc.RpcError`, and this is what its users, and its own tests, catch. Here
TensorFlow itself raises, e.g. `tf.errors.InvalidArgumentError`. Users get an
error that is both.
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
  """Returns an error of an operation for users of TFF.

  Args:
    error: TensorFlow's. Its message says how the graph was imported.

  Returns:
    An error of the same type, and a `grpc.RpcError`. Its message says which
    operation failed.
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
  """Returns a subtype of a type of error that is a `grpc.RpcError`, too."""

  class Both(kind, grpc.RpcError):
    """What TensorFlow raises, and what TFF's stock runtime raises."""

    def code(self) -> grpc.StatusCode:
      """Returns the status, as of a `grpc.Call`."""
      # TensorFlow's numbers are gRPC's.
      return _STATUS[self.error_code]

    def details(self) -> str:
      """Returns the message, as of a `grpc.Call`."""
      return self.message

    def __reduce__(self) -> Any:
      return kind, (self.node_def, self.op, self.message)

  Both.__name__, Both.__qualname__ = kind.__name__, kind.__qualname__
  Both.__module__ = kind.__module__
  return Both


_STATUS = {status.value[0]: status for status in grpc.StatusCode}
