"""Starts the runtime of an experiment, unless one of ours is set already."""

from typing import Any, Optional

import tensorflow_federated as tff

from tff_fedsa.execution import native
from tff_fedsa.execution import runtime
from tff_fedsa.execution.in_process import contexts

# The latest runtime that was started here: its settings and its context.
_started: Optional[tuple[runtime.RuntimeConfig, bool, Any]] = None


def start(
  config: runtime.RuntimeConfig, *, without_workers: bool = False
) -> None:
  """Makes the runtime of some settings TFF's default.

  A runtime that the user has set (`set_in_process_context`,
  `set_native_context`, `set_remote_context`) stays, unless the settings name
  another runtime than the default. A runtime with equal settings stays, too.

  Args:
    config: The settings.
    without_workers: See `RuntimeConfig.start`.

  Raises:
    ValueError: See `RuntimeConfig.start`.
  """
  global _started
  now = tff.framework.get_context_stack().current
  was_started_here = False
  if _started is not None and _started[2] is now:
    was_started_here = True
    if _started[:2] == (config, without_workers):
      return
  is_ours = isinstance(now, contexts.InProcessContext) or native.is_current()
  was_set_by_user = is_ours and not was_started_here
  if was_set_by_user and config == runtime.RuntimeConfig():
    return
  config.start(without_workers=without_workers)
  context = tff.framework.get_context_stack().current
  _started = config, without_workers, context
