"""Each client sees its own rotation and colour, in all of its examples."""

import dataclasses

import numpy as np
import pytest

from tff_fedsa import experiment
from tff_fedsa import settings
from tff_fedsa.data import client_shift
from tff_fedsa.data import mapped_clients
from tff_fedsa.data import tasks

_SPEC = tasks.TaskSpec(num_clients=3, max_examples=300, alpha=100.0)


def _load(**changes):
  return tasks.load_task(dataclasses.replace(_SPEC, **changes))


def test_rotation_by_a_right_angle_is_exact():
  images = np.random.default_rng(0).integers(0, 255, [4, 8, 8, 3], np.uint8)
  turned = client_shift.rotated(images, 90.0)
  assert turned.dtype == np.uint8
  np.testing.assert_array_equal(turned, np.rot90(images, axes=(1, 2)))
  np.testing.assert_array_equal(client_shift.rotated(images, 0.0), images)


def test_tint_is_the_formula():
  images = np.random.default_rng(0).uniform(size=[4, 8, 8, 1])
  images = images.astype(np.float32)
  red = client_shift.tinted(images, hue=0.0, strength=0.75)
  assert red.dtype == np.float32
  np.testing.assert_allclose(red[..., :1], images, rtol=1e-6)
  np.testing.assert_allclose(red[..., 1:2], 0.25 * images, rtol=1e-6)
  whole = np.full([1, 2, 2, 3], 201, np.uint8)
  green = client_shift.tinted(whole, hue=1 / 3, strength=0.5)
  np.testing.assert_array_equal(green[0, 0, 0], [100, 201, 100])


def test_train_validation_and_test_of_a_client_turn_alike():
  plain = _load(validation_fraction=0.2)
  turned = _load(validation_fraction=0.2, client_rotation=90.0)
  angles = np.random.default_rng([0, 1]).uniform(-90.0, 90.0, 3)
  for i, angle in enumerate(angles):
    pairs = [
      (plain.clients[i].train, turned.clients[i].train),
      (plain.clients[i].test, turned.clients[i].test),
      (plain.validation_fns[i](), turned.validation_fns[i]()),
    ]
    for before, after in pairs:
      np.testing.assert_array_equal(after['y'], before['y'])
      assert after['x'].dtype == before['x'].dtype
      np.testing.assert_array_equal(
        after['x'], client_shift.rotated(before['x'], angle)
      )
  assert turned.input_spec == plain.input_spec
  other = _load(client_rotation=90.0, seed=1)
  np.testing.assert_array_equal(
    other.class_counts(), _load(seed=1).class_counts()
  )


def test_a_tint_makes_three_channels_and_differs_between_clients():
  task = _load(client_tint=1.0)
  assert task.input_spec.shape == (8, 8, 3)
  shares = []
  for client in task.clients:
    assert client.train['x'].shape[1:] == (8, 8, 3)
    colour = client.train['x'].sum((0, 1, 2), dtype=np.float64)
    shares.append(colour / colour.sum())
  assert np.ptp(shares, axis=0).max() > 0.1


def test_all_clients_are_tested_on_all_rotations():
  task = _load(client_rotation=90.0, test_classes='all')
  own = _load(client_rotation=90.0)
  np.testing.assert_array_equal(
    task.clients[0].test['x'],
    np.concatenate([client.test['x'] for client in own.clients]),
  )


@pytest.mark.parametrize('normalization', ['half', 'dataset'])
def test_models_train_on_tinted_images(normalization):
  one = experiment.Experiment(
    task=dataclasses.replace(
      _SPEC, client_tint=0.8, normalization=normalization
    ),
    family='digits_mlp',
    feature_dim=4,
  )
  result = one.run(total_rounds=1)
  assert np.isfinite(result.summary['head']['last'])


def test_what_cannot_be_shifted_is_refused():
  with pytest.raises(ValueError, match='change images; found rows of a table'):
    tasks.load_task(
      tasks.TaskSpec(dataset='wine', num_clients=3, client_tint=0.5)
    )
  with pytest.raises(settings.SettingsError, match='expected test_set=split'):
    tasks.TaskSpec(client_rotation=10.0, test_set='original')
  with pytest.raises(settings.SettingsError, match='client_tint'):
    tasks.TaskSpec(client_tint=1.5)


def test_images_on_disk_are_refused():
  mapped = mapped_clients.MappedClient(dict, dict)
  task = dataclasses.replace(_load(), clients=(mapped,))
  with pytest.raises(ValueError, match='stay on disk.*data_cache_dir=none'):
    client_shift.shifted(task, rotation=10.0, tint=0.0, seed=0)
