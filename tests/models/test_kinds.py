"""Inputs of any kind: their families, and every method on one of them."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa import experiment
from tff_fedsa.algorithms import registry
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.data import own_data
from tff_fedsa.data import task_spec
from tff_fedsa.models import families
from tff_fedsa.runs import exporting

_CLASSES = 3


def _inputs(kind, rng, labels):
  """Inputs that differ by class."""
  count = len(labels)
  if kind == 'table':
    rows = rng.normal(size=[count, 5]) + labels[:, None]
    return (rows * 100 + 40).astype(np.float32)
  if kind == 'series':
    steps = np.arange(12)[:, None] * (1 + labels[:, None, None])
    return np.sin(steps + rng.normal(size=[count, 1, 2])).astype(np.float32)
  if kind == 'tokens':
    tokens = rng.integers(1, 4, [count, 7]) + 3 * labels[:, None]
    tokens[:, 5:] = 0
    return tokens
  if kind == 'walks':  # Of unequal lengths.
    return [
      np.full([4 + i % 9, 2], label) + rng.normal(size=[1, 2])
      for i, label in enumerate(labels)
    ]
  if kind == 'parts':
    kinds = ('image', 'table', 'series', 'tokens', 'walks')
    return {one: _inputs(one, rng, labels) for one in kinds}
  return rng.integers(0, 256, [count, 8, 8, 1]).astype(np.uint8)


def _clients(kind, num_clients=3):
  rng = np.random.default_rng(0)
  labels = [np.arange(12) % _CLASSES for _ in range(num_clients)]
  return [(_inputs(kind, rng, own), own) for own in labels]


def _split(kind):
  """A task of three clients; series are padded to one length for all."""
  labels = np.arange(36) % _CLASSES
  return own_data.from_arrays(
    _inputs(kind, np.random.default_rng(0), labels),
    labels,
    client_ids=np.repeat([*'abc'], 12),
  )


_TASKS = {
  **{
    kind: own_data.to_task(_clients(kind), task_spec.TaskSpec())
    for kind in ('table', 'series', 'tokens')
  },
  # One of the parts is masked.
  'parts': _split('parts'),
  'masked': _split('walks'),
}
_ONE_INPUT = ('table', 'series', 'tokens')


@pytest.mark.parametrize('kind', _ONE_INPUT)
def test_a_kind_has_a_family_of_three(kind):
  spec = _TASKS[kind].input_spec
  assert spec.kind == kind
  family = families.for_kind(families.DEFAULT, spec)
  assert families.for_kind('digits_mlp', spec) == 'digits_mlp'
  models = families.build_family(
    family, spec.model_shape, 3, 8, vocabulary_size=spec.vocabulary_size
  )
  assert len(models) == 3
  inputs = _TASKS[kind].clients[0].train['x']
  for model in models:
    forward = model.build_forward(spec)
    weights = model.initial_weights(0)
    features, logits = forward(*model.split(tf.constant(weights)), inputs)
    assert features.shape == (9, 8) and logits.shape == (9, 3)
    # A single example, and the extremes of shape, work as well.
    assert np.ptp(features.numpy(), axis=0).max() > 0.0


@pytest.mark.parametrize(
  'family, shapes',
  [
    ('tabular', [(1,), (40,)]),
    ('sensor', [(1, 1), (3, 2), (50, 9)]),
    ('text', [(1,), (40,)]),
  ],
)
def test_a_family_fits_any_shape_of_its_kind(family, shapes):
  for shape in shapes:
    size = 11 if family == 'text' else None
    models = families.build_family(family, shape, 2, 4, vocabulary_size=size)
    zeros = tf.zeros([2, *shape], tf.int32 if size else tf.float32)
    for model in models:
      extractor, _ = model.halves
      assert np.isfinite(extractor(zeros)).all()


def test_padding_is_neither_seen_nor_counted():
  models = families.build_family('text', (6,), 2, 4, vocabulary_size=9)
  for model in models:
    if model.name == 'text_cnn':
      continue  # Its kernels see where a text ends.
    extractor, _ = model.to_keras(model.initial_weights(3))
    embedding = next(
      layer
      for layer in extractor.layers
      if isinstance(layer, tf.keras.layers.Embedding)
    )
    tokens = tf.constant([[3, 4, 0, 0, 0, 0]])
    before = extractor(tokens)
    table = embedding.get_weights()[0]
    table[0] += 5.0
    embedding.set_weights([table])
    np.testing.assert_allclose(extractor(tokens), before, atol=1e-5)


def _run(runtimes, kind, method, family):
  with runtimes.default('in_process'):
    result = experiment.Experiment(
      _TASKS[kind], method, family=family, feature_dim=8, total_rounds=1
    ).run(progress=False)
  assert np.isfinite(result.history['loss'].iloc[-1])
  assert result.history['head_accuracy'].iloc[-1] >= 0.0
  return result


@pytest.mark.slow
@pytest.mark.parametrize('kind', _TASKS)
def test_the_default_family_is_that_of_the_kind(runtimes, kind):
  result = _run(runtimes, kind, 'fedsa', families.DEFAULT)
  inputs = _TASKS[kind].clients[2].test['x']
  assert result.client(2).predict(inputs).shape == (3,)


_SMALLEST = {
  'table': 'table_mlp',
  'series': 'sensor_cnn',
  'tokens': 'text_mean',
  'parts': 'mixed1',
}


# One of each: features alone, averaged weights, a companion model.
_FAST = (('tokens', 'fedgen'), ('series', 'fedavg'), ('table', 'fml'))


@pytest.mark.parametrize(
  'kind, method',
  [
    *_FAST,
    # All kinds at once, as several inputs of each example, one of them masked.
    *(
      pytest.param('parts', method, marks=pytest.mark.slow)
      for method in registry.names()
    ),
  ],
)
def test_every_method_runs_on_other_kinds_than_images(runtimes, kind, method):
  _run(runtimes, kind, method, _SMALLEST[kind])


@pytest.mark.parametrize(
  'kind',
  [
    'table',
    'tokens',
    pytest.param('series', marks=pytest.mark.slow),
    pytest.param('masked', marks=pytest.mark.slow),
  ],
)
def test_exported_models_take_inputs_as_stored(tmp_path, kind):
  task = _TASKS[kind]
  spec = task.input_spec
  for model in families.build_family(
    families.for_kind(families.DEFAULT, spec),
    spec.model_shape,
    3,
    8,
    vocabulary_size=spec.vocabulary_size,
    masked=spec.masked,
  ):
    weights = model.initial_weights(1)
    state = type('State', (), {'weights': weights})
    keras_model = exporting.to_keras(model, state, None, spec)
    keras_model.save(tmp_path / f'{model.name}.keras')
    loaded = tf.keras.models.load_model(tmp_path / f'{model.name}.keras')
    inputs = task.clients[0].test['x']
    expected, _ = model.build_forward(spec)(
      *model.split(tf.constant(weights)), inputs
    )
    np.testing.assert_allclose(
      loaded(inputs)['features'], expected, rtol=1e-4, atol=1e-5
    )


def test_architectures_of_other_kinds_are_refused():
  with pytest.raises(ValueError, match='table_mlp.*rows of a table'):
    families.build_family('table_mlp', (8, 8, 1), 2, 4)
  with pytest.raises(ValueError, match="'digits_cnn' takes no inputs of shape"):
    families.build_family('digits_cnn', (14,), 2, 4)
  with pytest.raises(ValueError, match="'table_mlp' takes numbers.*vocabulary"):
    families.build_family('table_mlp', (14,), 2, 4, vocabulary_size=9)
  with pytest.raises(ValueError, match="'text_mean' takes integers"):
    families.build_family('text_mean', (14,), 2, 4)
  video = input_spec_lib.InputSpec((4, 8, 8, 3))
  with pytest.raises(ValueError, match='no family for inputs of shape'):
    families.for_kind(families.DEFAULT, video)


def test_tables_and_series_are_standardized_by_train_examples():
  for kind in ('table', 'series'):
    task = _TASKS[kind]
    seen = [
      task.input_spec.preprocess(c.train['x']).numpy() for c in task.clients
    ]
    numbers = np.concatenate(seen)
    axes = tuple(range(numbers.ndim - 1))
    np.testing.assert_allclose(numbers.mean(axes), 0.0, atol=1e-5)
    np.testing.assert_allclose(numbers.std(axes), 1.0, atol=1e-4)
