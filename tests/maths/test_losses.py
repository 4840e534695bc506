"""Loss terms against the authors' code (golden file 3), and by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.maths import losses

CASES = ('c10d512_glob', 'c10d512_loc', 'c100d64_glob', 'c100d64_loc')
# name: (lambda_reg, lambda_mcl, lambda_cc)
TOTALS = {
  'total_l10': (10.0, 1.0, 1.0),
  'total_l1': (1.0, 1.0, 1.0),
  'total_l5_m05_c2': (5.0, 0.5, 2.0),
}


@pytest.fixture(scope='module')
def arrays():
  return golden.load('3_losses')


def _terms(arrays, case):
  """Returns the features, the head and all terms with their gradients."""
  features = tf.constant(arrays[f'{case}_feats'])
  kernel = tf.constant(arrays[f'{case}_head_W'])  # [C, D], torch layout
  bias = tf.constant(arrays[f'{case}_head_b'])
  labels = tf.constant(arrays[f'{case}_y'])
  anchors = tf.constant(arrays[f'{case}_anchors'])
  gap = tf.constant(arrays[f'{case}_gap'], tf.float32)
  sources = {'feats': features, 'W': kernel, 'b': bias}
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(list(sources.values()))

    def head_fn(inputs):
      return tf.matmul(inputs, kernel, transpose_b=True) + bias

    values = {
      'ce': losses.cross_entropy(head_fn(features), labels),
      'mse': losses.anchor_regularization(features, labels, anchors),
      'mcl': losses.margin_contrastive(features, labels, anchors, gap),
      'cc': losses.classifier_calibration(head_fn, anchors),
    }
    for name, (reg, mcl, cc) in TOTALS.items():
      values[name] = (
        values['ce']
        + reg * values['mse']
        + mcl * values['mcl']
        + cc * values['cc']
      )
  gradients = {
    (source, name): tape.gradient(
      value, tensor, unconnected_gradients='zero'
    ).numpy()
    for name, value in values.items()
    for source, tensor in sources.items()
  }
  return values, gradients


@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients_equal_the_reference(arrays, case):
  values, gradients = _terms(arrays, case)
  compared = 0
  for name, value in values.items():
    golden.assert_close(value, arrays[f'{case}_{name}'])
    golden.assert_close(value, arrays[f'{case}_{name}_f64'])
    for source in ('feats', 'W', 'b'):
      key = f'{case}_g_{source}_{name}'
      if key in arrays:
        golden.assert_close(gradients[source, name], arrays[key])
        golden.assert_close(gradients[source, name], arrays[key + '_f64'])
        compared += 1
  assert compared == 17  # gradients in the golden file for each case


def test_gradient_is_finite_where_features_lie_on_anchors(arrays):
  # The official gradient has NaN there: its square root has no epsilon.
  assert arrays['on_anchor_nan_grad_count'] > 0
  anchors = tf.constant(arrays['c10d512_glob_anchors'])
  labels = tf.constant(arrays['c10d512_glob_y'])
  gap = tf.constant(arrays['c10d512_glob_gap'], tf.float32)
  features = tf.concat(
    [
      tf.gather(anchors, labels[:4]),
      tf.constant(arrays['c10d512_glob_feats'])[4:],
    ],
    axis=0,
  )
  with tf.GradientTape() as tape:
    tape.watch(features)
    loss = losses.margin_contrastive(features, labels, anchors, gap)
  assert np.isfinite(tape.gradient(loss, features)).all()
  assert np.isfinite(loss)


def test_margin_contrastive_by_hand():
  # Distances of the only feature: 3 to its own anchor, 4 to the other. With a
  # margin of 2 the logits are (-5, -4): loss = log(1 + e).
  features = tf.zeros([1, 2])
  anchors = tf.constant([[3.0, 0.0], [0.0, 4.0]])
  loss = losses.margin_contrastive(
    features, tf.constant([0]), anchors, tf.constant(2.0)
  )
  np.testing.assert_allclose(loss, np.log(1.0 + np.e), rtol=1e-6)


def test_no_gradient_reaches_the_anchors():
  anchors = tf.constant([[1.0, 0.0], [0.0, 1.0]])
  features = tf.constant([[0.5, 0.2]])
  labels = tf.constant([1])
  with tf.GradientTape() as tape:
    tape.watch(anchors)
    total = (
      losses.anchor_regularization(features, labels, anchors)
      + losses.margin_contrastive(features, labels, anchors, 1.0)
      + losses.classifier_calibration(lambda x: 2.0 * x, anchors)
    )
  assert tape.gradient(total, anchors) is None


def test_feature_dim_mismatch_is_an_error():
  with pytest.raises(ValueError, match='are incompatible'):
    losses.anchor_regularization(
      tf.zeros([2, 3]), tf.constant([0, 1]), tf.zeros([4, 5])
    )
  with pytest.raises(ValueError, match='are incompatible'):
    losses.margin_contrastive(
      tf.zeros([2, 3]), tf.constant([0, 1]), tf.zeros([4, 5]), 1.0
    )


def test_distillation_by_hand():
  logits = tf.constant([[0.0, 0.0]])  # 1/2, 1/2
  teacher = tf.constant([[0.0, math.log(3.0)]])  # 1/4, 3/4
  expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
  assert float(losses.distillation(logits, teacher)) == pytest.approx(expected)
  # A mean over examples: the second one agrees with its teacher.
  logits, teacher = tf.repeat(logits, 2, 0), tf.concat([teacher, logits], 0)
  assert float(losses.distillation(logits, teacher)) == pytest.approx(
    expected / 2
  )


def test_mutual_distillation_teaches_the_pupil_only():
  logits = tf.constant([[0.0, 0.0]])
  shared = tf.constant([[0.0, math.log(3.0)]])
  with tf.GradientTape(persistent=True) as tape:
    tape.watch([logits, shared])
    own_term, shared_term = losses.mutual_distillation(logits, shared)
  assert float(own_term) == pytest.approx(0.130812, abs=1e-6)
  assert float(shared_term) == pytest.approx(0.143841, abs=1e-6)
  # d KL(q || p) / d logits of p = p - q.
  np.testing.assert_allclose(
    tape.gradient(own_term, logits), [[0.25, -0.25]], atol=1e-6
  )
  np.testing.assert_allclose(
    tape.gradient(shared_term, shared), [[-0.25, 0.25]], atol=1e-6
  )
  assert tape.gradient(own_term, shared) is None
  assert tape.gradient(shared_term, logits) is None


def test_mutual_distillation_of_the_reference_moves_both():
  logits = tf.constant([[0.0, 0.0]])
  shared = tf.constant([[0.0, math.log(3.0)]])
  with tf.GradientTape() as tape:
    tape.watch([logits, shared])
    own_term, shared_term = losses.mutual_distillation(
      logits, shared, reference=True
    )
  # Averaged over the two classes, too.
  assert float(own_term) == pytest.approx(0.130812 / 2, abs=1e-6)
  assert float(shared_term) == pytest.approx(0.143841 / 2, abs=1e-6)
  # d KL(q || p) / d logits of q = q (log q - log p - KL).
  difference = np.log([0.5, 1.5]) - 0.130812
  np.testing.assert_allclose(
    tape.gradient(own_term, shared),
    [np.array([0.25, 0.75]) * difference / 2],
    atol=1e-6,
  )


def _structure(features, labels, anchors):
  return losses.structural_alignment(
    tf.constant(features, tf.float32),
    tf.constant(labels),
    tf.constant(anchors, tf.float32),
  ).numpy()


def test_structural_alignment_by_hand():
  # Centered, features are x, y = +-1, and targets x/2. With K = xx' + yy' and
  # L = xx'/4: CKA = |x|^4 / (sqrt(|x|^4 + |y|^4) |x|^2) = 1/sqrt(2).
  features = [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]
  anchors = [[0.0], [1.0]]
  np.testing.assert_allclose(
    _structure(features, [0, 1, 0, 1], anchors), 1 - 1 / math.sqrt(2), 1e-5
  )


def test_structural_alignment_equals_that_of_numpy(arrays):
  features = arrays['c10d512_glob_feats'].astype(np.float64)
  labels = arrays['c10d512_glob_y']
  targets = arrays['c10d512_glob_anchors'].astype(np.float64)[labels]
  centered = [x - x.mean(0) for x in (features, targets)]
  cross = np.linalg.norm(centered[0].T @ centered[1]) ** 2
  own = [np.linalg.norm(x.T @ x) for x in centered]
  np.testing.assert_allclose(
    _structure(features, labels, arrays['c10d512_glob_anchors']),
    1 - cross / (own[0] * own[1]),
    1e-4,
  )


def test_structural_alignment_ignores_rotation_shift_and_factor():
  rng = np.random.default_rng(0)
  anchors = rng.normal(size=[4, 6])
  labels = np.arange(12) % 4
  rotation = np.linalg.qr(rng.normal(size=[6, 6]))[0]
  features = 3.0 * anchors[labels] @ rotation + rng.normal(size=6)
  assert abs(_structure(features, labels, anchors)) < 1e-5
  assert _structure(rng.normal(size=[12, 6]), labels, anchors) > 0.1


@pytest.mark.parametrize(
  'features, labels, expected',
  [
    (np.ones([3, 4]), [1, 1, 1], 0.0),
    (np.eye(3, 4), [1, 1, 1], 0.0),
    (np.ones([3, 4]), [0, 1, 2], 1.0),
    (np.eye(3, 4), [0, 1, 2], 0.0),
  ],
)
def test_structural_alignment_has_finite_gradients(features, labels, expected):
  anchors = tf.eye(3, 4)
  features = tf.constant(features, tf.float32)
  with tf.GradientTape() as tape:
    tape.watch([features, anchors])
    value = losses.structural_alignment(features, tf.constant(labels), anchors)
  gradient, of_anchors = tape.gradient(value, [features, anchors])
  assert np.isfinite(gradient).all() and of_anchors is None
  assert value.numpy() == pytest.approx(expected, abs=1e-6)
