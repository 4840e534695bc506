"""Series of unequal length: padded or cut to one, with a mask."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tff_fedsa import settings
from tff_fedsa.data import augmentation
from tff_fedsa.data import input_spec
from tff_fedsa.data import inputs as inputs_lib
from tff_fedsa.data import own_data
from tff_fedsa.data import ragged
from tff_fedsa.data import sources
from tff_fedsa.data import task_spec

_RNG = np.random.default_rng(0)
_LABELS = np.arange(24) % 3
_LENGTHS = 3 + np.arange(24) % 6
_SERIES = [
  _RNG.normal(size=[length, 2]) * [1.0, 50.0] + [label, 900.0]
  for length, label in zip(_LENGTHS, _LABELS)
]
_WHOSE = np.repeat(['ann', 'bob'], 12)


def _task(series, **options):
  return own_data.from_arrays(series, _LABELS, client_ids=_WHOSE, **options)


def _stored(task):
  """All stored inputs, train and test."""
  return np.concatenate(
    [part['x'] for client in task.clients for part in client]
  )


def test_series_are_padded_to_the_longest_with_a_mask():
  source = sources.from_arrays(_SERIES, _LABELS, name='mine')
  assert source.masked and source.images.dtype == np.float32
  assert source.images.shape == (24, 8, 3)
  for row, series in zip(source.images, _SERIES):
    np.testing.assert_allclose(row[: len(series), :2], series, rtol=1e-6)
    assert not row[len(series) :].any()
    assert (row[: len(series), 2] == 1.0).all()
  (notice,) = source.notices
  assert notice == (
    'mine: 24 series of 3 to 8 steps have 8 now: 20 are padded at their end, 0 '
    'were cut. Their last channel is a mask.'
  )
  spec = source.input_spec
  assert spec.masked and spec.kind == 'series'
  assert 'the last of them a mask' in spec.describe()
  assert input_spec.InputSpec(**spec.to_json_dict()) == spec


@pytest.mark.parametrize(
  'given',
  [
    [series.tolist() for series in _SERIES],
    np.array(_SERIES, dtype=object),
    tuple(series.astype(np.float16) for series in _SERIES),
    [np.array([*map(np.array, s)], dtype=object) for s in _SERIES],
  ],
)
def test_lists_and_arrays_of_objects_are_series(given):
  task = _task(given)
  assert task.input_spec.shape == (8, 3) and task.input_spec.masked


def test_a_length_cuts_and_pads_series_of_any_length():
  task = _task(_SERIES, series_length=5)
  assert task.input_spec.shape == (5, 3)
  assert '8 are padded at their end, 12 were cut.' in task.notices[0]
  # Also if all have one length, so that the shape is known beforehand.
  equal = np.stack([series[:3] for series in _SERIES])
  task = _task(equal, series_length=5)
  assert task.input_spec.masked and task.input_spec.shape == (5, 3)
  assert (_stored(task)[..., 2].sum(axis=1) == 3.0).all()
  with pytest.raises(ValueError, match='series_length=5 would be ignored'):
    _task(equal[:, 0], series_length=5)
  with pytest.raises(settings.SettingsError, match='series_length'):
    _task(_SERIES, series_length=0)


def test_other_inputs_stay_as_they_are():
  equal = np.stack([series[:3] for series in _SERIES]).astype(np.float32)
  for given in (equal, [*equal]):
    task = _task(given)
    assert not task.input_spec.masked and not task.notices
    assert task.input_spec.shape == (3, 2)
  assert not ragged.is_ragged([1.0, 2.0])
  assert not ragged.is_ragged(['a', 'ab'])
  assert not ragged.is_ragged(np.array(['a', 'ab'], dtype=object))
  assert not ragged.is_ragged([np.array(1.0), np.array([1.0])])


def test_numbers_are_series_of_one_channel_and_integers_are_tokens():
  task = _task([series[:, 0].tolist() for series in _SERIES])
  assert task.input_spec.shape == (8, 2) and task.input_spec.masked
  tokens = [[1 + index % 4] * length for index, length in enumerate(_LENGTHS)]
  task = _task(tokens, sequence_length=6)
  assert task.input_spec.kind == 'tokens' and not task.input_spec.masked
  assert task.input_spec.shape == (6,) and task.input_spec.vocabulary_size == 5
  assert task.notices == (
    'arrays: 24 examples of 3 to 8 tokens have 6 now: 12 are padded at their '
    'end, 8 were cut.',
  )


def _with(index, series):
  return [*_SERIES[:index], series, *_SERIES[index + 1 :]]


@pytest.mark.parametrize(
  'given, error, message',
  [
    (_with(7, np.zeros([0, 2])), ValueError, '1 of 24 .* no step.* example 7'),
    (_with(7, []), ValueError, 'no step; the first is example 7'),
    (_with(7, np.zeros([4, 3])), ValueError, r'\(4, 3\) of example 7'),
    (_with(7, np.zeros(4)), ValueError, r'as many channels .*\(4,\)'),
    (_with(7, [[1.0, 2.0], [3.0]]), ValueError, 'steps of example 7 differ'),
    (_with(7, np.full([4, 2], np.nan)), ValueError, 'NaN .*is example 7'),
    (_with(7, np.full([4, 2], 1e200)), ValueError, 'infinity; .* example 7'),
    (_with(7, [['a', 'b']]), TypeError, 'numbers, found <U1 in example 7'),
    (_with(7, [[None, 1.0]]), TypeError, 'found object in example 7'),
    (_with(7, np.ma.masked_less(np.eye(2), 1)), ValueError, 'are masked'),
    (
      [np.zeros([4 + i % 2, 5, 3], np.uint8) for i in range(24)],
      ValueError,
      'Bring images to one size',
    ),
    (
      [np.zeros([4 + i % 2, 5], np.uint8) for i in range(24)],
      ValueError,
      'grey images.*astype',
    ),
  ],
)
def test_unsuitable_series_are_refused(given, error, message):
  with pytest.raises(error, match='mine: .*' + message):
    sources.from_arrays(given, _LABELS, name='mine')


def test_padding_and_mask_do_not_count():
  stored = ragged.pad_series([[[5.0], [7.0]], [[6.0]], [[9.0], [9.0]]], 4)
  found = inputs_lib.examine(stored, 'x', masked=True)
  assert found == (5.0, 9.0, 2, 1, 3)
  # Five steps of four channels and a mask are no grey image.
  (notice,) = inputs_lib.notices(found, (5, 5), 'x', masked=True)
  assert 'same value in every step; the first is example 1' in notice


@pytest.mark.parametrize('client', [True, False])
def test_steps_are_standardized_and_padding_is_zero(client):
  task = (
    own_data.to_task(
      [(_SERIES[:12], _LABELS[:12]), (_SERIES[12:], _LABELS[12:])],
      task_spec.TaskSpec(),
    )
    if client
    else _task(_SERIES)
  )
  stored = np.concatenate([client.train['x'] for client in task.clients])
  seen = task.input_spec.preprocess(tf.constant(stored)).numpy()
  is_step = stored[..., 2] > 0
  np.testing.assert_array_equal(seen[..., 2], stored[..., 2])
  assert not seen[~is_step].any()
  numbers = seen[is_step][:, :2]
  np.testing.assert_allclose(numbers.mean(axis=0), 0.0, atol=1e-5)
  np.testing.assert_allclose(numbers.std(axis=0), 1.0, atol=1e-4)


def test_a_mask_is_never_scaled():
  spec = input_spec.InputSpec((8, 3), 'float32', 2.0, 1.0, masked=True)
  assert spec.scale == (2.0, 2.0, 1.0) and spec.offset == (1.0, 1.0, 0.0)
  assert spec.having(scale=(3.0, 4.0)).scale == (3.0, 4.0, 1.0)
  with pytest.raises(ValueError, match='one for each of 3 channels'):
    spec.having(scale=(3.0,))
  for shape, dtype in (
    ((8,), 'float32'),
    ((8, 3), 'int32'),
    ((8, 1), 'float32'),
  ):
    with pytest.raises(ValueError, match='Expected masked inputs to be series'):
      input_spec.InputSpec(shape, dtype, masked=True)


def test_augmentation_keeps_padding_and_mask():
  spec = input_spec.InputSpec(
    (9, 3),
    'float32',
    masked=True,
    crop_padding=2,
    scaling=0.5,
    jitter=0.5,
  )
  stored = ragged.pad_series(_SERIES, 9)
  seed = tf.constant([1, 2])
  seen = spec.preprocess(tf.constant(stored), seed).numpy()
  np.testing.assert_array_equal(seen[..., 2], stored[..., 2])
  is_step = stored[..., 2] > 0
  assert not seen[~is_step].any()
  assert (seen[is_step][:, 0] != stored[is_step][:, 0]).all()


def test_a_shifted_series_ends_with_its_own_last_step():
  stored = ragged.pad_series(_SERIES, 9)
  shifted = augmentation.augment_numbers(
    tf.constant(stored), tf.constant([1, 2]), crop_padding=2, masked=True
  ).numpy()
  shifts = set()
  for before, after, length in zip(stored, shifted, _LENGTHS):
    padded = np.pad(before[:length], [[2, 2], [0, 0]], mode='edge')
    candidates = {
      shift: padded[2 + shift : 2 + shift + length] for shift in range(-2, 3)
    }
    shifts |= {
      shift
      for shift, one in candidates.items()
      if np.array_equal(one, after[:length])
    }
    assert any(np.array_equal(c, after[:length]) for c in candidates.values())
    assert not after[length:].any()
  assert shifts == {-2, -1, 0, 1, 2}


def test_parts_of_several_inputs_are_masked_on_their_own():
  task = _task({'walk': _SERIES, 'age': 30.0 + np.arange(24)})
  spec = task.input_spec
  assert spec.masked == ('walk',)
  seen = spec.preprocess(tf.constant(task.clients[0].train['x']))
  walk = seen['walk'].numpy()
  assert walk.shape[1:] == (8, 3) and not walk[walk[..., 2] == 0].any()


def _frame():
  return pd.DataFrame(
    {
      'walk': [series.tolist() for series in _SERIES],
      'who': _WHOSE,
      'label': _LABELS,
    }
  )


def test_columns_of_lists_are_masked_series(tmp_path):
  path = tmp_path / 'walks.parquet'
  _frame().to_parquet(path)
  read = own_data.from_parquet(path, label='label', client='who')
  made = own_data.from_dataframe(_frame(), label='label', client='who')
  for task in (read, made):
    assert task.input_spec.masked and task.input_spec.shape == (8, 3)
    np.testing.assert_array_equal(_stored(task), _stored(_task(_SERIES)))
  cut = own_data.from_parquet(
    path, label='label', client='who', series_length=4
  )
  assert cut.input_spec.shape == (4, 3)
  both = own_data.from_dataframe(
    _frame().assign(age=1.0 * np.arange(24)), label='label', client='who'
  )
  assert both.input_spec.masked == ('walk',)


@pytest.mark.parametrize(
  'column, value, message',
  [
    ('walk', [], 'no step; the first is example 5'),
    ('walk', [[1.0]], r'\(1, 1\) of example 5'),
    ('walk', [[np.nan, 1.0]], 'NaN or infinity; the first is example 5'),
    ('walk', None, "'walk' misses 1 values; the first is in row 5"),
    ('label', None, "'label' misses 1 values; the first is in row 5"),
  ],
)
def test_broken_rows_are_named(tmp_path, column, value, message):
  frame = _frame().astype({'label': object})
  frame.at[5, column] = value
  path = tmp_path / 'walks.parquet'
  frame.to_parquet(path)
  with pytest.raises(ValueError, match=f'walks.parquet.*{message}'):
    own_data.from_parquet(path, label='label', client='who')


def test_clients_with_a_test_set_of_their_own_are_sent_to_from_arrays():
  pair = (_SERIES[:12], _LABELS[:12])
  with pytest.raises(ValueError, match='differ in length.*from_arrays'):
    own_data.to_task([(pair, pair)], task_spec.TaskSpec())


def test_series_length_is_refused_where_series_are_of_equal_length():
  for dataset in ('csv', 'npz', 'har'):
    spec = task_spec.TaskSpec(dataset=dataset, series_length=4)
    assert 'series_length' in spec.without_effect()
  spec = task_spec.TaskSpec(dataset='parquet', series_length=4)
  assert 'series_length' not in spec.without_effect()
