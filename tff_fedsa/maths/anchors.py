"""Semantic anchors: initializers, the moving average, separation.

Source: Zhou et al., "FedSA", AAAI 2025 (arXiv:2501.05496); reference code
`FedSA.__init__` and `FedSA.update_semantic_anchors`, lokinko/FedSA@75bf106.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf

_BATCH_NORM_EPSILON = 1e-5


def _batch_norm_relu(
  inputs: tf.Tensor,
  scale: Optional[tf.Tensor] = None,
  offset: Optional[tf.Tensor] = None,
) -> tf.Tensor:
  """Batch normalization over the rows (biased variance), then ReLU."""
  mean, variance = tf.nn.moments(inputs, axes=[0])
  return tf.nn.relu(
    tf.nn.batch_normalization(
      inputs, mean, variance, offset, scale, _BATCH_NORM_EPSILON
    )
  )


def project(
  centers: tf.Tensor,
  kernels: tuple[tf.Tensor, tf.Tensor],
  biases: tuple[tf.Tensor, tf.Tensor],
  scales: tuple[Optional[tf.Tensor], Optional[tf.Tensor]] = (None, None),
  offsets: tuple[Optional[tf.Tensor], Optional[tf.Tensor]] = (None, None),
) -> tf.Tensor:
  """Projects class centers by two layers (linear, batch norm, ReLU).

    A = ReLU(BN(W2 ReLU(BN(W1 R + b1)) + b2))

  Args:
    centers: float[num_classes, feature_dim], R.
    kernels: Two of float[feature_dim, feature_dim], `[in, out]`.
    biases: Two of float[feature_dim].
    scales: Two of float[feature_dim], batch norm's gamma; None means 1.
    offsets: Two of float[feature_dim], batch norm's beta; None means 0.

  Returns:
    float[num_classes, feature_dim] >= 0.
  """
  outputs = centers
  for kernel, bias, scale, offset in zip(
    kernels, biases, scales, offsets, strict=False
  ):
    outputs = _batch_norm_relu(outputs @ kernel + bias, scale, offset)
  return outputs


def random_projection(
  num_classes: int, feature_dim: int, seed: int
) -> np.ndarray:
  """Returns the reference's anchors: randomly projected random centers.

  R ~ N(0, 1); W, b ~ U(-1/sqrt(D), 1/sqrt(D)), PyTorch's default for a linear
  layer. The projection is never trained, and is thrown away. About half of each
  row is zero. The norm of a row is about sqrt(feature_dim / 2).
  """
  rng = np.random.default_rng(seed)
  bound = 1.0 / np.sqrt(feature_dim)

  def uniform(*shape: int) -> tf.Tensor:
    return tf.constant(rng.uniform(-bound, bound, shape), tf.float32)

  centers = tf.constant(
    rng.standard_normal((num_classes, feature_dim)), tf.float32
  )
  square = (feature_dim, feature_dim)
  kernels = (uniform(*square), uniform(*square))
  biases = (uniform(feature_dim), uniform(feature_dim))
  return project(centers, kernels, biases).numpy()


def gaussian(num_classes: int, feature_dim: int, seed: int) -> np.ndarray:
  """Returns anchors ~ N(0, 1/2), with the mean norm of the reference's."""
  rng = np.random.default_rng(seed)
  centers = rng.standard_normal((num_classes, feature_dim)) / np.sqrt(2.0)
  return centers.astype(np.float32)


def orthogonal(num_classes: int, feature_dim: int, seed: int) -> np.ndarray:
  """Returns maximally separated anchors: a randomly turned simplex.

  All pairs have the same distance (cosine -1 / (num_classes - 1)). Every row
  has the norm sqrt(feature_dim / 2), the mean norm of the reference's anchors.

  Raises:
    ValueError: If `num_classes > feature_dim + 1`: no simplex fits.
  """
  if num_classes > feature_dim + 1:
    raise errors.UserError(
      'Orthogonal anchors need num_classes <= feature_dim + 1, found '
      f'num_classes={num_classes} and feature_dim={feature_dim}. Use a larger '
      'feature_dim or the anchor initialization "random_projection".'
    )
  rng = np.random.default_rng(seed)
  # The centered unit vectors span num_classes - 1 dimensions: `corners` are
  # their coordinates there.
  basis, scales, _ = np.linalg.svd(
    np.eye(num_classes) - 1.0 / num_classes, hermitian=True
  )
  corners = (basis * scales)[:, : num_classes - 1]
  directions, _ = np.linalg.qr(
    rng.standard_normal((feature_dim, num_classes - 1))
  )
  centers = corners @ directions.T
  centers /= np.linalg.norm(centers, axis=1, keepdims=True)
  return (centers * np.sqrt(feature_dim / 2.0)).astype(np.float32)


def from_class_vectors(
  vectors: np.ndarray, feature_dim: int, *, seed: int = 0
) -> np.ndarray:
  """Returns anchors that are as far apart as given vectors of the classes.

    A_c = s (v_c - mean of v) B

  B maps the vectors to features by a random isometry, so distances between
  anchors are those between vectors, times s. If features have fewer dimensions
  than the centred vectors, B first keeps their main components. s gives the
  anchors the mean norm sqrt(feature_dim / 2), that of the reference's anchors.

  Vectors may come from texts: `data.embeddings.of_texts`, or an encoder of
  sentences. Anchors from descriptions of the classes are the idea of FedTSP (Wu
  et al., arXiv:2503.13543). FedTSP also trains prompts of its text model at the
  server; here the vectors stay.

  Args:
    vectors: float[num_classes, width], num_classes >= 2.
    feature_dim: Features of an anchor, >= 1.
    seed: Seed of the isometry.

  Returns:
    float32[num_classes, feature_dim].

  Raises:
    ValueError: If a shape is wrong, a number is not finite, or two classes have
      the same vector.
  """
  vectors = np.asarray(vectors, np.float64)
  if vectors.ndim != 2 or len(vectors) < 2 or feature_dim < 1:
    raise errors.UserError(
      'Expected vectors [num_classes >= 2, width] and feature_dim >= 1, found '
      f'{list(vectors.shape)} and feature_dim={feature_dim}.'
    )
  broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
  if broken.size:
    raise errors.UserError(
      f'Expected finite vectors, found others for classes {broken.tolist()}.'
    )
  first: dict[bytes, int] = {}
  for label, vector in enumerate(vectors):
    if (other := first.setdefault(vector.tobytes(), label)) != label:
      raise errors.UserError(
        f'Classes {other} and {label} have the same vector. Describe them in '
        'other words, because anchors must differ.'
      )
  left, scales, _ = np.linalg.svd(
    vectors - vectors.mean(axis=0), full_matrices=False
  )
  components = (left * scales)[:, :feature_dim]
  rng = np.random.default_rng(seed)
  directions, _ = np.linalg.qr(
    rng.standard_normal((feature_dim, components.shape[1]))
  )
  found = components @ directions.T
  found *= np.sqrt(feature_dim / 2.0) / np.linalg.norm(found, axis=1).mean()
  return found.astype(np.float32)


_INITIALIZERS: dict[str, Callable[[int, int, int], np.ndarray]] = {
  'random_projection': random_projection,
  'gaussian': gaussian,
  'orthogonal': orthogonal,
}
INITIALIZER_NAMES = tuple(_INITIALIZERS)


def initial_anchors(
  num_classes: int,
  feature_dim: int,
  *,
  seed: int = 0,
  initializer: str = 'random_projection',
  scale: float = 1.0,
) -> np.ndarray:
  """Returns the initial anchors of the server.

  Args:
    num_classes: At least 2.
    feature_dim: At least 1.
    seed: Seed of all draws. Anchors depend only on the arguments.
    initializer: One of `INITIALIZER_NAMES`. `random_projection` is the
      reference.
    scale: Factor of the anchors, > 0. 1 is the reference.

  Returns:
    float32[num_classes, feature_dim].

  Raises:
    ValueError: If the initializer is unknown, or sizes or scale are impossible.
  """
  if num_classes < 2 or feature_dim < 1:
    raise errors.UserError(
      'Anchors need num_classes >= 2 and feature_dim >= 1, found '
      f'num_classes={num_classes} and feature_dim={feature_dim}.'
    )
  if initializer not in _INITIALIZERS:
    raise errors.UserError(
      f'Unknown anchor initializer {initializer!r}; known: '
      f'{", ".join(INITIALIZER_NAMES)}.'
    )
  if not 0.0 < scale < float('inf'):
    raise errors.UserError(f'Expected an anchor scale > 0, found {scale}.')
  anchors = _INITIALIZERS[initializer](num_classes, feature_dim, seed)
  return anchors * np.float32(scale)


def moving_average(
  anchors: tf.Tensor,
  prototypes: tf.Tensor,
  present: tf.Tensor,
  decay: float | tf.Tensor,
) -> tf.Tensor:
  """Returns anchors moved towards the global prototypes.

    A_c <- decay * A_c + (1 - decay) * P_c   for classes somebody sent

  Args:
    anchors: float32[num_classes, feature_dim].
    prototypes: float32[num_classes, feature_dim].
    present: bool[num_classes]. Anchors of other classes do not move.
    decay: Decay of the moving average, in [0, 1]. The reference uses 0.9999. Or
      float32[num_classes, 1], one for each class.

  Returns:
    float32[num_classes, feature_dim].
  """
  moved = decay * anchors + (1.0 - decay) * prototypes
  return tf.where(present[:, tf.newaxis], moved, anchors)


def decay_by_evidence(
  decay: float, weights: tf.Tensor, evidence: float
) -> tf.Tensor:
  """Returns the decay of each class, by the evidence of the round.

    decay_c = 1 - (1 - decay) * n_c / (n_c + k)

  A class with little evidence moves less. n / (n + k) is the weight of data in
  the adaptation of means with relevance factor k: Reynolds et al., "Speaker
  Verification Using Adapted Gaussian Mixture Models", Digital Signal Processing
  10, 2000. That it scales the rate of anchors is our idea.

  Args:
    decay: Decay of a class of endless evidence, in [0, 1].
    weights: float32[num_classes], n, the evidence of the round. Decays of
      classes of weight 0 are 1.
    evidence: k, the evidence with which a class moves at half the rate, > 0, in
      the unit of the weights.

  Returns:
    float32[num_classes, 1].
  """
  share = weights / (weights + evidence)
  return 1.0 - (1.0 - decay) * share[:, tf.newaxis]


def separated(anchors: tf.Tensor, share: float) -> tf.Tensor:
  """Returns anchors turned towards orthogonal directions.

    A_c <- |A_c| * unit((1 - share) u_c + share q_c),   u_c = A_c / |A_c|

  The rows of Q = (U U^T)^(-1/2) U are orthonormal. They are the nearest to the
  rows of U (symmetric orthogonalization; Löwdin, "On the Non-Orthogonality
  Problem", Journal of Chemical Physics 18, 1950). So each anchor keeps its norm
  and turns by less than 90 degrees, and no class is preferred. If directions
  depend linearly on each other, as those of a simplex do, several Q are equally
  near.

  Orthogonal global prototypes are the idea of FedORGP (Guo et al.,
  arXiv:2502.16119; wisheverybodyhapi/FedORGP@02fe94c, `serverorth.py`). There
  the server trains a network that generates them, by the clients' cosines: near
  1 to the prototype of the class, near 0 to others. That we compute the nearest
  orthogonal directions instead, and turn anchors by a share of the way, is our
  choice.

  Args:
    anchors: float32[num_classes, feature_dim], num_classes <= feature_dim. An
      anchor at the origin stays there.
    share: In [0, 1]. At 1 the anchors are orthogonal.

  Returns:
    float32[num_classes, feature_dim].
  """
  norms = tf.norm(anchors, axis=1, keepdims=True)
  directions = tf.math.divide_no_nan(anchors, norms)
  _, left, right = tf.linalg.svd(directions)
  orthogonal_directions = tf.matmul(left, right, transpose_b=True)
  turned = (1.0 - share) * directions + share * orthogonal_directions
  return norms * turned / tf.norm(turned, axis=1, keepdims=True)
