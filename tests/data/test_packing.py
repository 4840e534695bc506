"""Inputs of several parts: packed without loss, trained as by hand."""

import collections

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.data import datasets
from tff_fedsa.data import elements
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import own_data
from tff_fedsa.data import packing
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.models import families
from tff_fedsa.models import own_models
from tff_fedsa.runs import exporting

_COUNT = 24
_LABELS = np.arange(_COUNT) % 3


def _inputs():
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, 6, [_COUNT, 5])
  length = 1 + _LABELS
  tokens[np.arange(5) >= length[:, None]] = 0
  return {
    'image': rng.integers(0, 256, [_COUNT, 4, 4, 1]).astype(np.uint8),
    'age': (rng.normal(size=_COUNT) * 9 + 50 + 20 * _LABELS).astype('f8'),
    'tokens': tokens,
    'length': length.astype(np.int32),
  }


def _task(**settings):
  return own_data.from_arrays(
    _inputs(), _LABELS, client_ids=['a', 'b'] * (_COUNT // 2), **settings
  )


def _model(as_list=False):
  """An own model of one dense layer for each input."""
  inputs = {
    'image': tf.keras.Input((4, 4, 1), name='image'),
    'age': tf.keras.Input((1,), name='age'),
    'tokens': tf.keras.Input((5,), dtype=tf.int32, name='tokens'),
    'length': tf.keras.Input((1,), dtype=tf.int32, name='length'),
  }
  words = tf.keras.layers.Embedding(6, 3)(inputs['tokens'])
  hidden = tf.keras.layers.Concatenate()(
    [
      tf.keras.layers.Flatten()(inputs['image']),
      inputs['age'],
      tf.reduce_sum(words, axis=1) / tf.cast(inputs['length'], tf.float32),
    ]
  )
  features = tf.keras.layers.Dense(6, activation='relu')(hidden)
  logits = tf.keras.layers.Dense(3)(features)
  given = [*inputs.values()] if as_list else inputs
  return tf.keras.Model(given, logits)


def test_packing_loses_nothing():
  rng = np.random.default_rng(1)
  specs = {
    'a': input_spec_lib.InputSpec((3, 2), 'float32'),
    'b': input_spec_lib.InputSpec((5,), 'uint8'),
    'c': input_spec_lib.InputSpec((2,), 'int64', vocabulary_size=9),
    'd': input_spec_lib.InputSpec((1,), 'int32', vocabulary_size=9),
  }
  inputs = {
    'a': rng.normal(size=[7, 3, 2]).astype(np.float32),
    'b': rng.integers(0, 256, [7, 5]).astype(np.uint8),
    'c': rng.integers(0, 9, [7, 2]),
    'd': rng.integers(0, 9, [7, 1]).astype(np.int32),
  }
  inputs['a'][0, 0] = [-0.0, 1e-42]  # Neither sign nor tiny numbers are lost.
  packed = packing.PackedSpec(tuple(specs.items()))
  rows = packed.pack(inputs)
  assert rows.shape == (7, 24 + 5 + 16 + 4) == (7, *packed.shape)
  for name, array in packed.unpack(rows).items():
    assert array.tobytes() == inputs[name].tobytes()
    assert array.shape == inputs[name].shape
  seen = packed.preprocess(tf.constant(rows))
  for name, spec in specs.items():
    np.testing.assert_array_equal(seen[name], spec.preprocess(inputs[name]))
  for wrong, message in (
    ({**inputs, 'e': inputs['a']}, 'of the parts .*found'),
    ({**inputs, 'a': inputs['a'][:3]}, 'as many examples each'),
    ({**inputs, 'b': inputs['a']}, r'b: expected uint8\[num_examples, 5\]'),
  ):
    with pytest.raises(ValueError, match=message):
      packed.pack(wrong)


def test_each_part_is_scaled_as_its_kind():
  task = _task()
  assert task.input_spec.model_shape == {
    'image': (4, 4, 1),
    'age': (1,),
    'tokens': (5,),
    'length': (1,),
  }
  parts = dict(task.input_spec.parts)
  assert parts['tokens'].vocabulary_size == 6
  train = np.concatenate([client.train['x'] for client in task.clients])
  seen = task.input_spec.preprocess(tf.constant(train))
  assert seen['image'].numpy().min() >= -1.0
  np.testing.assert_allclose(np.mean(seen['age']), 0.0, atol=1e-5)
  np.testing.assert_allclose(np.std(seen['age']), 1.0, atol=1e-5)
  assert seen['tokens'].dtype == tf.int32
  assert 'age: rows of a table, float32[1]' in tasks.report(task)


def test_augmentation_goes_to_the_parts_that_can_have_it():
  spec = _task(augment_jitter=0.1, augment_token_dropout=0.5).input_spec
  parts = dict(spec.parts)
  assert parts['age'].jitter == 0.1 and parts['tokens'].token_dropout == 0.5
  assert parts['image'].jitter == 0.0
  rows = tf.constant(spec.pack({n: a for n, a in _stored(spec).items()}))
  first, again, other = (
    spec.preprocess(rows, tf.constant(seed))
    for seed in ([1, 2], [1, 2], [1, 3])
  )
  for name in ('age', 'tokens'):
    np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first[name], other[name])
  np.testing.assert_array_equal(first['image'], other['image'])
  with pytest.raises(ValueError, match='No part of the inputs can have scalin'):
    _task(augment_scaling=0.1)


def _stored(spec):
  inputs = _inputs()
  return {
    name: inputs[name].reshape(_COUNT, *part.shape).astype(part.dtype)
    for name, part in spec.parts
  }


@pytest.mark.parametrize('as_list', [False, True])
def test_own_models_take_a_dict_of_inputs(as_list):
  task = _task()
  spec = task.input_spec
  keras_model = _model(as_list)
  (model,) = own_models.to_functional([keras_model], spec.model_shape, 3)
  stored = _stored(spec)
  seen = {name: part.preprocess(stored[name]) for name, part in spec.parts}
  split = model.split(tf.constant(model.initial_weights(0)))
  _, logits = model.build_forward(spec)(*split, spec.pack(stored))
  np.testing.assert_allclose(logits, keras_model(seen), atol=1e-5)
  state = type('State', (), {'weights': model.initial_weights(0)})
  exported = exporting.to_keras(model, state, None, spec)
  np.testing.assert_allclose(exported(stored)['head'], logits, atol=1e-5)


def _all_kinds():
  rng = np.random.default_rng(3)
  return {
    **_inputs(),
    'series': rng.normal(size=[_COUNT, 6, 2]).astype(np.float32),
    'said': [f'word{i % 5} topic{label}' for i, label in enumerate(_LABELS)],
  }


@pytest.mark.parametrize(
  'name',
  [
    'mixed1',
    *(pytest.param(n, marks=pytest.mark.slow) for n in ('mixed2', 'mixed3')),
  ],
)
def test_a_family_takes_any_mix_of_inputs(name):
  task = own_data.from_arrays(_all_kinds(), _LABELS, client_ids=_LABELS)
  spec = task.input_spec
  assert families.for_kind(families.DEFAULT, spec) == 'mixed'
  assert spec.vocabulary_size['said'] == len(task.words) == 10
  vectors = np.arange(40, dtype=np.float32).reshape(10, 4) / 8
  assert name in families.members('mixed')
  (model,) = families.build_family(
    name,
    spec.model_shape,
    3,
    5,
    vocabulary_size=spec.vocabulary_size,
    embeddings=vectors,
  )
  rows = task.clients[0].train['x']
  weights = model.initial_weights(0)
  assert np.isin(vectors[1:], weights).all()
  forward = tf.function(model.build_forward(spec), autograph=False)
  split = model.split(tf.constant(weights))
  features, logits = forward(*split, tf.constant(rows))
  assert features.shape == (len(rows), 5) and logits.shape == (len(rows), 3)
  # Each input matters.
  parts = spec.unpack(rows)
  for part, values in parts.items():
    other = {**parts, part: values[::-1].copy()}
    if not np.array_equal(other[part], values):
      changed, _ = forward(*split, tf.constant(spec.pack(other)))
      assert np.abs(changed - features).max() > 1e-6, part


@pytest.mark.parametrize('form', ['pairs', 'train and test', 'ClientData'])
def test_clients_have_several_inputs(form):
  inputs = {name: np.asarray(v) for name, v in _all_kinds().items()}
  clients = []
  for client in range(2):
    own = {name: values[client::2] for name, values in inputs.items()}
    clients.append((own, _LABELS[client::2]))
  if form == 'train and test':
    first, second = (
      [({n: v[part] for n, v in x.items()}, y[part]) for x, y in clients]
      for part in (slice(0, 9), slice(9, None))
    )
    data = [*zip(first, second)]
  elif form == 'ClientData':
    data = tff.simulation.datasets.TestClientData(
      {
        str(i): collections.OrderedDict(x=collections.OrderedDict(x), y=y)
        for i, (x, y) in enumerate(clients)
      }
    )
  else:
    data = clients
  task = own_data.to_task(data, task_spec.TaskSpec())
  assert task.num_clients == 2 and task.num_classes == 3
  assert [len(client.train['y']) for client in task.clients] == [9, 9]
  assert {*task.input_spec.model_shape} == {*inputs}
  train = task.input_spec.unpack(task.clients[1].train['x'])
  if form == 'train and test':
    np.testing.assert_array_equal(train['tokens'], clients[1][0]['tokens'][:9])
  said = train['said'][0]
  assert ' '.join(task.words[token] for token in said).startswith(('word', '['))
  # Rows are compared when a run resumes.
  assert task.partition is None


def test_clients_with_other_inputs_are_refused():
  one = ({'a': np.ones([4, 2]), 'b': np.ones([4, 3])}, np.arange(4) % 2)
  for other, match in (
    (({'a': np.ones([4, 2])}, np.arange(4)), 'client 1: expected inputs named'),
    ((np.ones([4, 2]), np.arange(4)), 'client 1 has one input'),
    (({'a': np.ones([4, 2]), 'b': np.ones([3, 3])}, np.arange(4)), 'of 3 b'),
    (({'a': np.ones([4, 5]), 'b': np.ones([4, 3])}, np.arange(4)), 'in shape'),
  ):
    with pytest.raises(ValueError, match=match):
      own_data.to_task([one, other], task_spec.TaskSpec())


@pytest.mark.parametrize(
  'inputs, options, message',
  [
    ({'a': [1.0], 'b': 'said'}, {}, "'b': .*found text"),
    ({'a': [1.0], 'b': [2]}, {}, "'b': Expected vocabulary_size"),
    ({'a': [1.0]}, {'scale': 2.0}, 'no scale or offset in common'),
    ({'a': [1.0]}, {'vocabulary_size': 3}, 'vocabulary_size by name'),
    ([1.0], {'vocabulary_size': {'a': 3}}, 'one vocabulary_size'),
  ],
)
def test_unsuitable_inputs_of_pipelines_are_refused(inputs, options, message):
  dataset = tf.data.Dataset.from_tensors((inputs, 1))
  with pytest.raises(ValueError, match=message):
    elements.input_spec_of(dataset.element_spec, **options)


def test_files_and_tables_have_several_inputs(tmp_path):
  inputs = _all_kinds()
  path = tmp_path / 'mine.npz'
  np.savez(path, y=_LABELS, **{f'x_{name}': v for name, v in inputs.items()})
  source = datasets.load('npz', data_dir=str(path))
  assert {*source.input_spec.model_shape} == {*inputs}
  frame = pd.DataFrame(
    {
      'age': inputs['age'],
      'sex': ['f', 'm'] * 12,
      'said': inputs['said'],
      'series': [one.tolist() for one in inputs['series']],
      'tokens': [*inputs['tokens']],
      'ill': _LABELS,
    }
  )
  frame.to_parquet(tmp_path / 'mine.parquet')
  spec = task_spec.TaskSpec(
    dataset='parquet',
    data_dir=str(tmp_path / 'mine.parquet'),
    label_column='ill',
    text_column='said',
    text_with_columns=True,
    num_clients=2,
    partition='iid',
  )
  task = tasks.load_task(spec)
  assert task.input_spec.model_shape == {
    'said': (2,),
    'series': (6, 2),
    'tokens': (5,),
    'columns': (3,),
  }
  kinds = [part.kind for _, part in task.input_spec.parts]
  assert kinds == ['tokens', 'series', 'tokens', 'table']
  with pytest.raises(settings.SettingsError, match='there is no text_column'):
    task_spec.TaskSpec(
      dataset='csv', data_dir='x', text_with_columns=True
    ).refuse_ignored()
  ragged = frame.assign(tokens=[[1] * (1 + i % 2) for i in range(_COUNT)])
  task = own_data.from_dataframe(ragged, label='ill', client='sex')
  assert task.input_spec.model_shape['tokens'] == (2,)
  uneven = frame.assign(
    tokens=[[[1], [2] * (1 + i % 2)] for i in range(_COUNT)]
  )
  with pytest.raises(ValueError, match="in the lists of the column 'tokens'"):
    own_data.from_dataframe(uneven, label='ill', client='sex')


@pytest.mark.slow  # The page of own data has such a run, too.
def test_a_run_and_its_predictions(runtimes, tmp_path):
  task = _task()
  with runtimes.default('in_process'):
    result = experiment.Experiment(
      task, 'fedsa', models=[_model()], total_rounds=1
    ).run(progress=False)
  assert np.isfinite(result.history['loss'].iloc[-1])
  inputs = _stored(task.input_spec)
  client = result.client(1)
  predicted = client.predict(inputs)
  assert predicted.shape == (_COUNT,)
  # Rows of bytes, as the task has them, are inputs, too.
  np.testing.assert_array_equal(
    client.predict(task.input_spec.pack(inputs)), predicted
  )
  path = str(tmp_path / 'client.keras')
  client.save(path)
  loaded = tf.keras.models.load_model(path)
  np.testing.assert_allclose(
    loaded(inputs)['features'], client.features(inputs), atol=1e-5
  )


def test_what_does_not_fit_is_refused():
  task = _task()
  with pytest.raises(ValueError, match="'digits_cnn' does not take several"):
    experiment.Experiment(task, family='digits_cnn').models  # noqa: B018
  with pytest.raises(ValueError, match="'mixed2' takes several inputs by name"):
    families.build_family('mixed2', (4,), 2, 4)
  one = tf.keras.Sequential(
    [tf.keras.Input((4, 4, 1)), tf.keras.layers.Flatten()]
    + [tf.keras.layers.Dense(n) for n in (6, 3)]
  )
  with pytest.raises(ValueError, match="expected inputs {'image'"):
    own_models.to_functional([one], task.input_spec.model_shape, 3)
  with pytest.raises(ValueError, match='arrays, title: expected texts with'):
    own_data.from_arrays(
      {'text': ['a', 'b'], 'title': ['', '!']}, [0, 1], client_ids=[0, 0]
    )
  with pytest.raises(ValueError, match='arrays, age: 24 of 24 inputs hold NaN'):
    own_data.from_arrays(
      {**_inputs(), 'age': np.full(_COUNT, np.nan)}, _LABELS, client_ids=_LABELS
    )
  with pytest.raises(ValueError, match='arrays: Expected parts of as many'):
    own_data.from_arrays(
      {**_inputs(), 'age': np.ones(3)}, _LABELS, client_ids=_LABELS
    )
