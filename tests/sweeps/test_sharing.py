"""Runs of a sweep share a machine without changing their results."""

import types

import pytest

from tff_fedsa.execution import devices
from tff_fedsa.sweeps import sharing


class _Machine:
  def __init__(self, cores, gpus):
    self.cores, self.gpus = cores, ['GPU'] * gpus


@pytest.mark.parametrize(
  'cores, gpus, gigabytes, expected',
  [
    # One run per core, one client at a time; or as many as memory holds.
    (4, 0, 64, (4, '1', None)),
    (4, 0, 5, (2, '2', None)),
    (4, 0, 1, (1, '4', None)),
    # One run per GPU.
    (4, 2, 64, (2, None, '1')),
  ],
)
def test_as_many_at_a_time_as_fit(
  monkeypatch, cores, gpus, gigabytes, expected
):
  monkeypatch.setattr(devices, 'detect', lambda: _Machine(cores, gpus))
  memory = types.SimpleNamespace(available=gigabytes * 1e9)
  monkeypatch.setattr(sharing.psutil, 'virtual_memory', lambda: memory)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  limits = sharing.share(10, None, 'in_process')
  last = limits.environments[-1]
  assert expected == (
    len(limits.environments),
    last.get('OMP_NUM_THREADS'),
    last.get('CUDA_VISIBLE_DEVICES'),
  )
  # Results may not depend on it.
  assert limits.flags.get('intra_op_threads') == (None if gpus else 1)
  assert len(sharing.share(10, 3, 'in_process').environments) == 3
  assert len(sharing.share(1, 3, 'in_process').environments) == 1
  # The stock runtime has no such flag.
  if not gpus:
    assert 'intra_op_threads' not in sharing.share(1, 1, 'native').flags
