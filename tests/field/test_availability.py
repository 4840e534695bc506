"""Who is there: patterns and files."""

import numpy as np
import pytest

from tff_fedsa.field import availability
from tff_fedsa.field import client_table
from tff_fedsa.field import field_config


def _build(num_clients, **options):
  return availability.build_availability_fn(
    field_config.FieldConfig(**options), num_clients
  )


def test_random_is_as_often_as_said():
  there = _build(500, availability='random', availability_mean=0.2)
  counts = np.array([there(r).sum() for r in range(1, 41)])
  # 100 expected, standard deviation 9.
  assert 60 < counts.min() < counts.max() < 140
  assert abs(counts.mean() - 100) < 6
  np.testing.assert_array_equal(
    there(7), _build(500, availability='random', availability_mean=0.2)(7)
  )


def test_diurnal_has_days_and_nights():
  there = _build(2000, availability='diurnal', time_zones=0.0)
  counts = np.array([there(r).sum() for r in range(1, 49)])
  # 1000 x (1 + sin(2 pi r / 24)), standard deviation at most 23.
  expected = 1000 * (1 + np.sin(2 * np.pi * np.arange(1, 49) / 24))
  assert np.abs(counts - expected).max() < 110


def test_time_zones_shift_days():
  there = _build(
    2000, availability='diurnal', time_zones=1.0, rounds_per_day=10
  )
  presence = np.array([there(r) for r in range(1, 1001)])
  # All around the world, as many are there in each round.
  assert np.abs(presence.sum(axis=1) - 1000).max() < 140
  # Each client has its own day: 0.5 + 0.5 sin, seen 100 times at each hour.
  by_hour = presence.reshape(100, 10, 2000).mean(axis=0)
  assert by_hour.min(axis=0).max() < 0.25
  assert by_hour.max(axis=0).min() > 0.75


def test_a_high_mean_has_small_waves():
  there = _build(
    4000, availability='diurnal', availability_mean=0.9, time_zones=0.0
  )
  # 0.9 + 0.1 and 0.9 - 0.1, a quarter and three quarters of a day on.
  assert there(6).mean() > 0.999
  assert abs(there(18).mean() - 0.8) < 0.03


def _file(tmp_path, text):
  path = tmp_path / 'there.csv'
  path.write_text(text)
  return str(path)


def test_a_file_says_who_is_there(tmp_path):
  path = _file(
    tmp_path, 'from,client,to,note\n1,0,2,\n5,0,5,again\n2,2,,for ever\n'
  )
  there = _build(4, availability=path)
  assert [np.flatnonzero(there(r)).tolist() for r in (1, 2, 3, 5, 900)] == [
    [0],
    [0, 2],
    [2],
    [0, 2],
    [2],
  ]


@pytest.mark.parametrize(
  'text, match',
  [
    ('client,from\n0,1\n', 'first line with the columns client,from,to'),
    ('', 'first line with the columns'),
    ('client,from,to\n', 'at least one row'),
    ('client,from,to\n0,1\n', 'line 2: expected as many cells as columns'),
    ('client,from,to\n0,1,2\n4,1,2\n', 'line 3: there is no client 4; 4 clie'),
    ('client,from,to\n-1,1,2\n', r"client: expected an integer >= 0, found '-"),
    ('client,from,to\n0,0,2\n', "from: expected an integer >= 1, found '0'"),
    ('client,from,to\n0,3,2\n', "to: expected an integer >= 3, found '2'"),
    ('client,from,to\n0,1.5,2\n', "from: expected an integer >= 1, found '1.5"),
  ],
)
def test_a_wrong_file_is_refused_in_a_line(tmp_path, text, match):
  path = _file(tmp_path, text)
  with pytest.raises(client_table.FieldFileError, match=match) as caught:
    _build(4, availability=path)
  assert path in str(caught.value) and '\n' not in str(caught.value)


def test_what_is_no_file_is_refused_in_a_line(tmp_path):
  with pytest.raises(
    client_table.FieldFileError, match="no file 'dirunal'; an .* diurnal or a"
  ):
    _build(4, availability='dirunal')
  with pytest.raises(client_table.FieldFileError, match='no CSV file'):
    _build(4, availability=str(tmp_path))
  binary = tmp_path / 'x.csv'
  binary.write_bytes(b'\xff\xfe\x00\x01')
  with pytest.raises(client_table.FieldFileError, match='no CSV file'):
    _build(4, availability=str(binary))
