"""What no honest client can have sent is turned away, in every method."""

import collections
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa.aggregation import class_mean
from tff_fedsa.aggregation import screening
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.algorithms import fedgen
from tff_fedsa.algorithms import fedtgp
from tff_fedsa.algorithms import registry
from tff_fedsa.client import client_state
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.client import local_training
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import metrics
from tff_fedsa.server import averaging

pytestmark = pytest.mark.usefixtures('in_process_context')

_REASONS = dict(enumerate(screening.REASONS, 1)) | {0: None}


def _of_classes(weights, value=1.0):
  weights = tf.constant(weights, tf.float32)
  return prototypes.ClassPrototypes(tf.fill([len(weights), 2], value), weights)


def _fault(update, limits):
  return _REASONS[int(screening.fault(screening.clean(update, limits), limits))]


@pytest.mark.parametrize(
  'weighting, weights, expected',
  [
    ('clients', [0, 1, 1], None),
    ('clients', [0, 2, 1], 'weight'),
    ('clients', [0, 0.5, 1], 'weight'),
    ('clients', [0, -1, 1], 'weight'),
    ('clients', [0, np.nan, 1], 'nonfinite'),
    ('clients', [0, np.inf, 1], 'nonfinite'),
    # Three epochs over at most ten examples.
    ('examples', [0, 4, 6], None),
    ('examples', [0, 1 / 3, 2 / 3], None),
    ('examples', [0, 0.5, 0], 'weight'),
    ('examples', [0, 4, 7], 'weight'),
    ('examples', [-1, 4, 4], 'weight'),
    ('examples', [0, 1e6, 0], 'weight'),
    (None, [0, 1e6, 0.1], None),
    (None, [0, -1e-3, 0.1], 'weight'),
  ],
)
def test_weights_of_classes(weighting, weights, expected):
  limits = screening.Limits(weighting, max_examples=10, num_epochs=3)
  assert _fault(_of_classes(weights), limits) == expected


@pytest.mark.parametrize(
  'weighting, weight, expected',
  [
    ('examples', 30, None),
    ('examples', 31, 'weight'),
    ('examples', 1.5, 'weight'),
    ('clients', 1, None),
    ('clients', 30, 'weight'),
  ],
)
def test_weight_of_a_whole_value(weighting, weight, expected):
  limits = screening.Limits(weighting, max_examples=10, num_epochs=3)
  update = weighted_mean.WeightedValue(tf.ones([2]), tf.constant(weight * 1.0))
  assert _fault(update, limits) == expected


@pytest.mark.parametrize(
  'value, expected',
  [
    (np.nan, 'nonfinite'),
    (-np.inf, 'nonfinite'),
    (1e30, 'large'),
    (-2e8, 'large'),
    (9e7, None),
  ],
)
def test_values(value, expected):
  limits = screening.Limits('clients')
  assert _fault(_of_classes([0, 1], value), limits) == expected
  # Nobody looks at rows and values of weight 0.
  assert _fault(_of_classes([0, 0], value), limits) is None
  update = weighted_mean.WeightedValue(tf.fill([2], value), tf.constant(0.0))
  assert _fault(update, limits) is None
  np.testing.assert_array_equal(screening.clean(update, limits).value, [0, 0])


def test_honest_values_pass_unchanged():
  update = _of_classes([0, 1], 0.5)
  limits = screening.Limits('clients')
  screened = screening.screen(
    screening.clean(update, limits), lambda v: screening.fault(v, limits)
  )
  np.testing.assert_array_equal(screened.value.vectors, [[0, 0], [0.5, 0.5]])
  np.testing.assert_array_equal(screened.value.weights, [0, 1])
  assert screened.reason == 0


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({}, None),
    ({'loss': np.nan}, 'metrics'),
    ({'loss': 1e30}, 'metrics'),
    ({'weight': -1.0}, 'metrics'),
    ({'weight': 1e6}, 'metrics'),
    ({'clients_trained': -19}, 'metrics'),
    ({'clients_nonfinite': 2}, 'metrics'),
    ({'examples': 31}, 'metrics'),
  ],
)
def test_metrics(changes, expected):
  sent = {'loss': 5.0, 'weight': 30.0, 'examples': 30}
  sent |= {'clients_trained': 1, 'clients_nonfinite': 0, **changes}
  found = screening.metrics_fault(
    client_work_lib.ClientMetrics(
      {'loss': tf.constant(sent.pop('loss'))},
      {'loss': tf.constant(sent.pop('weight'))},
      {name: tf.constant(total) for name, total in sent.items()},
    ),
    screening.Limits(max_examples=10, num_epochs=3),
  )
  assert _REASONS[int(found)] == expected


def test_factory_wraps_another():
  factory = screening.ScreeningFactory(
    class_mean.ClassMeanFactory(), screening.Limits('clients')
  )
  process = factory.create(prototypes.prototypes_type(2, 2))
  sent = [([1, 1], 1.0), ([1, 0], 3.0), ([1, 1], np.nan), ([9, 9], 1.0)]
  output = process.next(
    process.initialize(), [_of_classes(*pair) for pair in sent]
  )
  np.testing.assert_array_equal(output.result.vectors, [[2, 2], [1, 1]])
  np.testing.assert_array_equal(output.result.weights, [2, 1])
  measured = output.measurements
  assert measured['inner']['classes_present'] == 2
  assert measured['screening']['clients_rejected'] == 2
  assert measured['screening']['clients_rejected_weight'] == 1


class _Hostile(NamedTuple):
  """What a client sends; the first number of its seed says it."""

  value: Any = None
  weight: Any = None
  loss: Any = None


_HOSTILE = (
  _Hostile(),
  _Hostile(value=np.nan),
  _Hostile(value=1e30),
  _Hostile(weight=1e6),
  _Hostile(weight=-1.0),
  _Hostile(loss=np.nan),
)


def _changed(output, hostile):
  """Returns a client's output, or what a hostile client makes of it."""
  update, state = output.update, output.client_state
  names = ('weights', 'weight', 'counts')
  fields = getattr(update, '_fields', ())
  (name,) = [n for n in names if n in fields] or [None]
  num_examples, sums = output.num_examples, dict(output.metrics.sums)
  if hostile.value is not None:
    changed = tf.nest.map_structure(
      lambda part: tf.fill(tf.shape(part), hostile.value), update
    )
    if name is not None:
      changed = changed._replace(**{name: getattr(update, name)})
    update = changed
    state = state._replace(
      weights=tf.fill(tf.shape(state.weights), hostile.value)
    )
  if hostile.weight is not None:
    num_examples = tf.constant(hostile.weight)
    if name is not None:
      weight = tf.fill(tf.shape(getattr(update, name)), hostile.weight)
      update = update._replace(**{name: weight})
  if hostile.loss is not None:
    sums['loss'] = tf.constant(hostile.loss, tf.float32)
  return client_work_lib.ClientOutput(
    state,
    update,
    num_examples,
    output.metrics._replace(sums=collections.OrderedDict(sums)),
  )


def with_hostile_clients(process):
  """Returns a process some of whose clients do what their seed says."""
  honest = process.parts.client_work

  @tff.tensorflow.computation(honest.type_signature.parameter)
  def work(arguments):
    output = honest(*arguments.values())
    outputs = [tf.nest.flatten(_changed(output, h)) for h in _HOSTILE]
    chosen = tf.switch_case(
      output.client_state.seed[0],
      [lambda leaves=leaves: leaves for leaves in outputs],
    )
    return tf.nest.pack_sequence_as(output, chosen)

  return composer.compose_process(*process.parts._replace(client_work=work))


_SETTINGS = {
  'fedtgp': {'config': fedtgp.FedTGPConfig(server_epochs=2)},
  'fedgen': {
    'config': fedgen.FedGenConfig(server_epochs=1, noise_dim=2, hidden_dim=2)
  },
}


# In the fast tests, one that sends prototypes and one that sends weights.
_OTHERS = (
  *('fedproto', 'fedtgp', 'fedpcl', 'fedgh', 'fedgen', 'feddistill'),
  'lg_fedavg',
)


@pytest.mark.parametrize(
  'name',
  [
    *('fedsa', 'fedavg'),
    *(pytest.param(name, marks=pytest.mark.slow) for name in _OTHERS),
  ],
)
def test_hostile_clients_are_as_if_they_were_not_there(name):
  models = [clients.tiny_mlp()]
  process = with_hostile_clients(
    registry.build(
      name,
      models,
      input_spec=clients.SPEC,
      local=local_training.LocalTrainingConfig(),
      max_examples=23,
      max_participants=5,
      **_SETTINGS.get(name, {}),
    )
  )
  examples = clients.random_examples(5)
  server, states, _ = clients.run(process, models, examples, rounds=1)
  expected = process.next(server, states[:4], examples[:4])
  assert expected.measurements['screening']['clients_rejected'] == 0
  reasons = [None, 'nonfinite', 'large', 'weight', 'weight', 'metrics']
  for code, reason in enumerate(reasons):
    hostile = states[4]._replace(seed=np.array([code, 4], np.int32))
    output = process.next(server, [*states[:4], hostile], examples)
    columns = metrics.training_columns(output.measurements)
    assert columns['clients_rejected'] == (reason is not None)
    if reason is None:
      continue
    assert columns[f'clients_rejected_{reason}'] == 1
    found = output.measurements['screening']['rejected']
    np.testing.assert_array_equal(
      found, [[4, 1 + list(screening.REASONS).index(reason)]]
    )
    tf.nest.map_structure(
      np.testing.assert_array_equal, output.state, expected.state
    )
    assert dict(output.measurements['client_work']) == dict(
      expected.measurements['client_work']
    )


def test_averaged_weights_of_several_architectures():
  """What clients send beside their weights is as honest as can be."""
  models = [clients.tiny_mlp(), clients.tiny_mlp(head_units=(6,))]
  process = registry.build(
    'fedsa',
    models,
    input_spec=clients.SPEC,
    averaging=averaging.build_weight_averaging(models),
  )
  honest = process.parts.client_work
  lies = [0.0, 0.0, 0.0, 1e29, np.nan]

  @tff.tensorflow.computation(honest.type_signature.parameter)
  def work(arguments):
    output = honest(*arguments.values())
    state = output.client_state
    client_id = state.seed[1]
    lie = tf.fill(tf.shape(state.weights), tf.gather(lies, client_id))
    weights = tf.where(client_id < 3, state.weights, lie)
    return output._replace(client_state=state._replace(weights=weights))

  process = composer.with_parts(process, client_work=work)
  examples = clients.random_examples(5)
  initial_state_fn = client_state.build_initial_state_fn(models)
  states = [initial_state_fn(i) for i in range(5)]
  server = process.initialize()
  expected = process.next(server, states[:3], examples[:3])
  output = process.next(server, states, examples)
  tf.nest.map_structure(
    np.testing.assert_array_equal, output.state, expected.state
  )
  columns = metrics.training_columns(output.measurements)
  assert columns['clients_rejected'] == 2
  assert columns['clients_rejected_large'] == 1
  assert columns['clients_rejected_nonfinite'] == 1
