"""Processes of TFF's worker, without TFF."""

import signal

from tff_fedsa.execution import workers


def test_a_worker_of_a_background_job_ends_by_sigint():
  # Background jobs of a shell script ignore it.
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    worker = workers.OwnedWorker(['sleep', '60'])
  finally:
    signal.signal(signal.SIGINT, before)
  try:
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=120) == -signal.SIGINT
  finally:
    worker.kill()
    worker.wait()
