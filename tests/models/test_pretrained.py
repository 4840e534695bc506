"""Feature extractors that start from a file's weights."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.models import families
from tff_fedsa.models import pretrained

_IMAGE = (32, 32, 3)


def _random_weights(model, seed=0):
  """Weights that no initializer draws; variances stay positive."""
  rng = np.random.default_rng(seed)
  return [rng.uniform(0.1, 0.9, w.shape) for w in model.get_weights()]


def test_state_dict_of_torchvision(tmp_path):
  """Its classifier and counters are of no concern."""
  (model,) = families.build_family('resnet4', _IMAGE, 10, 64)
  extractor = model.to_keras(model.initial_weights(0)).feature_extractor
  extractor.set_weights(_random_weights(extractor))
  arrays = {'fc.weight': np.zeros([1000, 512])}
  for layer in extractor.layers:
    if isinstance(layer, tf.keras.layers.Conv2D):
      arrays[f'{layer.name}.weight'] = layer.kernel.numpy().transpose(
        3, 2, 0, 1
      )
    elif layer.weights:
      names = ('weight', 'bias', 'running_mean', 'running_var')
      for name, variable in zip(names, layer.weights):
        arrays[f'{layer.name}.{name}'] = variable.numpy()
      arrays[f'{layer.name}.num_batches_tracked'] = np.array(7)
  np.savez(tmp_path / 'resnet4.npz', **arrays)
  loaded, other = families.build_family(
    'resnet4,fedavg_cnn',
    _IMAGE,
    10,
    64,
    pretrained_weights={'resnet4': str(tmp_path / 'resnet4.npz')},
  )
  for seed in (0, 1):
    halves = loaded.to_keras(loaded.initial_weights(seed))
    for ours, theirs in zip(
      halves.feature_extractor.get_weights(), extractor.get_weights()
    ):
      np.testing.assert_array_equal(ours, theirs)
  # The head is drawn as ever, and so are other architectures.
  head = loaded.num_trainable - 64 * 10 - 10
  assert np.any(
    loaded.initial_weights(0)[head : loaded.num_trainable]
    != loaded.initial_weights(1)[head : loaded.num_trainable]
  )
  assert np.any(other.initial_weights(0) != other.initial_weights(1))


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, application_fn, preprocess_fn',
  [
    (
      'keras_mobilenet_v2',
      tf.keras.applications.MobileNetV2,
      tf.keras.applications.mobilenet_v2.preprocess_input,
    ),
    (
      'keras_resnet50',
      tf.keras.applications.ResNet50,
      tf.keras.applications.resnet50.preprocess_input,
    ),
  ],
)
def test_applications_compute_what_keras_does(
  tmp_path, name, application_fn, preprocess_fn
):
  theirs = application_fn(
    include_top=False, weights=None, input_shape=_IMAGE, pooling='avg'
  )
  rng = np.random.default_rng(0)
  theirs.set_weights(
    [w + rng.normal(0.0, 0.01, w.shape) for w in theirs.get_weights()]
  )
  path = str(tmp_path / 'notop.h5')
  theirs.save_weights(path)
  (model,) = families.build_family(
    name,
    _IMAGE,
    10,
    theirs.output_shape[1],
    pretrained_weights={name: path},
  )
  forward = model.build_forward(
    input_spec.InputSpec(_IMAGE, 'float32', 1.0, 0.0)
  )
  weights = model.split(tf.constant(model.initial_weights(3)))
  images = rng.integers(0, 256, [3, *_IMAGE]).astype(np.float32)
  expected = theirs(preprocess_fn(images.copy()))
  features, _ = forward(*weights, images / 127.5 - 1.0)
  assert np.isfinite(expected).all()
  scale = np.abs(expected).max()
  np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4 * scale)


def _build(family, **files):
  families.build_family(family, _IMAGE, 10, 64, pretrained_weights=files)


def test_files_that_do_not_fit_are_refused(tmp_path):
  np.savez(tmp_path / 'other.npz', a=np.zeros(3))
  npz = str(tmp_path / 'other.npz')
  with pytest.raises(ValueError, match='conv1.weight is missing'):
    _build('resnet4', resnet4=npz)
  with pytest.raises(ValueError, match=r"\['resnet18'\].*not among.*'resnet4'"):
    _build('resnet4', resnet18=npz)
  with pytest.raises(ValueError, match='no file of pretrained weights'):
    _build('resnet4', resnet4='nowhere.npz')
  with pytest.raises(ValueError, match=r'state_dict.*npz.*keras_\*'):
    _build('resnet4', resnet4=__file__)


@pytest.mark.slow
def test_files_that_do_not_fit_applications_are_refused(tmp_path):
  (tmp_path / 'file.h5').write_bytes(b'no HDF5')
  npz, h5 = __file__, str(tmp_path / 'file.h5')
  with pytest.raises(ValueError, match='without the top.*notop.h5'):
    _build('keras_mobilenet_v2', keras_mobilenet_v2=npz)
  with pytest.raises(ValueError, match='does not hold the weights'):
    _build('keras_mobilenet_v2', keras_mobilenet_v2=h5)


def test_models_without_layers_of_torchvision_are_refused(tmp_path):
  images = tf.keras.Input([3])
  model = tf.keras.Model(images, tf.keras.layers.Dense(2, name='own')(images))
  np.savez(tmp_path / 'weights.npz', fc=np.zeros(3))
  with pytest.raises(ValueError, match='own.weight is missing'):
    pretrained.load(model, str(tmp_path / 'weights.npz'))
