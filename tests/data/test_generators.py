"""Clients made by formulas."""

import numpy as np
import pytest

from tff_fedsa.data import generators
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks


def test_sensors_follow_their_formula():
  (x, y), *_ = generators.make_sensor_clients(1, noise=0.0, alpha=100.0)
  assert x.shape == (60, 64, 3) and x.dtype == np.float32
  for window, label in zip(x, y):
    # A class of whole cycles is a sine of its frequency about the offset.
    if label % 2 == 0:
      spectrum = np.abs(np.fft.rfft(window, axis=0)).sum(axis=1)
      spectrum[0] = 0.0
      assert spectrum.argmax() == 1 + label // 2
      assert spectrum.max() > 0.999 * spectrum.sum()


def test_seeds_repeat_and_more_clients_change_nothing():
  for make in (generators.make_sensor_clients, generators.make_text_clients):
    few, many, other = make(2), make(3), make(2, seed=1)
    for (x, y), (x_again, y_again) in zip(few, many):
      np.testing.assert_array_equal(x, x_again)
      np.testing.assert_array_equal(y, y_again)
    assert not np.array_equal(few[0][0], other[0][0])


def test_texts_have_words_of_all_of_their_class_and_of_their_client():
  clients = generators.make_text_clients(3, examples_per_client=400, alpha=50.0)
  for client, (written, labels) in enumerate(clients):
    words = np.array(' '.join(written).split())
    shares = [np.char.startswith(words, p).mean() for p in ('topic', 'client')]
    np.testing.assert_allclose(shares, [0.15, 0.1], atol=0.02)
    for text, label in zip(written, labels):
      for word in text.split():
        if word.startswith('topic'):
          assert word.startswith(f'topic{label}x')
        if word.startswith('client'):
          assert word.startswith(f'client{client}x')
    assert abs(len(words) / len(labels) - 12) < 1.0


@pytest.mark.parametrize('name', generators.NAMES)
def test_data_sets_by_name(name):
  spec = task_spec.TaskSpec(dataset=name, num_clients=3, alpha=1.0)
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.client_names == ('client 0', 'client 1', 'client 2')
  assert [len(c.test['y']) for c in task.clients] == [15] * 3
  other = tasks.load_task(
    task_spec.TaskSpec(dataset=name, num_clients=3, alpha=1.0, seed=1)
  )
  assert not np.array_equal(other.class_counts(), task.class_counts())
