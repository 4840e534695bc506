"""What a user did wrong is said in one line, not in a stack trace."""

from collections.abc import Iterator
import contextlib
import sys

from absl import flags

from launch import run_dir


@contextlib.contextmanager
def reported() -> Iterator[None]:
  """Ends the program with a message for errors that the user can mend.

  Errors of the program itself keep their stack trace.
  """
  from tff_fedsa import checkpoints  # Slow to import.

  try:
    yield
  except (
    checkpoints.CheckpointError,
    ConnectionError,
    FileNotFoundError,
    PermissionError,
    ValueError,
    flags.Error,
    run_dir.RunDirError,
  ) as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit('interrupted; the same command resumes the run')
