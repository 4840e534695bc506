"""Speeds by a distribution or a file."""

import numpy as np
import pytest

from tff_fedsa.field import client_table
from tff_fedsa.field import device_speed
from tff_fedsa.field import field_config


def _build(num_clients, **options):
  return device_speed.build_speed_fn(
    field_config.FieldConfig(**options), num_clients
  )


def test_constant():
  np.testing.assert_array_equal(_build(3)(1), [100.0] * 3)


def test_lognormal_has_the_median_and_spread_asked_for():
  speeds = _build(
    20_000,
    device_speed='lognormal',
    device_speed_median=7.0,
    device_speed_spread=0.5,
  )
  logs = np.log(speeds(1))
  assert abs(np.median(logs) - np.log(7)) < 0.02
  assert abs(logs.std() - 0.5) < 0.02
  # A device keeps its speed.
  np.testing.assert_array_equal(speeds(1), speeds(2))


def test_jitter_is_of_the_round():
  speeds = _build(20_000, device_speed_jitter=0.1)
  assert abs(np.log(speeds(1) / 100).std() - 0.1) < 0.005
  assert not np.array_equal(speeds(1), speeds(2))
  np.testing.assert_array_equal(
    speeds(2), _build(20_000, device_speed_jitter=0.1)(2)
  )


def test_a_column_of_a_file(tmp_path):
  path = tmp_path / 'phones.csv'
  path.write_text('model,client,examples_per_second\na,1,2.5\nb,0,30\n')
  speeds = _build(2, device_speed=str(path))
  np.testing.assert_array_equal(speeds(5), [30, 2.5])


@pytest.mark.parametrize(
  'rows, match',
  [
    ('0,1\n0,2\n1,1\n', 'line 3: client 0 has a speed already'),
    ('0,1\n', 'a row for each of 3 clients, found none for client 1 and 1 mo'),
    ('0,fast\n', "examples_per_second: expected a number >= 0, found 'fast'"),
    ('0,nan\n', "expected a number >= 0, found 'nan'"),
    ('0,inf\n', "expected a number >= 0, found 'inf'"),
    ('0,0\n', 'expected a number > 0, found 0'),
  ],
)
def test_a_wrong_file_is_refused_in_a_line(tmp_path, rows, match):
  path = tmp_path / 'phones.csv'
  path.write_text('client,examples_per_second\n' + rows)
  with pytest.raises(client_table.FieldFileError, match=match):
    _build(3, device_speed=str(path))
