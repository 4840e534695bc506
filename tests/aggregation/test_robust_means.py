"""Robust aggregators as processes, and in every method that takes one."""

import functools

import numpy as np
import pytest
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.aggregation import robust_means
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.algorithms import fedtgp
from tff_fedsa.algorithms import registry
from tff_fedsa.client import attack_config
from tff_fedsa.client import attacks
from tff_fedsa.client import client_state
from tff_fedsa.maths import prototypes
from tff_fedsa.maths import robust
from tff_fedsa.server import averaging

pytestmark = pytest.mark.usefixtures('in_process_context')

_OF_VALUES = [
  name
  for name in aggregator_config.AGGREGATORS
  if name not in ('mean', 'anchor_screened')
]


def _build(name, **settings):
  return aggregator_config.AggregatorConfig(name, **settings).build()


def _sent(vectors, weights):
  return prototypes.ClassPrototypes(
    np.array(vectors, np.float32), np.array(weights, np.float32)
  )


def test_median_by_class():
  process = _build('median').create(prototypes.prototypes_type(2, 1))
  sent = [
    _sent([[1], [5]], [1, 7]),
    _sent([[2], [9]], [1, 0]),
    _sent([[90], [9]], [1, 0]),
  ]
  result = process.next(process.initialize(), sent).result
  np.testing.assert_array_equal(result.vectors, [[2], [5]])
  # Weights count clients, whatever they say.
  np.testing.assert_array_equal(result.weights, [3, 1])


def test_type():
  process = _build('krum').create(prototypes.prototypes_type(2, 1))
  value = '<vectors=float32[2,1],weights=float32[2]>'
  assert process.next.type_signature.compact_representation() == (
    f'(<state=<>@SERVER,value={{{value}}}@CLIENTS> -> <state=<>@SERVER,'
    f'result={value}@SERVER,measurements=<>@SERVER>)'
  )
  with pytest.raises(TypeError, match='Expected the type of `ClassPrototypes`'):
    _build('krum').create(tff.TensorType(np.float32, [2]))


@pytest.mark.parametrize('name', _OF_VALUES)
def test_structures_are_one_vector(name):
  value_type = tff.types.to_type(
    weighted_mean.WeightedValue(
      (tff.TensorType(np.float32, [2, 1]), tff.TensorType(np.float32)),
      tff.TensorType(np.float32),
    )
  )
  process = _build(name).create(value_type)
  values = [[1, 2, 2], [1, 2, 2.1], [1.1, 2, 2], [1, 2.1, 2], [1, 2, 2.2]]
  rows = np.array([*values, [-50, 50, 0], [7e7, 7, 7]], np.float32)
  sent = [
    weighted_mean.WeightedValue((row[:2, np.newaxis], row[2]), np.float32(w))
    for row, w in zip(rows, [3, 3, 3, 3, 3, 3, 0])
  ]
  result = process.next(process.initialize(), sent).result
  found = np.append(result.value[0].ravel(), result.value[1])
  assert result.value[0].shape == (2, 1)
  if name == 'norm_clipped':
    assert result.weight == 18 and np.linalg.norm(found) < 3.1
  else:
    np.testing.assert_allclose(found, [1, 2, 2], atol=0.25)
    assert result.weight == 6


def test_norms_are_clipped_to_the_median():
  process = _build('norm_clipped', aggregator_clip=2.0).create(
    prototypes.prototypes_type(2, 2)
  )
  sent = [
    _sent([[3, 4], [1, 0]], [1, 1]),
    _sent([[0, 5], [9, 9]], [1, 0]),
    _sent([[-60, 80], [9, 9]], [1, 0]),
  ]
  output = process.next(process.initialize(), sent)
  # Norms 5, 5 and 100: the last becomes 10 long.
  np.testing.assert_allclose(
    output.result.vectors, [[(3 - 6) / 3, (4 + 5 + 8) / 3], [1, 0]], rtol=1e-6
  )
  np.testing.assert_array_equal(output.result.weights, [3, 1])
  assert output.measurements['clipped'] == 1


def test_prototypes_far_from_their_anchors_do_not_count():
  factory = _build('anchor_screened', aggregator_radius=1.0)
  table = tff.TensorType(np.float32, [2, 2])
  process = factory.create(prototypes.prototypes_type(2, 2), table)
  anchors = np.array([[0, 0], [4, 0]], np.float32)
  sent = [
    _sent([[1, 0], [3, 0]], [1, 1]),
    _sent([[3, 0], [3, 2]], [1, 1]),
    _sent([[-1, 2], [4, 9]], [1, 1]),
  ]
  output = process.next(process.initialize(), sent, [anchors] * 3)
  np.testing.assert_allclose(output.result.vectors, [[0, 1], [3, 1]])
  assert output.measurements['turned_away'] == 2


@pytest.mark.parametrize(
  'factory', ['NormClippedFactory', 'AnchorScreenedFactory']
)
def test_impossible_values_are_refused(factory):
  with pytest.raises(ValueError, match='> 0, found 0'):
    getattr(robust_means, factory)(0.0)


_slow = functools.partial(pytest.param, marks=pytest.mark.slow)
_TAKING = [m.name for m in registry.methods() if m.takes_aggregator]
_SETTINGS = {'fedtgp': {'config': fedtgp.FedTGPConfig(server_epochs=2)}}


def test_which_methods_take_an_aggregator():
  assert set(registry.NAMES) - set(_TAKING) == {'local', 'fedgen'}
  with pytest.raises(ValueError, match='fedgen has no other aggregator'):
    registry.build(
      'fedgen',
      [clients.tiny_mlp()],
      input_spec=clients.SPEC,
      aggregator=aggregator_config.AggregatorConfig('median'),
    )


@pytest.mark.parametrize(
  'name, aggregator, shares, holds',
  [
    # Of prototypes and of averaged weights.
    ('fedsa', 'median', True, True),
    _slow('fedproto', 'krum', False, True),
    _slow('fedtgp', 'geometric_median', False, True),
    _slow('fedpcl', 'multi_krum', False, True),
    _slow('feddistill', 'median', False, True),
    _slow('fedavg', 'trimmed_mean', False, True),
    _slow('fedprox', 'median', False, True),
    _slow('lg_fedavg', 'median', False, True),
    _slow('fedgh', 'median', False, True),
    _slow('fml', 'median', False, True),
    _slow('fedkd', 'median', False, True),
    _slow('fedproto', 'mean', False, False),
    _slow('fedavg', 'mean', False, False),
  ],
)
def test_flipped_signs_times_ten(name, aggregator, shares, holds):
  models = [clients.tiny_mlp()]
  config = aggregator_config.AggregatorConfig(aggregator)
  process = registry.build(
    name,
    models,
    input_spec=clients.SPEC,
    local=clients.ONE_STEP,
    aggregator=config,
    attack=attacks.Attack(
      attack_config.AttackConfig(attack='sign_flip'), [4], 10
    ),
    averaging=averaging.build_weight_averaging(
      models, aggregator_factory=config.build()
    )
    if shares
    else None,
    **_SETTINGS.get(name, {}),
  )
  # Honest clients are equal, so the server should learn what one of them, alone
  # with the server, would teach it.
  (examples,) = clients.random_examples(1)
  state = client_state.build_initial_state_fn(models)(0)
  states = [state._replace(seed=np.array([0, i], np.int32)) for i in range(5)]
  state = [state._replace(seed=np.array([0, 0], np.int32))]
  server = process.initialize()
  found = process.next(server, states, [examples] * 5).state.model
  alone = process.next(server, state, [examples]).state.model
  apart = max(
    np.abs(one - other).max()
    for one, other in zip(_leaves(found), _leaves(alone))
  )
  assert (apart < 1e-4) == holds


def _leaves(value):
  if isinstance(value, tuple):
    return [leaf for part in value for leaf in _leaves(part)]
  return [np.asarray(value, np.float64)]


def test_all_functions_are_there():
  for name in _OF_VALUES:
    assert name == 'norm_clipped' or callable(getattr(robust, name))
