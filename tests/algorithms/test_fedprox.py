"""FedProx: one step by hand, and against `tff.learning`."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tests.algorithms import clients
from tests.algorithms import learning
from tff_fedsa.algorithms import fedavg
from tff_fedsa.algorithms import fedprox
from tff_fedsa.runs import metrics

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


@pytest.fixture(scope='module')
def process(models):
  return fedprox.build_fedprox(
    models,
    fedprox.FedProxConfig(mu=0.5),
    input_spec=clients.SPEC,
    optimizer=clients.sgd(0.1),
    local=learning.LOCAL,
  )


class _ProximalSGD(tff.learning.optimizers.Optimizer):
  """SGD that stays near the weights of its first step, i.e. of the round."""

  def __init__(self, learning_rate, mu):
    self._learning_rate = learning_rate
    self._mu = mu

  def initialize(self, specs):
    return collections.OrderedDict(
      step=tf.constant(0),
      first=tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs),
    )

  def next(self, state, weights, gradients):
    first = tf.nest.map_structure(
      lambda known, now: tf.where(state['step'] > 0, known, now),
      state['first'],
      weights,
    )
    new_weights = tf.nest.map_structure(
      lambda w, g, w0: w - self._learning_rate * (g + self._mu * (w - w0)),
      weights,
      gradients,
      first,
    )
    new_state = collections.OrderedDict(step=state['step'] + 1, first=first)
    return new_state, new_weights


def test_three_rounds_equal_fedavg_of_tff_learning_with_proximal_steps(
  process, models
):
  examples = learning.unequal_examples()
  found, _, _ = clients.run(process, models, examples, rounds=3)
  expected = learning.run(
    tff.learning.algorithms.build_weighted_fed_avg(
      learning.model_fn,
      _ProximalSGD(0.1, 0.5),
      tff.learning.optimizers.build_sgdm(1.0),
    ),
    models[0],
    examples,
    rounds=3,
  )
  golden.assert_close(found.model.weights, expected)


@pytest.mark.slow
def test_fedprox_of_tff_learning_has_the_term_with_the_other_sign(models):
  # TFF 0.87 adds mu * (w_0 - w) to gradients (`proximal_client_work`), which
  # drives clients away from the model that they began with. Otherwise equal.
  examples = learning.unequal_examples()
  objective = fedprox.build_objective(0.5)
  process = fedavg.build_fedavg(
    models,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(0.1),
    local=learning.LOCAL,
    objective=objective._replace(proximal_weight=-0.5),
  )
  found, _, _ = clients.run(process, models, examples, rounds=3)
  expected = learning.run(
    tff.learning.algorithms.build_weighted_fed_prox(
      learning.model_fn,
      0.5,
      tff.learning.optimizers.build_sgdm(0.1),
      tff.learning.optimizers.build_sgdm(1.0),
    ),
    models[0],
    examples,
    rounds=3,
  )
  golden.assert_close(found.model.weights, expected)


def test_the_term_is_measured(process, models):
  examples = clients.random_examples(1, 20)
  _, (state,), measurements = clients.run(process, models, examples, rounds=1)
  columns = metrics.training_columns(measurements)
  assert columns['loss'] == pytest.approx(
    columns['loss_cross_entropy'] + 0.5 * columns['loss_proximal'], rel=1e-5
  )
  # Zero in the first of four steps, in the last less than at the end.
  moved = np.linalg.norm(state.weights - models[0].initial_weights(0))
  assert 0 < columns['loss_proximal'] < moved**2 / 2


def test_values_out_of_range_are_refused():
  for value in (-0.1, float('nan')):
    with pytest.raises(ValueError, match='Expected a proximal weight >= 0'):
      fedprox.build_objective(value)
