"""The type of errors that a user can fix.

This module imports nothing, so every other module can import it.
"""


class UserError(ValueError):
  """Data, values or files of a user are wrong. The message says what to do.

  Launchers print the message in one line and end with status 1. Errors of other
  types are mistakes of the program and keep their stack trace.
  """
