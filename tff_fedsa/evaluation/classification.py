"""Metrics of classifiers beyond accuracy, from sums that clients compute.

A client sums *statistics* over its test examples: a confusion matrix, the
log-loss, bins of confidence, histograms of scores. Sums over clients give the
metrics over all clients, and the sums of one client give its own. No
prediction or score of an example leaves a client.

The scores of a classifier are its logits; those of a nearest center are the
negative mean squared distances. Their softmax is the probability of a class.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
import math
from typing import Any

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

METRICS = (
  'macro_f1',
  'balanced_accuracy',
  'recall',
  'auroc',
  'log_loss',
  'ece',
  'confusion',
)

# Metric -> what it is, and its range or unit.
MEANINGS = {
  'macro_f1': 'mean F1 score of classes, in [0, 1]',
  'balanced_accuracy': 'mean recall of classes, in [0, 1]',
  'recall': 'recall of each class with test examples, in [0, 1]',
  'auroc': (
    'area under the ROC curve of a class against the rest, mean over classes, '
    'in [0, 1], from histograms of scores'
  ),
  'log_loss': 'mean negative log-probability of the label, nats',
  'ece': 'expected calibration error, 15 bins of equal width, in [0, 1]',
}

NUM_CALIBRATION_BINS = 15

# Histograms of log-odds, minus those of a class that is as probable as all
# others. Bins are narrow, 1/555, where classifiers are undecided, and grow with
# the distance x from there, to about x / 69. The ends are at 100.
_NUM_SCORE_BINS = 1024
_LARGEST_LOG_ODDS = 100.0
_STEEPNESS = 8.0

# Probabilities in float32 are clipped here in the log-loss, as scikit-learn
# clips them.
_EPSILON = float(np.finfo(np.float32).eps)
_VERY_LOW = -1e30

# Metrics that need other statistics than the confusion matrix.
_STATISTICS = {
  'auroc': 'histograms',
  'log_loss': 'log_loss',
  'ece': 'calibration',
}


def check(metrics: Collection[str]) -> None:
  """Checks names of metrics.

  Raises:
    ValueError: If a name is unknown.
  """
  for name in metrics:
    if name not in METRICS:
      raise errors.UserError(
        f'Unknown metric {name!r}; known: {", ".join(METRICS)}.'
      )


def statistics_of(metrics: Collection[str]) -> tuple[str, ...]:
  """Returns the statistics that metrics need.

  Args:
    metrics: Some of `METRICS`.
  """
  if not metrics:
    return ()
  others = [_STATISTICS[name] for name in METRICS if name in _STATISTICS]
  needed = {_STATISTICS.get(name) for name in metrics}
  return ('confusion', *(name for name in others if name in needed))


def zeros(
  statistics: Collection[str], num_classes: int
) -> dict[str, tf.Tensor]:
  """Returns the statistics of no example, by name.

  - `confusion`: int32[num_classes, num_classes + 1], examples by label and
    prediction; the last column is for no prediction.
  - `log_loss`: float32, sum over examples, nats.
  - `calibration`: float32[3, 15]: examples, correct ones and sum of confidence
    by bin of confidence.
  - `histograms`: int32[2, num_classes, 1024]: examples of other classes, and of
    the class, by the log-odds of the class (see `_histograms`).

  Args:
    statistics: Result of `statistics_of`.
    num_classes: Number of classes.
  """
  shapes: dict[str, tuple[Any, list[int]]] = {
    'confusion': (tf.int32, [num_classes, num_classes + 1]),
    'log_loss': (tf.float32, []),
    'calibration': (tf.float32, [3, NUM_CALIBRATION_BINS]),
    'histograms': (tf.int32, [2, num_classes, _NUM_SCORE_BINS]),
  }
  return collections.OrderedDict(
    (name, tf.zeros(shapes[name][1], shapes[name][0])) for name in statistics
  )


def of_batch(
  statistics: Collection[str],
  scores: tf.Tensor,
  predictions: tf.Tensor,
  labels: tf.Tensor,
) -> dict[str, tf.Tensor]:
  """Returns the statistics of a batch, by name (see `zeros`).

  Args:
    statistics: Result of `statistics_of`.
    scores: float32[batch, num_classes]; -inf is probability 0.
    predictions: int32[batch]; -1 is no prediction.
    labels: int32[batch].
  """
  num_classes = scores.shape[1]
  scores = tf.where(tf.math.is_finite(scores), scores, _VERY_LOW)
  log_probabilities = tf.nn.log_softmax(scores)
  fns = {
    'confusion': lambda: _confusion(predictions, labels, num_classes),
    'log_loss': lambda: -tf.reduce_sum(
      tf.clip_by_value(
        tf.gather(log_probabilities, labels, batch_dims=1),
        math.log(_EPSILON),
        math.log1p(-_EPSILON),
      )
    ),
    'calibration': lambda: _calibration(log_probabilities, predictions, labels),
    'histograms': lambda: _histograms(log_probabilities, labels, num_classes),
  }
  return collections.OrderedDict((name, fns[name]()) for name in statistics)


def _counts(ids: tf.Tensor, shape: list[int]) -> tf.Tensor:
  counts = tf.math.unsorted_segment_sum(
    tf.ones_like(ids), ids, math.prod(shape)
  )
  return tf.reshape(counts, shape)


def _confusion(
  predictions: tf.Tensor, labels: tf.Tensor, num_classes: int
) -> tf.Tensor:
  columns = tf.where(predictions < 0, num_classes, predictions)
  return _counts(
    labels * (num_classes + 1) + columns, [num_classes, num_classes + 1]
  )


def _calibration(
  log_probabilities: tf.Tensor, predictions: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
  confidence = tf.exp(tf.reduce_max(log_probabilities, axis=1))
  # The bin of p has p in (lowest, highest].
  bins = tf.cast(tf.math.ceil(confidence * NUM_CALIBRATION_BINS), tf.int32) - 1
  bins = tf.clip_by_value(bins, 0, NUM_CALIBRATION_BINS - 1)
  correct = tf.cast(tf.equal(predictions, labels), tf.float32)
  values = tf.stack([tf.ones_like(confidence), correct, confidence], axis=1)
  return tf.transpose(
    tf.math.unsorted_segment_sum(values, bins, NUM_CALIBRATION_BINS)
  )


def _histograms(
  log_probabilities: tf.Tensor, labels: tf.Tensor, num_classes: int
) -> tf.Tensor:
  log_odds = log_probabilities - tf.math.log(-tf.math.expm1(log_probabilities))
  log_odds += math.log(max(num_classes - 1, 1))
  log_odds = tf.clip_by_value(log_odds, -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)
  # In [-1, 1].
  places = tf.asinh(_STEEPNESS * log_odds)
  places /= math.asinh(_STEEPNESS * _LARGEST_LOG_ODDS)
  bins = tf.cast((places + 1.0) * (_NUM_SCORE_BINS / 2), tf.int32)
  bins = tf.clip_by_value(bins, 0, _NUM_SCORE_BINS - 1)
  of_class = tf.one_hot(labels, num_classes, dtype=tf.int32)
  classes = tf.range(num_classes)[tf.newaxis]
  ids = (of_class * num_classes + classes) * _NUM_SCORE_BINS + bins
  return _counts(tf.reshape(ids, [-1]), [2, num_classes, _NUM_SCORE_BINS])


def compute(
  statistics: Mapping[str, np.ndarray], metrics: Collection[str]
) -> collections.OrderedDict[str, float]:
  """Returns metrics from sums of statistics. `confusion` is no number.

  The definitions are those of scikit-learn: classes without a label or a
  prediction are left out of `macro_f1`, classes without a label of
  `balanced_accuracy`. `recall` becomes `recall_<class>` for each class with a
  label. `auroc` is the mean over classes that some but not all examples have;
  `auroc_error` is the most by which bins can change it. A metric is NaN if
  there is nothing to compute it from.

  Args:
    statistics: Sums over the examples of a client or of several.
    metrics: Some of `METRICS`.
  """
  confusion = np.asarray(statistics['confusion'], np.int64)
  with np.errstate(invalid='ignore', divide='ignore'):
    labels, right = confusion.sum(axis=1), np.diag(confusion)
    predicted = confusion[:, :-1].sum(axis=0)
    recall = right / labels
    f1 = 2 * right / (labels + predicted)
  found: collections.OrderedDict[str, float] = collections.OrderedDict()
  for name in (name for name in METRICS if name in metrics):
    if name == 'macro_f1':
      found[name] = _mean(f1)
    elif name == 'balanced_accuracy':
      found[name] = _mean(recall)
    elif name == 'recall':
      for index in np.flatnonzero(labels):
        found[f'{name}_{index}'] = float(recall[index])
    elif name == 'auroc':
      found[name], found[f'{name}_error'] = _auroc(statistics['histograms'])
    elif name == 'log_loss':
      total = float(statistics['log_loss'])
      found[name] = total / labels.sum() if labels.sum() else math.nan
    elif name == 'ece':
      found[name] = _ece(statistics['calibration'])
  return found


def _mean(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else math.nan


def _auroc(histograms: np.ndarray) -> tuple[float, float]:
  others, own = np.asarray(histograms, np.float64)
  below = np.cumsum(others, axis=1) - others
  with np.errstate(invalid='ignore'):
    pairs = own.sum(axis=1) * others.sum(axis=1)
    # Pairs within a bin count half, as ties do.
    areas = (own * (below + others / 2)).sum(axis=1) / pairs
    errors_of = (own * others / 2).sum(axis=1) / pairs
  return _mean(areas), _mean(errors_of)


def _ece(calibration: np.ndarray) -> float:
  examples, correct, confidence = np.asarray(calibration, np.float64)
  if not examples.sum():
    return math.nan
  return float(np.abs(correct - confidence).sum() / examples.sum())


def pooled(
  counts: Collection[Mapping[str, Any]], classifier: str
) -> dict[str, np.ndarray]:
  """Returns the sums of a classifier's statistics, by name.

  Args:
    counts: Counts of clients, with `<classifier>_<statistic>` beside the
      numbers of correct examples.
    classifier: Name of the classifier.
  """
  names = [
    name
    for name in ('confusion', 'log_loss', 'calibration', 'histograms')
    if all(f'{classifier}_{name}' in one for one in counts)
  ]
  return {
    name: np.sum(
      [np.asarray(one[f'{classifier}_{name}']) for one in counts],
      axis=0,
      dtype=np.float64,
    )
    for name in names
  }
