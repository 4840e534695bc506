"""Attacks by hand, and on a process."""

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from tests.algorithms import clients
from tff_fedsa import settings
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.algorithms import fedproto
from tff_fedsa.algorithms import registry
from tff_fedsa.client import attack_config
from tff_fedsa.client import attacks
from tff_fedsa.maths import prototypes

pytestmark = pytest.mark.usefixtures('in_process_context')


def _update(rows, weights):
  return prototypes.ClassPrototypes(
    tf.constant(rows, tf.float32), tf.constant(weights, tf.float32)
  )


# Two classes in one dimension; nobody has the second but the second client.
_HONEST = ([[1.0], [0.0]], [1, 0]), ([[3.0], [8.0]], [1, 1])
_OWN = _update([[2.0], [5.0]], [1, 1])


def _forged(attack, own=_OWN, **changes):
  config = attack_config.AttackConfig(attack=attack, **changes)
  zeros = [tf.zeros([2, 1])] * 3 + [tf.zeros([2])] * 2
  known = attacks.Statistics(*zeros)
  for pair in _HONEST:
    known = attacks.add(known, _update(*pair), tf.constant(False))
  known = attacks.add(known, own, tf.constant(True))
  return attacks.forge(config, own, known, tf.constant([1, 2]))


@pytest.mark.parametrize(
  'attack, changes, expected',
  [
    ('sign_flip', {}, [-20, -50]),
    ('sign_flip', {'attack_scale': 1.0}, [-2, -5]),
    ('scale', {'attack_scale': 3.0}, [6, 15]),
    ('same_value', {}, [100, 100]),
    ('ipm', {'attack_scale': 0.5}, [-1, -4]),
    ('mimic', {}, [1, 8]),
    # 2 + 5 (8 - 2).
    ('targeted', {}, [32, 5]),
    (
      'targeted',
      {'attack_scale': 1.0, 'attack_source': 1, 'attack_target': 0},
      [2, 2],
    ),
  ],
)
def test_by_hand(attack, changes, expected):
  forged = _forged(attack, **changes)
  np.testing.assert_allclose(forged.vectors[:, 0], expected)
  np.testing.assert_array_equal(forged.weights, [1, 1])


def test_what_an_attacker_does_not_have_it_does_not_send():
  forged = _forged('same_value', own=_update([[2.0], [0.0]], [1, 0]))
  np.testing.assert_array_equal(forged.vectors[:, 0], [100, 0])
  np.testing.assert_array_equal(forged.weights, [1, 0])


def test_noise_is_as_large_as_it_says_and_repeats():
  rows = np.concatenate([np.full([1, 4000], 2.0), np.zeros([1, 4000])])
  own = _update(rows, [1, 1])
  config = attack_config.AttackConfig(attack='gaussian', attack_scale=3.0)
  zeros = [tf.zeros([2, 4000])] * 3 + [tf.zeros([2])] * 2
  draw = lambda seed: attacks.forge(
    config, own, attacks.Statistics(*zeros), tf.constant(seed)
  ).vectors.numpy()
  noise = draw([1, 2])
  assert abs(noise[0].std() - 6.0) < 0.3 and abs(noise[0].mean()) < 0.5
  assert not noise[1].any()
  np.testing.assert_array_equal(noise, draw([1, 2]))
  assert np.abs(noise - draw([1, 3])).max() > 1.0


def test_alie_moves_by_the_papers_z():
  # 50 workers of which 12 attack: s = 26 - 12 = 14, and (38 - 14) / 38.
  factor = attacks.alie_factor(
    tf.constant([50.0, 20.0]), tf.constant([12.0, 4])
  )
  np.testing.assert_allclose(
    factor, stats.norm.ppf([24 / 38, 9 / 16]), rtol=1e-5
  )
  # Three clients, one attacks: s = 2 - 1 = 1, and Phi^-1(1/2) is 0.
  np.testing.assert_allclose(_forged('alie').vectors[:, 0], [2, 8], atol=1e-6)
  known = attacks.Statistics(
    tf.constant([[32.0]]),
    tf.constant([[96.0]]),
    tf.constant([[0.0]]),
    tf.constant([16.0]),
    tf.constant([4.0]),
  )
  forged = attacks.forge(
    attack_config.AttackConfig(attack='alie', attack_scale=2.0),
    _update([[0.0]], [1]),
    known,
    tf.constant([0, 0]),
  )
  # Mean 2, variance 96 / 16 - 4 = 2.
  expected = 2 - 2 * stats.norm.ppf(9 / 16) * np.sqrt(2)
  np.testing.assert_allclose(forged.vectors, [[expected]], rtol=1e-5)


def test_structures_are_one_vector():
  update = weighted_mean.WeightedValue(
    (tf.constant([[1.0], [2.0]]), tf.constant(3.0)), tf.constant(9.0)
  )
  zeros = [tf.zeros([1, 3])] * 3 + [tf.zeros([1])] * 2
  forged = attacks.forge(
    attack_config.AttackConfig(attack='scale', attack_scale=2.0),
    update,
    attacks.Statistics(*zeros),
    tf.constant([0, 0]),
  )
  np.testing.assert_array_equal(forged.value[0], [[2], [4]])
  assert forged.value[1] == 6 and forged.weight == 9


def test_attackers_follow_from_the_seed():
  config = attack_config.AttackConfig(attack='mimic', attack_fraction=0.29)
  attackers = config.attackers(10)
  assert len(attackers) == 2 and attackers == config.attackers(10)
  others = {
    attack_config.AttackConfig(attack='mimic', attack_seed=s).attackers(10)
    for s in range(9)
  }
  assert len(others) > 3
  assert attack_config.AttackConfig().attackers(10) == ()


@pytest.mark.parametrize('source, target', [(0, 10), (3, 3)])
def test_impossible_classes_are_refused(source, target):
  config = attack_config.AttackConfig(
    attack='targeted', attack_source=source, attack_target=target
  )
  with pytest.raises(settings.SettingsError, match='two of the classes 0 to 9'):
    config.check(10, 10)


def test_an_attack_without_attackers_is_refused():
  config = attack_config.AttackConfig(attack='scale', attack_fraction=0.09)
  with pytest.raises(settings.SettingsError, match='less than one attacker'):
    config.check(10, 10)
  config.check(20, 10)


def _build(name, attack, attackers=(1,), **changes):
  return registry.build(
    name,
    [clients.tiny_mlp()],
    input_spec=clients.SPEC,
    attack=attacks.Attack(
      attack_config.AttackConfig(attack=attack, **changes), attackers, 10
    ),
  )


def test_attackers_send_what_they_make_up_and_others_what_they_have():
  examples = clients.random_examples(3)
  models = [clients.tiny_mlp()]
  process = _build('fedproto', 'same_value', attack_scale=7.0)
  server, states, measurements = clients.run(
    process, models, examples, rounds=1
  )
  held = np.stack([state.counts > 0 for state in states])[:, :, np.newaxis]
  sent = np.stack([state.prototypes for state in states])
  # What an attacker has learnt stays its own.
  assert not np.any(sent[1] == 7)
  sent[1] = 7
  np.testing.assert_allclose(
    server.model.prototypes,
    (held * sent).sum(axis=0) / np.maximum(held.sum(axis=0), 1),
    rtol=1e-4,
    atol=1e-5,
  )
  assert measurements['client_work']['clients_trained'] == 2
  assert measurements['client_work']['examples'] == 2 * 23


def test_averaged_weights_are_attacked():
  examples = clients.random_examples(2)
  process = _build('fedavg', 'same_value', attack_scale=7.0)
  server, states, _ = clients.run(
    process, [clients.tiny_mlp()], examples, rounds=1
  )
  np.testing.assert_allclose(
    server.model.weights, (states[0].weights + 7) / 2, rtol=1e-5
  )


def test_label_flip_is_training_on_other_labels():
  examples = clients.random_examples(2)
  models = [clients.tiny_mlp()]
  process = _build('fedproto', 'label_flip')
  _, states, _ = clients.run(process, models, examples, rounds=1)
  examples[1]['y'] = 9 - examples[1]['y']
  honest = fedproto.build_fedproto(models, input_spec=clients.SPEC)
  _, expected, _ = clients.run(honest, models, examples, rounds=1)
  for one, other in zip(states, expected):
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)


@pytest.mark.parametrize(
  'name, attack, message',
  [
    ('fedgen', 'scale', 'Attack it by label_flip'),
    # Only prototypes have classes.
    ('fedavg', 'targeted', 'Attack it by label_flip'),
    ('local', 'label_flip', 'send nothing'),
  ],
)
def test_what_no_attack_can_replace_is_refused(name, attack, message):
  with pytest.raises(ValueError, match=message):
    _build(name, attack)
