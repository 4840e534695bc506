"""Fixtures shared by all tests."""

import pytest


@pytest.fixture(scope='session')
def native_context():
  """TFF's stock runtime, started once for all tests that need one."""
  # Imported here: tests of pure maths do without TFF's slow import.
  from tff_fedsa.execution import native

  native.set_native_context()
  yield
  native.stop_workers()
