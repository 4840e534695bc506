"""Every layer and application of Keras, trained as a client trains it."""

import pathlib

import pytest

from benchmarks import keras_equality
from benchmarks import keras_recipes

_LAYERS = sorted(
  [*keras_recipes.EQUAL, *keras_recipes.RANDOM, *keras_recipes.REFUSED]
)
# Each takes 5 to 20 s; the others up to 80 s. MobileNetV2 and
# EfficientNetB0 are in tests/models/test_functional.py.
_QUICK_APPLICATIONS = ('MobileNetV3Small', 'RegNetX002', 'VGG16', 'Xception')


def test_every_class_of_keras_has_one_place_in_the_table():
  placed = [*_LAYERS, *keras_recipes.OTHERS]
  assert sorted(placed) == keras_recipes.layer_classes()
  assert set(keras_recipes.APPLICATIONS) < set(
    keras_recipes.application_names()
  )


def test_the_documents_have_the_table():
  document = pathlib.Path(__file__).parents[2] / 'docs' / 'models.md'
  assert (
    keras_equality.table() in document.read_text()
  ), 'python -m benchmarks.keras_layers --table'


@pytest.mark.parametrize('name', ['Dense', 'SpectralNormalization'])
def test_a_layer_is_tried(name):
  refused = name == 'SpectralNormalization'
  assert keras_equality.try_out(name).startswith('refused') == refused


def test_a_difference_is_found():
  """Dropout draws other numbers here than in Keras."""
  dropout = keras_recipes.L.Dropout
  difference = keras_equality.compare(
    'dropout', lambda: keras_recipes.layer_model(lambda x: dropout(0.5)(x))
  )
  assert difference > 100 * keras_equality.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize('name', _LAYERS)
def test_layers_are_trained_as_keras_trains_them(name):
  keras_equality.try_out(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', _QUICK_APPLICATIONS)
def test_applications_are_trained_as_keras_trains_them(name):
  keras_equality.try_out(name)
