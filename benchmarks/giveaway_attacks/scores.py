"""How well an attack does: pure functions of arrays.

Sources: Carlini et al., "Membership Inference Attacks From First Principles",
IEEE S&P 2022 (arXiv:2112.03570), for the likelihood ratio (LiRA), the scaled
confidence and the true positive rate at a low false positive rate.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy import stats

# Smallest standard deviation of a statistic over shadow runs.
_LEAST_DEVIATION = 1e-12


class Curve(NamedTuple):
  """A receiver operating characteristic.

  Attributes:
    false_positives: float64[points], rates, from 0 to 1.
    true_positives: float64[points], rates, from 0 to 1.
  """

  false_positives: np.ndarray
  true_positives: np.ndarray

  @property
  def area(self) -> float:
    """Area under the curve, in [0, 1]. 0.5 is a guess."""
    return float(np.trapz(self.true_positives, self.false_positives))

  def true_positives_at(self, false_positives: float) -> float:
    """Returns the largest rate of true positives with at most so many false.

    Args:
      false_positives: Rate, in [0, 1].
    """
    within = self.false_positives <= false_positives
    return float(self.true_positives[within].max())


class Interval(NamedTuple):
  """A measure with its bootstrap interval.

  Attributes:
    value: The measure of all data.
    low: 2.5 % of the resampled measures lie below.
    high: 2.5 % of them lie above.
  """

  value: float
  low: float
  high: float


class Membership(NamedTuple):
  """How well scores tell members from others.

  Attributes:
    area: Area under the curve.
    at_one_percent: Rate of true positives at 1 % false positives.
    curve: The curve of all data.
  """

  area: Interval
  at_one_percent: Interval
  curve: Curve


def roc(
  scores: np.ndarray, members: np.ndarray, weights: np.ndarray | None = None
) -> Curve:
  """Returns the curve of scores; equal scores are one point of it.

  Args:
    scores: float[n], larger for members.
    members: bool[n], the truth; some are True and some False.
    weights: float[n], >= 0; 1 by default.
  """
  order = np.argsort(-scores, kind='stable')
  ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
  weights = np.ones(len(scores)) if weights is None else weights
  rates = []
  for counted in (~members, members):
    total = np.cumsum((weights * counted)[order])
    rates.append(np.append(0.0, total[ends] / total[-1]))
  return Curve(*rates)


def measure_membership(
  scores: np.ndarray,
  members: np.ndarray,
  groups: np.ndarray,
  *,
  resamples: int = 200,
  seed: int = 0,
) -> Membership:
  """Returns area and rate of an attack, with bootstrap intervals.

  Scores of one attacked client depend on each other. So the bootstrap draws
  whole clients.

  Args:
    scores: float[n], larger for members.
    members: bool[n], the truth.
    groups: int[n], the attacked client of each score, in [0, clients).
    resamples: Draws of the bootstrap.
    seed: Seed of the draws.
  """
  order = np.argsort(-scores, kind='stable')
  scores, members, groups = scores[order], members[order], groups[order]
  curve = roc(scores, members)
  generator = np.random.default_rng(seed)
  count = int(groups.max()) + 1
  drawn = generator.multinomial(count, np.full(count, 1 / count), resamples)
  curves = [roc(scores, members, draw[groups]) for draw in drawn]

  def interval(value, found):
    return Interval(value, *map(float, np.quantile(found, [0.025, 0.975])))

  return Membership(
    interval(curve.area, [c.area for c in curves]),
    interval(
      curve.true_positives_at(0.01),
      [c.true_positives_at(0.01) for c in curves],
    ),
    curve,
  )


def likelihood_ratios(
  statistics: np.ndarray, members: np.ndarray
) -> np.ndarray:
  """Returns LiRA's scores: each run is attacked with all others as shadows.

  For an example, the statistic of the runs with it and of the runs without it
  are two Gaussians. The score is the logarithm of the ratio of their densities
  at the attacked run's statistic. There are too few runs for a variance of each
  example. So examples share the two variances, as the paper advises for fewer
  than 64 runs.

  Args:
    statistics: float[runs, examples].
    members: bool[runs, examples], whether the run trained on the example.

  Returns:
    float64[runs, examples]. 0 for an example that all other runs have, or none.
  """
  statistics = statistics.astype(np.float64)
  scores = np.zeros(statistics.shape)
  for run in range(len(statistics)):
    others = np.arange(len(statistics)) != run
    logs, known = [], True
    for chosen in (members[others], ~members[others]):
      counts = chosen.sum(axis=0)
      values = statistics[others]
      means = (values * chosen).sum(axis=0) / np.maximum(counts, 1)
      squares = np.where(chosen, values - means, 0.0) ** 2
      freedom = np.maximum(counts - 1, 0).sum()
      deviation = max(np.sqrt(squares.sum() / freedom), _LEAST_DEVIATION)
      logs.append(stats.norm.logpdf(statistics[run], means, deviation))
      known = known & (counts > 0)
    scores[run] = np.where(known, logs[0] - logs[1], 0.0)
  return scores


def scaled_confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns log(p / (1 - p)) of the true class, as LiRA scales confidences.

  Args:
    logits: float[..., examples, classes].
    labels: int[examples].

  Returns:
    float64[..., examples].
  """
  logits = logits.astype(np.float64)
  own = np.arange(logits.shape[-1]) == labels[:, np.newaxis]
  true = np.where(own, logits, 0.0).sum(axis=-1)
  others = np.where(own, -np.inf, logits)
  largest = others.max(axis=-1, keepdims=True)
  rest = np.log(np.exp(others - largest).sum(axis=-1)) + largest[..., 0]
  return true - rest


def parts_of_mean(mean: np.ndarray, candidates: np.ndarray) -> np.ndarray:
  """Returns the part that each candidate has in a mean, non-negative.

  Args:
    mean: float[dim], e.g. a prototype.
    candidates: float[n, dim], of which some have the mean.

  Returns:
    float64[n], the non-negative factors whose sum of candidates is nearest to
    the mean.
  """
  return optimize.nnls(candidates.T, mean)[0]


def shares_from_bias(
  steps: np.ndarray, confusion: np.ndarray, total: float = 1.0
) -> np.ndarray:
  """Returns the shares of classes from the change of a last layer's bias.

  The gradient of the cross-entropy by the bias is the mean of (predicted
  probabilities - one-hot labels). So the change, divided by minus the learning
  rate and the number of steps, is the shares minus the mean of predictions.
  With the mean prediction for each true class, this is a linear equation.

  Args:
    steps: float[classes], mean over steps of (labels - predictions): the change
      of the bias / (learning rate * steps).
    confusion: float[classes, classes], row k is the mean predicted
      probabilities of examples of class k.
    total: Weight of the equation that the shares have the sum 1.

  Returns:
    float64[classes], non-negative, of sum 1.
  """
  classes = len(steps)
  equations = np.vstack([np.eye(classes) - confusion.T, np.ones(classes)])
  equations[-1] *= total
  shares = optimize.nnls(equations, np.append(steps, total))[0]
  if not shares.sum():
    return np.full(classes, 1 / classes)
  return shares / shares.sum()


def total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns the total variation distance of distributions, in [0, 1].

  Args:
    first: float[..., classes], of sum 1.
    second: float[..., classes], of sum 1.
  """
  return 0.5 * np.abs(first - second).sum(axis=-1)
