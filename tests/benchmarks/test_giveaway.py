"""Attacks on what clients send: their formulas, and leaks that are certain."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import decomposition
from sklearn import metrics
import tensorflow as tf

from benchmarks.giveaway_attacks import inversion
from benchmarks.giveaway_attacks import labels
from benchmarks.giveaway_attacks import membership
from benchmarks.giveaway_attacks import scores
from benchmarks.giveaway_attacks import worlds
from tff_fedsa.data import sources


def test_curves_are_those_of_scikit_learn():
  generator = np.random.default_rng(0)
  # Rounded, so that some are equal.
  found = generator.normal(size=300).round(1)
  members = generator.random(300) < 0.4
  weights = generator.integers(1, 4, size=300)
  for given in (None, weights):
    curve = scores.roc(found, members, given)
    expected = metrics.roc_curve(
      members, found, sample_weight=given, drop_intermediate=False
    )
    np.testing.assert_allclose(curve, expected[:2])
    assert curve.area == pytest.approx(
      metrics.roc_auc_score(members, found, sample_weight=given)
    )


def test_true_positives_at_a_rate():
  # From the top: 2 members, 1 other, 2 members, 3 others.
  members = np.array([1, 1, 0, 1, 1, 0, 0, 0], bool)
  curve = scores.roc(-np.arange(8.0), members)
  assert curve.true_positives_at(0.01) == 0.5
  assert curve.true_positives_at(0.25) == 1.0
  # Others that are below each member.
  assert curve.area == pytest.approx((4 + 4 + 3 + 3) / 16)


def test_bootstrap_draws_whole_clients():
  # Two clients: one is wholly wrong, the other one wholly right.
  found = np.array([1.0, 0.0, 0.0, 1.0])
  members = np.array([True, False, True, False])
  measured = scores.measure_membership(
    found, members, np.array([0, 0, 1, 1]), resamples=100
  )
  assert measured.area == (0.5, 0.0, 1.0)


def test_likelihood_ratio_by_hand():
  # Run 0 is attacked: with the example 3 and 5, without it 0, 1 and 2.
  statistics = np.array([[3.0], [3.0], [5.0], [0.0], [1.0], [2.0]])
  members = np.arange(6)[:, None] < 3
  found = scores.likelihood_ratios(statistics, members)[0, 0]
  inside, outside = stats.norm(4, math.sqrt(2)), stats.norm(1, 1)
  assert found == pytest.approx(inside.logpdf(3) - outside.logpdf(3))
  # (3 - 1)^2 / 2 - (3 - 4)^2 / 4 - log(sqrt(2)).
  assert found == pytest.approx(1.75 - math.log(2) / 2)


def test_the_attacked_run_is_none_of_its_shadows():
  generator = np.random.default_rng(1)
  statistics = generator.normal(size=[12, 40])
  members = generator.permuted(
    np.arange(12)[:, None] % 2 + np.zeros(40), axis=0
  )
  members = members > 0
  first = scores.likelihood_ratios(statistics, members)
  members[3] = ~members[3]
  assert (scores.likelihood_ratios(statistics, members)[3] == first[3]).all()


def test_an_example_that_no_shadow_has_gets_no_score():
  statistics = np.random.default_rng(2).normal(size=[8, 5])
  members = np.arange(8)[:, None] % 2 * np.ones(5) > 0
  members[:, 0] = False
  found = scores.likelihood_ratios(statistics, members)
  assert (found[:, 0] == 0).all() and (found[:, 1:] != 0).all()


def test_scaled_confidence():
  logits = np.array([[1.0, 2.0, 0.5], [90.0, 0.0, 0.0]])
  p = np.exp(2) / np.exp(logits[0]).sum()
  found = scores.scaled_confidence(logits, np.array([1, 0]))
  assert found[0] == pytest.approx(np.log(p / (1 - p)))
  # The probability itself is 1 in floating point.
  assert found[1] == pytest.approx(90.0 - np.log(2))


def test_parts_of_a_mean_are_its_members():
  candidates = np.random.default_rng(0).normal(size=[6, 20])
  mean = candidates[[1, 4]].mean(axis=0)
  np.testing.assert_allclose(
    scores.parts_of_mean(mean, candidates), [0, 0.5, 0, 0, 0.5, 0], atol=1e-9
  )


def test_shares_follow_from_the_bias():
  confusion = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
  shares = np.array([0.6, 0.0, 0.4])
  steps = shares - shares @ confusion
  np.testing.assert_allclose(
    scores.shares_from_bias(steps, confusion), shares, atol=1e-9
  )


def test_total_variation():
  found = scores.total_variation(
    np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.75, 0.25]])
  )
  np.testing.assert_allclose(found, [1.0, 0.25])


def test_errors_of_labels():
  truth = np.array([[3, 1, 0, 0]])
  present = np.array([[True, False, True, False]])
  found = labels.errors_of(truth, present, np.array([[0.5, 0.0, 0.5, 0.0]]))
  assert found == (0.5, 0.5)


def test_references_of_a_class_are_its_zero():
  found = membership.by_class(
    np.array([[1.0, 2.0, 3.0, 10.0, 20.0]]),
    np.array([0, 0, 0, 1, 1]),
    np.array([False, True, True, False, True]),
  )
  np.testing.assert_allclose(found, [[-1.5, -0.5, 0.5, -10.0, 0.0]])


def test_quality_of_a_perfect_reconstruction():
  generator = np.random.default_rng(0)
  choices = generator.uniform(-1, 1, [3, 5, 8, 8, 1]).astype(np.float32)
  means = choices.mean(axis=1)
  found = inversion.quality_of(
    inversion.Images(choices[:, 0], means, choices, 1)
  )
  assert found.similarity == pytest.approx(1.0)
  assert found.error == 0.0 and found.recognized == 1.0
  assert found.of_mean < 0.9 and found.error_of_mean > 0.1
  assert found.chance == 0.2


@pytest.fixture(scope='module')
def data():
  """Images that are noise around one of each class."""
  generator = np.random.default_rng(0)
  centers = generator.uniform(60, 190, [3, 1, 8, 8, 1])
  images = centers + 30 * generator.normal(size=[3, 170, 8, 8, 1])
  source = sources.from_arrays(
    np.clip(images, 0, 255).astype(np.uint8).reshape(-1, 8, 8, 1),
    np.repeat(np.arange(3), 170),
    name='noise',
  )
  return worlds.divide(source, 0)


@pytest.fixture(scope='module')
def certain(data):
  """Clients whose prototypes are means of features of a model that stays."""
  options = worlds.Options(
    family='digits_mlp', rounds=2, epochs=1, learning_rates={'fedsa': 0.0}
  )
  return worlds.Federation('fedsa', data, options=options)


def _measure(found, members):
  groups = np.repeat(np.arange(len(members)), members.shape[1])
  return scores.measure_membership(
    found.ravel(), members.ravel(), groups, resamples=20
  )


def test_a_certain_leak_is_found(data, certain):
  runs = membership.run_clients(certain, data, size=3, num_runs=8, seed=0)
  found = {
    (result.knowledge, result.attack): _measure(result.scores, runs.members)
    for result in membership.attack(certain, data, runs, size=3, seed=0)
  }
  for knowledge in membership.KNOWLEDGE:
    measured = found[knowledge, 'parts']
    assert measured.area.value > 0.999
    assert measured.at_one_percent.value > 0.99
    assert found[knowledge, 'distance'].area.value > 0.6
  guess = np.random.default_rng(0).normal(size=runs.members.shape)
  assert abs(_measure(guess, runs.members).area.value - 0.5) < 0.15


def test_transcripts_are_what_the_process_averages(data, certain):
  before, after = certain.broadcasts
  examples = [
    data.examples(data.public[:, start : start + 10].ravel())
    for start in range(0, 40, 10)
  ]
  sent = certain.attend(examples, first_id=0)
  np.testing.assert_allclose(
    sent.vectors[0].mean(axis=0), after.model.prototypes, rtol=1e-5, atol=1e-6
  )
  assert not np.any(before.model.present)
  assert (sent.presence == 1).all() and (sent.num_examples == 30).all()


def test_components_are_scikit_learns():
  generator = np.random.default_rng(0)
  differences = generator.normal(size=[100, 12]) * np.arange(1, 13)
  differences -= differences.mean(axis=0)
  found = inversion.principal_components(
    differences.reshape(2, 50, 3, 4, 1), 5
  ).reshape(5, 12)
  expected = decomposition.PCA(5).fit(differences)
  lengths = np.linalg.norm(found, axis=1)
  np.testing.assert_allclose(
    lengths**2, 0.99 * expected.explained_variance_, rtol=1e-4
  )
  np.testing.assert_allclose(
    np.abs(found / lengths[:, None]), np.abs(expected.components_), atol=1e-4
  )


def test_features_that_tell_all_are_inverted():
  generator = np.random.default_rng(0)
  images = generator.uniform(-1, 1, [3, 8, 8, 1]).astype(np.float32)
  components = np.eye(64, dtype=np.float32).reshape(64, 8, 8, 1)
  matrices = generator.normal(size=[2, 64, 64]).astype(np.float32)
  prototypes = images.reshape(3, 64) @ matrices.mean(axis=0)

  def forward(matrix, seen):
    return tf.reshape(seen, [-1, 64]) @ matrix, None

  begin = np.zeros_like(images)
  invert = inversion.build_inversion(forward, components)
  found = invert(matrices, prototypes, begin)
  assert np.mean((found - images) ** 2) < 0.1 * np.mean(images**2)


def test_what_is_in_the_clear_is_read(data, certain):
  found = dict(labels.attack(certain, data, seed=0))
  assert found['nothing seen'].presence == 0.5
  assert found['as sent'].presence == 1.0
  assert found['as sent'].distance < found['nothing seen'].distance
  assert found['forest'].presence == 1.0


@pytest.mark.slow
def test_weights_leak_and_local_noise_protects(data):
  measured = []
  for method, protection, best in (
    ('fedavg', worlds.Protection(), ('sent weights', 'parts')),
    ('fedsa', worlds.Protection('central', 8.0), ('known', 'parts')),
    ('fedsa', worlds.Protection('local', 1.0), ('known', 'parts')),
  ):
    options = worlds.Options(family='digits_mlp', rounds=1, epochs=1)
    federation = worlds.Federation(
      method, data, options=options, protection=protection
    )
    runs = membership.run_clients(federation, data, size=2, num_runs=8, seed=0)
    for result in membership.attack(federation, data, runs, size=2, seed=0):
      if (result.knowledge, result.attack) == best:
        measured.append(_measure(result.scores, runs.members).area.value)
  weights, central, local = measured
  assert weights > 0.9 and central > 0.9 and abs(local - 0.5) < 0.2
