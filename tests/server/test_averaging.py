"""Averaged weights as a part of a process, by hand."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tests.algorithms import clients
from tff_fedsa import composer
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.algorithms import fedproto
from tff_fedsa.algorithms import local
from tff_fedsa.models import functional
from tff_fedsa.runs import metrics
from tff_fedsa.server import averaging

pytestmark = pytest.mark.usefixtures('in_process_context')


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


@pytest.fixture(scope='module')
def alone(models):
  return local.build_local(models, input_spec=clients.SPEC)


@pytest.fixture(scope='module')
def process(models, alone):
  return composer.with_averaging(
    alone, averaging.build_weight_averaging(models)
  )


def test_two_clients_by_hand(process, alone, models):
  examples = clients.random_examples(1, 23) + clients.random_examples(1, 9, 5)
  initial = process.initialize()
  np.testing.assert_array_equal(
    initial.model.weights, models[0].initial_weights(0)
  )
  server, states, measurements = clients.run(
    process, models, examples, rounds=1
  )
  weights = np.stack([state.weights for state in states])
  # What clients have trained is theirs; its mean counts 23 and 9 examples.
  assert not np.array_equal(*weights)
  golden.assert_close(
    server.model.weights, (23 * weights[0] + 9 * weights[1]) / 32
  )
  assert measurements['averager'] == {}
  # A further round is local training from the averaged weights.
  output = process.next(server, states, examples)
  expected = alone.next(
    alone.initialize()._replace(round_num=server.round_num),
    [state._replace(weights=server.model.weights) for state in states],
    examples,
  )
  for found, same in zip(output.result, expected.result):
    golden.assert_close(found.weights, same.weights)


def test_only_participants_count(process, models):
  examples = clients.random_examples(3)
  server, states, _ = clients.run(process, models, examples, rounds=1)
  output = process.next(server, states[2:], examples[2:])
  np.testing.assert_allclose(
    output.state.model.weights, output.result[0].weights, atol=1e-6
  )


def test_clients_can_count_the_same(alone, models):
  process = composer.with_averaging(
    alone, averaging.build_weight_averaging(models, weighting='clients')
  )
  examples = clients.random_examples(1, 23) + clients.random_examples(1, 9, 5)
  server, states, _ = clients.run(process, models, examples, rounds=1)
  golden.assert_close(
    server.model.weights, np.mean([state.weights for state in states], axis=0)
  )


def test_clients_that_diverge_do_not_count(process, models):
  examples = clients.random_examples()
  examples[0]['x'] = examples[0]['x'] * np.float32(1e30)
  server, states, measurements = clients.run(
    process, models, examples, rounds=1
  )
  golden.assert_close(
    server.model.weights, np.mean([s.weights for s in states[1:]], axis=0)
  )
  assert measurements['client_work']['clients_nonfinite'] == 1
  # Nobody is left: the weights stay.
  after = process.next(server, states[:1], examples[:1])
  np.testing.assert_array_equal(after.state.model.weights, server.model.weights)
  np.testing.assert_array_equal(after.result[0].weights, server.model.weights)


def test_the_method_does_what_it_did(models):
  alone = fedproto.build_fedproto(models, input_spec=clients.SPEC)
  assert not alone.averages_weights and alone.initialize().averager == ()
  process = composer.with_averaging(
    alone, averaging.build_weight_averaging(models)
  )
  assert process.initialize().model._fields == (
    *alone.initialize().model._fields,
    'weights',
  )
  # All begin with the same weights, so the first round is the same.
  examples = clients.random_examples()
  expected, _, measured = clients.run(alone, models, examples, rounds=1)
  server, _, found = clients.run(process, models, examples, rounds=1)
  for name, value in expected.model._asdict().items():
    np.testing.assert_array_equal(getattr(server.model, name), value)
  assert dict(found['client_work']) == dict(measured['client_work'])
  # Weights go both ways, and their weight in the mean up.
  before, after = map(metrics.communication_columns, (alone, process))
  size = models[0].num_weights * 4
  assert {n: after[n] - before[n] for n in after} == {
    'bytes_down_per_client': size,
    'bytes_up_per_client': size + 4,
  }


def test_statistics_of_layers_are_averaged_as_well():
  def build_fn():
    images = tf.keras.Input([8, 8, 1])
    features = tf.keras.layers.Dense(4)(tf.keras.layers.Flatten()(images))
    features = tf.keras.layers.BatchNormalization(momentum=0.5)(features)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([4]), tf.keras.layers.Dense(10)]),
    )

  models = [functional.FunctionalModel(build_fn)]
  process = composer.with_averaging(
    local.build_local(models, input_spec=clients.SPEC),
    averaging.build_weight_averaging(models),
  )
  examples = clients.random_examples(2)
  server, states, _ = clients.run(process, models, examples, rounds=1)
  # Mean and variance are the last of the flat vector.
  statistics = [state.weights[-8:] for state in states]
  assert not np.array_equal(*statistics)
  np.testing.assert_allclose(
    server.model.weights[-8:], np.mean(statistics, axis=0), rtol=1e-5
  )


def test_means_of_tiers_equal_a_weighted_mean_bit_for_bit(models, alone):
  """One architecture: the mean is that of all numbers in one sum."""
  found, expected = (
    clients.run(
      composer.with_averaging(
        alone,
        averaging.build_weight_averaging(models, aggregator_factory=factory),
      ),
      models,
      clients.random_examples(2, 23) + clients.random_examples(1, 9, 5),
    )[0]
    for factory in (None, weighted_mean.WeightedMeanFactory())
  )
  np.testing.assert_array_equal(found.model.weights, expected.model.weights)


def test_an_aggregation_of_ones_own(alone, models):
  class LastFactory(tff.aggregators.UnweightedAggregationFactory):
    """Takes twice the sum, and measures."""

    def create(self, value_type):
      @tff.federated_computation
      def initialize_fn():
        return tff.federated_value(7, tff.SERVER)

      @tff.tensorflow.computation(value_type)
      def double(total):
        return total._replace(value=2.0 * total.value)

      @tff.federated_computation(
        initialize_fn.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
      )
      def next_fn(state, value):
        total = tff.federated_sum(value)
        return tff.templates.MeasuredProcessOutput(
          state, tff.federated_map(double, total), state
        )

      return tff.templates.AggregationProcess(initialize_fn, next_fn)

  process = composer.with_averaging(
    alone,
    averaging.build_weight_averaging(models, aggregator_factory=LastFactory()),
  )
  server, states, measurements = clients.run(
    process, models, clients.random_examples(2), rounds=1
  )
  golden.assert_close(
    server.model.weights, 2.0 * sum(state.weights for state in states)
  )
  assert server.averager == measurements['averager'] == 7


@pytest.mark.slow
def test_both_runtimes_agree(process, models, runtimes):
  examples = clients.random_examples(2)
  here, _, _ = clients.run(process, models, examples)
  with runtimes.default('native'):
    there, _, _ = clients.run(process, models, examples)
  golden.assert_close(here.model.weights, there.model.weights)


def test_what_does_not_fit_is_refused(process, models):
  with pytest.raises(ValueError, match='one architecture for all clients, fou'):
    averaging.build_weight_averaging(
      [*models, clients.tiny_mlp('tanh')],
      aggregator_factory=weighted_mean.WeightedMeanFactory(),
    )
  with pytest.raises(ValueError, match="Unknown prototype weighting 'all'"):
    averaging.build_weight_averaging(models, weighting='all')
  again = averaging.build_weight_averaging(models)
  with pytest.raises(ValueError, match='that averages no weights'):
    composer.with_averaging(process, again)
  with pytest.raises(ValueError, match='averages weights already'):
    averaging.with_weights(process.initialize().model, again.initial_weights)
