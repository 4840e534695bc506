"""Labels: every kind is right, or refused at once."""

import time

import numpy as np
import pytest

from tff_fedsa.data import labels

_NUMBERS = [2, 0, 1, 1, 0, 2]


@pytest.mark.parametrize(
  'values',
  [
    *(np.array(_NUMBERS, dtype) for dtype in ('u1', 'u2', 'u4', 'u8', 'i1')),
    *(np.array(_NUMBERS, dtype) for dtype in ('i2', 'i8', 'f2', 'f4', 'f8')),
    np.array(_NUMBERS, object),
    np.array(_NUMBERS)[:, np.newaxis],
    _NUMBERS,
  ],
)
def test_numbers_from_zero_stay_as_they_are(values):
  found = labels.classes(values, 'x')
  assert found.labels.dtype == np.int32 and found.labels.tolist() == _NUMBERS
  assert found.names == ('0', '1', '2') and found.notices == ()
  np.testing.assert_array_equal(labels.numbered(values, 3, 'x'), _NUMBERS)


@pytest.mark.parametrize(
  'values, names',
  [
    ([100, 300, 200, 100], ('100', '200', '300')),
    ([0, 1, 3, 3], ('0', '1', '3')),
    ([1, -1, 1, -1], ('-1', '1')),
    (np.array([2**64 - 1, 7, 7], 'u8'), ('7', str(2**64 - 1))),
    ([10**12, 10**12 + 1], (str(10**12), str(10**12 + 1))),
  ],
)
def test_other_numbers_become_classes_by_value_with_a_notice(values, names):
  found = labels.classes(np.array(values), 'mine')
  assert found.names == names and found.labels.dtype == np.int32
  assert [int(names[label]) for label in found.labels] == [*map(int, values)]
  (notice,) = found.notices
  assert 'mine: the' in notice and ', '.join(names) in notice


@pytest.mark.parametrize(
  'values',
  [
    np.array(['dog', 'cat', 'dog']),
    np.array([b'dog', b'cat', b'dog']),
    np.array(['dog', 'cat', 'dog'], object),
    np.array([b'dog', b'cat', b'dog'], object),
  ],
)
def test_text_becomes_class_names(values):
  found = labels.classes(values, 'x')
  assert found == (found.labels, ('cat', 'dog'), ())
  assert found.labels.tolist() == [1, 0, 1]
  assert labels.named(values, ('ant', 'cat', 'dog'), 'x').tolist() == [2, 1, 2]
  with pytest.raises(ValueError, match="unknown class 'cat'; known: ant, dog"):
    labels.named(values, ('ant', 'dog'), 'x')
  assert labels.classes(values, 'x', num_classes=2).names == ('cat', 'dog')
  with pytest.raises(ValueError, match='num_classes=3 distinct labels, found'):
    labels.classes(values, 'x', num_classes=3)
  with pytest.raises(TypeError, match='integer labels, found text'):
    labels.numbered(values, 2, 'x')


def test_numbers_as_text_are_sorted_as_numbers():
  found = labels.classes(np.array(['10', '9', '2', '10']), 'x')
  assert found.names == ('2', '9', '10')
  assert found.labels.tolist() == [2, 1, 0, 2]


def test_booleans_are_two_classes():
  found = labels.classes(np.array([True, False]), 'x')
  assert found.names == ('False', 'True') and found.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
  'values, error, message',
  [
    ([0.0, 0.5, 1.0], ValueError, 'integer labels, found 0.5 at example 1'),
    ([0.0, np.nan], ValueError, 'found nan at example 1'),
    ([0.0, -np.inf], ValueError, 'found -inf at example 1'),
    ([0.0, 1e300], ValueError, r'found 1e\+300 at example 1'),
    (np.eye(3), ValueError, r'shape \(3, 3\). .* one-hot: use .*argmax'),
    (np.ones([3, 2]), ValueError, r'labels of shape \(3, 2\).$'),
    (np.zeros([2, 1, 1]), ValueError, 'one label for each example'),
    ([0j, 1j], TypeError, 'found complex128'),
    (np.array([0, 'a'], object), TypeError, 'found objects: int, str'),
    (np.array([0, None], object), TypeError, 'objects: NoneType, int'),
    (np.array([2**70, 1], object), TypeError, 'found objects: int'),
    (np.array(['2020-01-01'], 'M8[D]'), TypeError, 'datetime64'),
    (
      np.ma.masked_array([0, 1, 1], [0, 1, 0]),
      ValueError,
      '1 labels are masked',
    ),
  ],
)
def test_what_is_no_label_is_refused(values, error, message):
  for refused in (
    lambda: labels.classes(values, 'mine'),
    lambda: labels.numbered(values, 3, 'mine'),
    lambda: labels.named(values, ('a', 'b', 'c'), 'mine'),
  ):
    with pytest.raises(error, match='mine: .*' + message):
      refused()


@pytest.mark.parametrize(
  'values',
  [
    np.arange(1000) * 7919,
    np.arange(2_000_000),
    np.random.default_rng(0).integers(0, 2**62, 2_000_000),
    np.arange(1000).astype(str),
  ],
)
def test_what_numbers_the_examples_is_refused_in_a_second(values):
  start = time.process_time()
  with pytest.raises(ValueError, match='distinct values: .* Are they labels'):
    labels.classes(values, 'x')
  assert time.process_time() - start < 2.0


@pytest.mark.parametrize('values', [[0, 3], [-1, 0], np.array([2**63], 'u8')])
def test_numbers_out_of_range_are_named(values):
  with pytest.raises(ValueError, match=r'labels in \[0, 3\), found'):
    labels.numbered(np.array(values), 3, 'x')
  with pytest.raises(ValueError, match='at most 100,000 classes'):
    labels.numbered([0], 10**9, 'x')


def test_partitions_keep_gaps_and_replace_ids():
  assert labels.for_partition(np.array([0, 3], 'u1')).tolist() == [0, 3]
  assert labels.for_partition([10**9, 5, 5]).tolist() == [1, 0, 0]
  assert labels.for_partition(['b', 'a', 'b']).tolist() == [1, 0, 1]
  with pytest.raises(ValueError, match='found 0.5'):
    labels.for_partition([0.5, 1.0])
