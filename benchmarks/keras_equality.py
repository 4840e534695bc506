"""Compares a client's local training with Keras's `train_on_batch`."""

from collections.abc import Callable
import re

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks import keras_recipes
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import functional

# Tolerance, relative to the largest weight.
TOLERANCE = 1e-5

_NUM_STEPS = 3
_BATCH_SIZE = 4
_LEARNING_RATE = 0.05
# Deep networks with BatchNorm on four images amplify rounding errors in each
# step.
_APPLICATION_LEARNING_RATE = 1e-3

_BuildFn = Callable[[], tuple[tf.keras.Model, tf.keras.Model]]


def try_out(name: str) -> str:
  """Trains a layer or an application, and returns the result.

  Raises:
    AssertionError: If it is not trained as Keras trains it, or is not refused
      although it is known to be.
    ValueError: If it is refused, or has no recipe.
  """
  recipes = keras_recipes
  layer_fn = {**recipes.EQUAL, **recipes.RANDOM}.get(name)
  if name in recipes.REFUSED:
    return _refused(name)
  if layer_fn is not None:
    difference = compare(name, lambda: recipes.layer_model(layer_fn))
  elif name in recipes.APPLICATIONS:
    difference = compare(
      name,
      lambda: recipes.application_model(name),
      _APPLICATION_LEARNING_RATE,
    )
  elif name in recipes.application_names():
    model = _model(name, lambda: recipes.application_model(name))
    return f'built, {model.num_weights:,} weights'
  else:
    raise ValueError(f'There is no recipe for {name!r}.')
  assert difference <= TOLERANCE, f'{name}: {difference:.1e}'
  return f'{difference:.1e}'


def compare(
  name: str, build_fn: _BuildFn, learning_rate: float = _LEARNING_RATE
) -> float:
  """Returns the largest difference of a weight, after three steps of SGD.

  Args:
    name: Name of the model.
    build_fn: Returns a new feature extractor and head.
    learning_rate: Learning rate of SGD.

  Raises:
    AssertionError: If Keras's training does not move the weights.
  """
  model = _model(name, build_fn)
  weights = model.initial_weights(0)
  images, labels = _examples(model)
  ours = _train(model, weights, images, labels, learning_rate)

  theirs = _keras_train(model, weights, images, labels, learning_rate)
  moved = np.abs(theirs - weights)[: model.num_trainable]
  assert np.max(moved) > 10.0 * TOLERANCE, f'{name} does not learn'
  assert np.isfinite(theirs).all(), f'{name} diverges'
  return _difference(ours, theirs)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
  return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def _model(name: str, build_fn: _BuildFn) -> functional.FunctionalModel:
  return functional.FunctionalModel(
    lambda: functional.KerasClientModel(*build_fn()), name=name
  )


def _examples(
  model: functional.FunctionalModel,
) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  num_examples = _NUM_STEPS * _BATCH_SIZE
  images = rng.normal(size=[num_examples, *model.input_shape])
  if keras_recipes.takes_pixels(model.halves[0]):
    images = 127.5 + 60.0 * images
  labels = rng.integers(0, keras_recipes.NUM_CLASSES, num_examples)
  return images.astype(np.float32), labels.astype(np.int32)


def _train(
  model: functional.FunctionalModel,
  weights: np.ndarray,
  images: np.ndarray,
  labels: np.ndarray,
  learning_rate: float,
) -> np.ndarray:
  """Returns the weights after a client's local training."""
  height, width, channels = model.input_shape
  shape = height, width, channels
  train = local_training.build_local_training(
    model,
    objective.cross_entropy_objective(),
    local_optimizer.LocalOptimizer(
      tff.learning.optimizers.build_sgdm(learning_rate)
    ),
    input_spec_lib.InputSpec(shape, 'float32', 1.0, 0.0),
    local_training.LocalTrainingConfig(batch_size=_BATCH_SIZE, shuffle=False),
  )
  result = tf.function(train, autograph=False)(
    tf.constant(weights),
    tf.zeros([0]),
    {'x': tf.constant(images), 'y': tf.constant(labels)},
    {},
    tf.constant([0, 1]),
    tf.constant(0),
  )
  return result.weights.numpy()


def _keras_train(
  model: functional.FunctionalModel,
  weights: np.ndarray,
  images: np.ndarray,
  labels: np.ndarray,
  learning_rate: float,
) -> np.ndarray:
  """Returns the weights after Keras's training of the same model."""
  extractor, head = keras_model = model.to_keras(weights)
  inputs = tf.keras.Input(model.input_shape)
  joint = tf.keras.Model(inputs, head(extractor(inputs)))
  joint.compile(
    tf.keras.optimizers.SGD(learning_rate),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    # To trace a step takes longer than the few steps.
    run_eagerly=True,
  )
  for start in range(0, len(labels), _BATCH_SIZE):
    batch = slice(start, start + _BATCH_SIZE)
    joint.train_on_batch(images[batch], labels[batch])
  return model.weights_from_keras(keras_model)


def _refused(name: str) -> str:
  refusal = keras_recipes.REFUSED[name]
  try:
    compare(name, lambda: keras_recipes.layer_model(refusal.layer_fn))
  except ValueError as error:
    assert re.search(refusal.match, str(error)), f'{name}: {error}'
    return f'refused: {error}'
  raise AssertionError(f'{name} is not refused.')


def table() -> str:
  """Returns the table of docs/models.md."""
  rows = [
    ('as Keras trains it', list(keras_recipes.EQUAL)),
    (
      'as Keras trains it, but with random numbers of their own',
      list(keras_recipes.RANDOM),
    ),
    ('as Keras trains it (application)', list(keras_recipes.APPLICATIONS)),
    (
      'built; not comparable on twelve small images, where rounding errors '
      'decide (application)',
      keras_recipes.SENSITIVE,
    ),
    ('built, not compared (application)', keras_recipes.large_applications()),
    *(
      (f'refused: {refusal.reason}', [name])
      for name, refusal in keras_recipes.REFUSED.items()
    ),
    *(
      (
        f'not tried: {reason}',
        [n for n, r in keras_recipes.OTHERS.items() if r == reason],
      )
      for reason in sorted(set(keras_recipes.OTHERS.values()))
    ),
  ]
  lines = ['| a client trains it | layers |', '|---|---|']
  for outcome, names in rows:
    listed = ', '.join(f'`{name}`' for name in sorted(names))
    lines.append(f'| {outcome} | {listed} |')
  return '\n'.join(lines)
