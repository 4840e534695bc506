"""Which updates count, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.maths import finite


def _with(value):
  """A structure with one value in the midst of good ones."""
  table = np.ones([3, 2], np.float32)
  table[1, 1] = value
  return {
    'weights': [tf.zeros([2]), tf.constant(table)],
    'count': tf.constant(2**31 - 1),
    'present': tf.constant([True, False]),
  }


_ONE_VALUE = pytest.mark.parametrize(
  'value, is_finite, is_usable',
  [
    (0.0, True, True),
    (-3.5, True, True),
    (1e8, True, True),
    (-1e8, True, True),
    (1e9, True, False),
    (-1e9, True, False),
    (3e38, True, False),
    (np.inf, False, False),
    (-np.inf, False, False),
    (np.nan, False, False),
  ],
)


@_ONE_VALUE
def test_one_value_decides(value, is_finite, is_usable):
  assert bool(finite.all_finite(_with(value))) == is_finite
  assert bool(finite.all_usable(_with(value))) == is_usable


@_ONE_VALUE
@pytest.mark.parametrize('spec', [[None], [2**17]])
def test_one_value_of_a_long_vector_decides(value, is_finite, is_usable, spec):
  vector = np.full(2**17, 0.5, np.float32)
  vector[-2] = value

  @tf.function(input_signature=[tf.TensorSpec(spec)])
  def check(vector):
    structure = {'two': [vector, tf.zeros([2**17])], 'one': tf.constant(1.0)}
    return finite.all_finite(structure), finite.all_usable(structure)

  assert [bool(found) for found in check(vector)] == [is_finite, is_usable]


def test_many_large_values_are_usable():
  vector = np.full(2**17, 1e8, np.float32)
  assert finite.all_usable(tf.constant(vector))
  vector[0] = np.nextafter(vector[0], np.float32(np.inf))
  assert finite.all_finite(tf.constant(vector))
  assert not finite.all_usable(tf.constant(vector))


@pytest.mark.parametrize('check', [finite.all_finite, finite.all_usable])
def test_integers_and_nothing_are_always_good(check):
  found = check({'count': tf.constant([10**9, -(10**9)])})
  assert found.dtype == tf.bool and found.numpy()
  assert check(()).numpy()
  assert check(tf.zeros([0, 4])).numpy()
  # Other floats are checked like float32.
  assert not check(tf.constant([1.0, np.nan], tf.float64))


@pytest.mark.parametrize('condition', [True, False])
def test_choice_is_of_whole_structures(condition):
  @tf.function
  def choose(condition):
    return finite.choose(
      condition,
      {'a': tf.constant([1.0, 2.0]), 'b': (tf.constant(3),)},
      {'a': tf.constant([np.nan, 5.0]), 'b': (tf.constant(6),)},
    )

  chosen = choose(tf.constant(condition))
  np.testing.assert_array_equal(
    chosen['a'], [1.0, 2.0] if condition else [np.nan, 5.0]
  )
  assert chosen['b'][0] == (3 if condition else 6)


@pytest.mark.parametrize('condition', [True, False])
def test_zeros_are_the_other_choice(condition):
  long = tf.TensorSpec([2**17])

  @tf.function(
    input_signature=[tf.TensorSpec([], tf.bool), tf.TensorSpec([None]), long]
  )
  def choose(condition, some, many):
    return finite.choose(condition, [some, many, tf.constant(3)])

  arrays = [np.full(2, np.nan, np.float32), np.ones(2**17, np.float32)]
  for found, kept in zip(choose(condition, *arrays), [*arrays, 3]):
    np.testing.assert_array_equal(
      found, kept if condition else 0 * np.ones_like(kept)
    )


@pytest.mark.parametrize('condition', [True, False])
def test_lengths_may_differ_where_they_are_unknown(condition):
  unknown = tf.TensorSpec([None])

  @tf.function(input_signature=[tf.TensorSpec([], tf.bool), unknown, unknown])
  def choose(condition, first, second):
    # One tensor in both structures is no choice.
    both = tf.constant(7)
    return finite.choose(
      condition,
      [first, both, tf.constant(1.0)],
      [second, both, tf.constant(2.0)],
    )

  first, second = np.ones(3, np.float32), np.zeros(1, np.float32)
  vector, both, number = choose(condition, first, second)
  np.testing.assert_array_equal(vector, first if condition else second)
  assert (both, number) == (7, 1.0 if condition else 2.0)


@pytest.mark.parametrize('value', [1.0, np.nan, -np.inf])
def test_one_scalar_among_scalars_decides(value):
  same = tf.constant(1.0)
  structure = {
    'losses': [same, tf.constant(value, tf.float32), same],
    'double': tf.constant(2.0, tf.float64),
  }
  assert bool(finite.all_finite(structure)) == np.isfinite(value)
  assert bool(finite.all_usable(structure)) == np.isfinite(value)
