"""Starts the runtime of an experiment, unless one of ours is set already."""

from typing import Any, Optional

import tensorflow_federated as tff

from tff_fedsa.execution import native
from tff_fedsa.execution import runtime
from tff_fedsa.execution.in_process import contexts

# The latest runtime that was started here: how it was, and its context.
_started: Optional[tuple[Any, Any]] = None


def start(
  config: runtime.RuntimeConfig,
  *,
  without_workers: bool = False,
  secure_in_the_clear: bool = False,
) -> None:
  """Makes the runtime of some settings TFF's default.

  A runtime that the user has set (`set_in_process_context`,
  `set_native_context`, `set_remote_context`) stays, unless the settings name
  another runtime than the default. A runtime with equal settings stays, too.

  Args:
    config: The settings.
    without_workers: See `RuntimeConfig.start`.
    secure_in_the_clear: See `RuntimeConfig.start`. A runtime that the user has
      set must allow it.

  Raises:
    ValueError: See `RuntimeConfig.start`.
  """
  global _started
  now = tff.framework.get_context_stack().current
  was_started_here = False
  wanted = config, without_workers, secure_in_the_clear
  if _started is not None and _started[1] is now:
    was_started_here = True
    if _started[0] == wanted:
      return
  is_ours = isinstance(now, contexts.InProcessContext) or native.is_current()
  was_set_by_user = is_ours and not was_started_here
  if was_set_by_user and config == runtime.RuntimeConfig():
    return
  config.start(
    without_workers=without_workers, secure_in_the_clear=secure_in_the_clear
  )
  _started = wanted, tff.framework.get_context_stack().current
