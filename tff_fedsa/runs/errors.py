"""Errors that a user can mend are told apart from the program's by type.

This module imports nothing, so that every other one can import it.
"""


class UserError(ValueError):
  """Data, values or files of a user are at fault; the message says what to do.

  Launchers print its message in one line and end with status 1. An error of
  any other type is taken for an error of the program and keeps its stack trace.
  """
