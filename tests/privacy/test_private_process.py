"""The private process: records, noise, what leaves a client, an audit."""

import dataclasses
import math
import pathlib
import re

import dp_accounting
import numpy as np
import pytest
from scipy import stats
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.compiler import building_blocks
from tensorflow_federated.python.core.impl.compiler import tree_analysis

from tests.algorithms import clients
from tff_fedsa.aggregation import secure
from tff_fedsa.algorithms import registry
from tff_fedsa.client import client_state
from tff_fedsa.maths import prototypes
from tff_fedsa.privacy import accounting
from tff_fedsa.privacy import private_process
from tff_fedsa.privacy import seeded_noise

pytestmark = pytest.mark.usefixtures('in_process_context')

_CENTRAL = private_process.Mechanism(
  'central', clip_norm=1e6, noise_multiplier=0.0, participants=3
)
_DOCUMENT = pathlib.Path(__file__).parents[2] / 'docs/privacy.md'


def _records(rng, count, num_classes=4, dim=3):
  """Records of random clients, some of them extreme."""
  found = []
  for scale in (0.01, 1.0, 1e3, 1e7):
    for _ in range(count):
      update = prototypes.ClassPrototypes(
        tf.constant(
          scale * rng.standard_normal([num_classes, dim]), tf.float32
        ),
        tf.constant(rng.integers(0, 2, num_classes), tf.float32),
      )
      reference = tf.constant(
        rng.standard_normal([num_classes, dim]), tf.float32
      )
      found.append(private_process.to_record(update, reference, unit=0.1))
  return found


def _sum_process(clip_norm, stddev, shape, seed=0):
  """The part of the aggregator that clips, sums and adds noise."""
  record_type = private_process.Record(
    tff.TensorType(np.float32, shape), tff.TensorType(np.float32, shape[:1])
  )
  return tff.aggregators.DifferentiallyPrivateFactory(
    seeded_noise.GaussianSumQuery(clip_norm, stddev, seed)
  ).create(tff.types.to_type(record_type))


def _flat(record):
  return np.concatenate([np.ravel(part) for part in record])


def test_a_record_is_relative_and_says_which_classes_there_are():
  update = prototypes.ClassPrototypes(
    tf.constant([[3.0, 1.0], [np.nan, 7.0]]), tf.constant([5.0, 0.0])
  )
  record = private_process.to_record(
    update, tf.constant([[1.0, 1.0], [2.0, 2.0]]), unit=0.5
  )
  np.testing.assert_array_equal(record.vectors, [[2, 0], [0, 0]])
  np.testing.assert_array_equal(record.presence, [0.5, 0])


def test_both_parts_are_clipped_together():
  record = private_process.Record(tf.constant([[3.0]]), tf.constant([4.0]))
  clipped = private_process.clip(record, 1.0)
  np.testing.assert_allclose(_flat(clipped), [0.6, 0.8], rtol=1e-6)
  np.testing.assert_array_equal(
    _flat(private_process.clip(record, 5.0)), [3.0, 4.0]
  )


def test_a_client_moves_the_compiled_sum_by_twice_the_norm_at_most():
  process = _sum_process(clip_norm=2.0, stddev=0.0, shape=(4, 3))
  records = _records(np.random.default_rng(0), 3)
  others = records[:2]
  state = process.initialize()
  alone = _flat(process.next(state, others).result)
  sums = []
  for record in records:
    total = process.next(state, [*others, record]).result
    sums.append(_flat(total))
    assert np.linalg.norm(sums[-1] - alone) <= 2.0 * (1 + 1e-5)
  distances = [np.linalg.norm(a - b) for a in sums for b in sums]
  assert max(distances) <= 4.0 * (1 + 1e-5)
  # The bound is not generous: two clients with opposite records reach it.
  opposite = private_process.Record(*(-part for part in records[-1]))
  swapped = _flat(process.next(state, [*others, opposite]).result)
  assert np.linalg.norm(swapped - sums[-1]) == pytest.approx(4.0, rel=1e-4)


def test_the_noise_of_the_compiled_sum_is_gaussian_and_repeats():
  process = _sum_process(clip_norm=1.0, stddev=3.0, shape=(100, 40), seed=7)
  zeros = private_process.Record(np.zeros([100, 40], 'f4'), np.zeros(100, 'f4'))
  first = process.next(process.initialize(), [zeros])
  second = process.next(first.state, [zeros])
  for result in (first.result, second.result):
    noise = _flat(result)
    assert stats.kstest(noise / 3.0, 'norm').pvalue > 1e-3
    assert np.std(result.presence) == pytest.approx(3.0, rel=0.3)
  rounds = np.corrcoef(_flat(first.result), _flat(second.result))[0, 1]
  parts = np.corrcoef(first.result.vectors[:, 0], first.result.presence)[0, 1]
  assert abs(rounds) < 0.06 and abs(parts) < 0.4
  # The same seed and round: the same noise, however many clients there are.
  again = process.next(process.initialize(), [zeros, zeros])
  np.testing.assert_array_equal(_flat(again.result), _flat(first.result))
  other = _sum_process(1.0, 3.0, (100, 40), seed=8)
  assert not np.array_equal(
    _flat(other.next(other.initialize(), [zeros]).result), _flat(first.result)
  )
  assert first.state.dp_event.noise_multiplier == pytest.approx(3.0)


def test_a_class_with_few_clients_counts_as_sent_by_nobody():
  sums = private_process.Record(
    tf.constant([[2.0], [2.0], [2.0], [2.0]]),
    tf.constant([1.0, 0.4, 0.0, -3.0]),
  )
  means = private_process.to_means(sums, unit=0.5, threshold=1.0)
  np.testing.assert_array_equal(means.weights, [2, 0, 0, 0])
  np.testing.assert_array_equal(means.vectors, [[1], [0], [0], [0]])


@pytest.mark.parametrize('kind', ['central', 'local'])
def test_the_threshold_follows_from_the_noise_of_the_planned_clients(kind):
  mechanism = private_process.Mechanism(
    kind, clip_norm=1.0, noise_multiplier=0.5, participants=16
  )
  process = private_process.build_aggregator(4, 2, mechanism)
  unit = private_process.presence_unit(1.0, 4)
  stddev = 0.5 / unit * (4.0 if kind == 'local' else 1.0)
  enough = math.ceil(private_process.THRESHOLD * stddev + 5 * 0.5 / unit)
  vectors, presence = np.zeros([4, 2], 'f4'), np.array([unit, 0, 0, 0], 'f4')
  one = private_process.Record(vectors, presence)
  weights = process.next(process.initialize(), [one] * enough).result.weights
  assert weights[0] > 0
  weights = process.next(process.initialize(), [one]).result.weights
  assert weights[0] == 0


@pytest.fixture(scope='module')
def models():
  return [clients.tiny_mlp()]


def _build(name, models, mechanism=None, **options):
  return registry.build(
    name,
    models,
    input_spec=clients.SPEC,
    optimizer=clients.sgd(),
    local=clients.ONE_STEP,
    privacy=mechanism,
    **options,
  )


@pytest.mark.parametrize('name', ['fedsa', 'feddistill'])
def test_without_noise_and_clipping_the_model_is_the_same(name, models):
  examples = clients.random_examples()
  plain, _, _ = clients.run(_build(name, models), models, examples)
  private, _, measured = clients.run(
    _build(name, models, _CENTRAL), models, examples
  )
  for one, other in zip(plain.model, private.model):
    np.testing.assert_allclose(one, other, atol=2e-5)
  # No metric of training leaves a client.
  assert dict(measured['client_work']) == {}


def test_local_noise_is_each_clients_own_and_repeats(models):
  mechanism = dataclasses.replace(
    _CENTRAL, kind='local', clip_norm=1.0, noise_multiplier=1.0
  )
  process = _build('fedproto', models, mechanism)
  work = process.parts.client_work
  one, other = clients.random_examples(2)
  state = client_state.build_initial_state_fn(models)(0)
  other_state = state._replace(seed=np.array([0, 1], np.int32))
  model = process.initialize().model

  def sent(round_num, state, examples):
    return _flat(work(round_num, model, state, examples).update)

  first = sent(0, state, one)
  np.testing.assert_array_equal(first, sent(0, state, one))
  # Without noise, records of the same client and examples are equal.
  for round_num, own in ((1, state), (0, other_state)):
    noise = first - sent(round_num, own, one)
    assert np.std(noise) == pytest.approx(math.sqrt(2), rel=0.3)
  # Other examples move the message by twice the norm at most.
  moved = np.linalg.norm(first - sent(0, state, other))
  assert moved <= 2 * (1 + 1e-5)


_DISTRIBUTED = dataclasses.replace(
  _CENTRAL,
  kind='distributed',
  clip_norm=1.0,
  noise_multiplier=2.0,
  secure=True,
)


def test_an_adaptive_norm_follows_the_quantile_and_repeats():
  mechanism = dataclasses.replace(
    _CENTRAL, clip_norm=64.0, participants=8, clip_quantile=0.5
  )
  process = private_process.build_aggregator(2, 3, mechanism)
  # Eight records of norms 1, 2, ..., 8.
  records = [
    private_process.Record(
      np.array([[length, 0, 0], [0, 0, 0]], 'f4'), np.zeros(2, 'f4')
    )
    for length in range(1, 9)
  ]
  state, norms = process.initialize(), []
  for _ in range(40):
    output = process.next(state, records)
    state = output.state
    norms.append(output.measurements['clip_norm'])
  # Without noise: by a factor of exp(0.2 * 0.5) while no record is clipped.
  expected = 64 * np.exp(-0.1 * np.arange(1, 4))
  np.testing.assert_allclose(norms[:3], expected, rtol=1e-5)
  assert 4 <= norms[-1] < 5
  # The norm of a round is that of the round before.
  sums = process.next(state, records).state.query_state.sum_state
  assert sums.round_num == 41
  noisy = private_process.build_aggregator(
    2, 3, dataclasses.replace(mechanism, noise_multiplier=1.0)
  )
  one, again = (noisy.next(noisy.initialize(), records) for _ in range(2))
  assert one.measurements == again.measurements
  later = noisy.next(one.state, records)
  assert later.state.query_state.sum_state.round_num == 2
  assert later.measurements['clip_norm'] != one.measurements['clip_norm']


@pytest.mark.parametrize(('z', 'participants'), [(2.0, 20), (0.8, 500)])
def test_an_adaptive_norm_costs_what_a_fixed_one_does(z, participants):
  of_records, of_count = seeded_noise.adaptive_noise(z, participants)
  assert z < of_records <= 2 / math.sqrt(3) * z + 1e-9
  # Replacing a client moves records by two norms, and the count by one.
  both = accounting.make_accountant()
  for multiplier in (of_records / 2, of_count):
    both.compose(dp_accounting.GaussianDpEvent(multiplier))
  fixed = accounting.make_accountant().compose(
    dp_accounting.GaussianDpEvent(z / 2)
  )
  assert both.get_epsilon(1e-5) == pytest.approx(fixed.get_epsilon(1e-5))


def test_shares_of_noise_add_up_to_that_of_the_sum(models, runtimes):
  count = 25
  mechanism = dataclasses.replace(_DISTRIBUTED, participants=count)
  work = _build('fedproto', models, mechanism).parts.client_work
  process = private_process.build_aggregator(10, 16, mechanism)
  update_type = work.type_signature.result.update
  for leaf in tff.structure.flatten(update_type):
    assert leaf.dtype == np.int32
  grid = private_process._grid(10, 16, mechanism)
  assert grid.stddev == pytest.approx(2.0 * grid.steps / math.sqrt(count))
  # The noise alone: clients without examples have empty records.
  nobody = clients.examples_of(np.zeros([0, 8, 8, 1]), [])
  state_fn = client_state.build_initial_state_fn(models)
  model = _build('fedproto', models).initialize().model
  records = [
    work(
      0, model, state_fn(0)._replace(seed=np.array([0, i], np.int32)), nobody
    ).update
    for i in range(count)
  ]
  own = np.concatenate([_flat(record) for record in records]) / grid.stddev
  assert stats.kstest(own, 'norm').pvalue > 1e-3
  sums = private_process._ModularSumFactory(grid).create(update_type)
  with runtimes.default('in_the_clear'):
    total = _flat(sums.next(sums.initialize(), records).result)
  assert np.std(total) == pytest.approx(2.0, rel=0.2)
  tff.test.assert_not_contains_unsecure_aggregation(process.next)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['central', 'distributed', 'local'])
def test_secure_sums_leave_the_model_as_it_is(kind, models, runtimes):
  examples = clients.random_examples()
  plain, _, _ = clients.run(_build('fedsa', models), models, examples)
  mechanism = dataclasses.replace(
    _DISTRIBUTED, kind=kind, clip_norm=100.0, noise_multiplier=0.0
  )
  process = _build(
    'fedsa', models, mechanism, secure=secure.SecureConfig(secure=True)
  )
  with runtimes.default('in_the_clear'):
    private, _, _ = clients.run(process, models, examples)
  # With 24 bits a step is 100 * 3 / 2^23.
  np.testing.assert_allclose(
    plain.model.prototypes, private.model.prototypes, atol=1e-3
  )


def _crossings(process):
  """Types of all that goes from clients to the server."""
  found = []

  def look(block):
    if isinstance(block, building_blocks.Call) and isinstance(
      block.function, building_blocks.Intrinsic
    ):
      uri = block.function.uri
      if uri.startswith('federated_') or 'sum' in uri:
        parameter = block.argument.type_signature
        parts = [parameter, *getattr(parameter, 'children', lambda: ())()]
        placed = [p for p in parts if isinstance(p, tff.FederatedType)]
        returned = block.type_signature
        if (
          placed
          and placed[0].placement is tff.CLIENTS
          and isinstance(returned, tff.FederatedType)
          and returned.placement is tff.SERVER
        ):
          found.append(placed[0].member)

  tree_analysis.visit_postorder(process.next.to_building_block(), look)
  return found


def test_what_crosses_is_what_the_document_lists(models):
  text = _DOCUMENT.read_text().partition('## All that crosses')[2]
  rows = re.findall(r'^\| `(<.*?>|int.*?)` \|', text, re.MULTILINE)
  secured = _build(
    'fedsa', models, _DISTRIBUTED, secure=secure.SecureConfig(secure=True)
  )
  adaptive = private_process.build_aggregator(
    10, 16, dataclasses.replace(_CENTRAL, clip_quantile=0.5)
  )
  found = [
    one
    for process in (_build('fedsa', models, _CENTRAL), secured, adaptive)
    for one in _crossings(process)
  ]
  compact = [str(t).replace(' ', '') for t in found]
  shapes = [c.replace('10,16', 'C,D').replace('[10]', '[C]') for c in compact]
  assert sorted(set(shapes)) == sorted(rows)
  # The check finds what a process without privacy sends.
  found = [str(t) for t in _crossings(_build('fedsa', models))]
  assert 'float32[10,16]' in found
  # Five terms of the loss and two gaps, each with its weight.
  assert any('numbers=float32[14]' in one for one in found)


def _epsilon_from_below(outputs, neighbours, direction):
  """A lower bound of epsilon, 95 % confidence, from outputs of two inputs.

  The attacker says "neighbour" above a threshold. P(yes | neighbour) <=
  exp(epsilon) P(yes | input) + delta (Kairouz et al. 2015), with
  Clopper-Pearson bounds of both.
  """
  one, other = np.array(outputs) @ direction, np.array(neighbours) @ direction
  threshold = (np.mean(one) + np.mean(other)) / 2
  n = len(one)
  hits, alarms = np.sum(other > threshold), np.sum(one > threshold)
  least = stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
  most = stats.beta.ppf(0.975, alarms + 1, n - alarms) if alarms < n else 1.0
  return math.log(max(least - 1e-5, 1e-12) / most)


@pytest.mark.parametrize('clipped', [True, False])
def test_an_audit_finds_less_than_what_is_claimed(clipped):
  # One client has the longest record there is, or its opposite.
  clip_norm, noise_multiplier, runs = 1.0, 6.0, 150
  process = _sum_process(
    clip_norm if clipped else 1e9, noise_multiplier * clip_norm, (2, 2)
  )
  vectors = np.full([2, 2], 1e3, 'f4')
  nobody = np.zeros(2, 'f4')
  inputs = [
    [private_process.Record(sign * vectors, nobody)] for sign in (-1, 1)
  ]
  outputs = []
  state = process.initialize()
  for records in inputs:
    sums = []
    for _ in range(runs):
      output = process.next(state, records)
      state = output.state
      sums.append(_flat(output.result))
    outputs.append(sums)
  direction = _flat(inputs[1][0]) / np.linalg.norm(vectors)
  found = _epsilon_from_below(*outputs, direction)
  claimed = accounting.Account(
    noise_multiplier, 1e-5, accounting.Sampling(1, 1)
  ).epsilon(1)
  if clipped:
    assert found < claimed
  else:
    assert found > claimed


def test_a_single_record_is_read_by_halves_of_the_unit():
  record = private_process.Record(
    tf.constant([[2.0], [2.0], [2.0]]), tf.constant([0.6, 0.4, -1.0])
  )
  table = private_process.to_table(record, tf.constant([[1.0]] * 3), unit=1.0)
  np.testing.assert_array_equal(table.weights, [1, 0, 0])
  np.testing.assert_array_equal(table.vectors, [[3], [0], [0]])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fedtgp', 'fedgh', 'fedpcl'])
def test_servers_that_collect_read_what_clients_would_send(name, models):
  examples = clients.random_examples()
  plain, _, _ = clients.run(_build(name, models), models, examples)
  private, _, _ = clients.run(
    _build(name, models, dataclasses.replace(_CENTRAL, kind='local')),
    models,
    examples,
  )
  for one, other in zip(
    tf.nest.flatten(plain.model), tf.nest.flatten(private.model)
  ):
    # Servers that train enlarge the rounding of clipped records.
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_a_sum_does_not_serve_servers_that_collect(models):
  with pytest.raises(ValueError, match='only the kind local fits'):
    _build('fedgh', models, _CENTRAL)


def test_what_is_no_mean_by_class_is_refused(models):
  with pytest.raises(ValueError, match='needs clients that send class means'):
    _build('lg_fedavg', models, _CENTRAL)
