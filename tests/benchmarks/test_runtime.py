"""The cases of the benchmark compute the same in both runtimes."""

import pytest

from benchmarks import runtime


@pytest.fixture(autouse=True)
def _after(runtimes):
  # The benchmark sets contexts of its own.
  with runtimes.default('in_process'):
    yield


@pytest.mark.parametrize(
  'name', ['fed_avg_10', 'stateful_0.1mb', 'data_set_0.06mb']
)
def test_both_runtimes_agree(name):
  found = runtime.compare(runtime.CASES[name](), rounds=1)
  assert found['difference'] < 1e-5
  for runtime_name in ('in_process', 'native'):
    seconds = found[runtime_name]
    assert 0 < seconds['min'] <= seconds['median']
  assert all(memory > 50 for memory in found['memory_mb'])
