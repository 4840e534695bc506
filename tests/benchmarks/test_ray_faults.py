"""A run whose driver was killed goes on where it was."""

import pytest

from benchmarks import ray_faults


@pytest.mark.slow
def test_a_killed_driver_resumes_with_equal_rows():
  seconds, equal = ray_faults.resume()
  assert seconds > 0
  assert equal
