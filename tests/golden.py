"""Reads the golden vectors and compares with them the agreed way."""

import pathlib

import numpy as np

TESTDATA = pathlib.Path(__file__).parent / 'testdata'


def load(name: str) -> dict[str, np.ndarray]:
  """Returns the arrays of one golden file, by name."""
  with np.load(TESTDATA / 'golden' / f'{name}.npz') as arrays:
    return dict(arrays)


def assert_close(actual, expected, tolerance: float = 1e-5) -> None:
  """Asserts max|a - b| <= tolerance * max|b|; infinities must coincide."""
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (actual.shape, expected.shape)
  finite = np.isfinite(expected)
  np.testing.assert_array_equal(actual[~finite], expected[~finite])
  if not finite.any():
    return
  error = np.max(np.abs(actual[finite] - expected[finite]))
  scale = np.max(np.abs(expected[finite]))
  assert error <= tolerance * scale, f'error {error} at scale {scale}'
