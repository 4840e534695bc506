"""FedGen's generator: features of given classes from noise.

Source: Zhu et al., "Data-Free Knowledge Distillation for Heterogeneous
Federated Learning", ICML 2021 (arXiv:2105.10056); reference code `Generative`
in `system/flcore/servers/servergen.py`, TsingZ0/HtFLlib@e959261.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

# PyTorch's default.
_BATCH_NORM_EPSILON = 1e-5


class Generator(NamedTuple):
  """Weights of the network that generates features of given classes.

    G(e, y) = ReLU(BN([e, onehot(y)] W1)) W2 + b2

  The reference has a bias before the normalization. The normalization cancels
  it, so its gradient is rounding noise, which Adam turns into steps. We leave
  it out.

  Attributes:
    hidden_kernel: float32[noise_dim + num_classes, hidden_dim], W1.
    scale: float32[hidden_dim], gamma of the batch normalization.
    offset: float32[hidden_dim], beta of the batch normalization.
    output_kernel: float32[hidden_dim, feature_dim], W2.
    output_bias: float32[feature_dim], b2.
  """

  hidden_kernel: Any
  scale: Any
  offset: Any
  output_kernel: Any
  output_bias: Any


def initial_generator(
  num_classes: int,
  feature_dim: int,
  *,
  noise_dim: int,
  hidden_dim: int,
  seed: int = 0,
) -> Generator:
  """Draws a generator from PyTorch's distributions.

  Kernels and biases ~ U(-1/sqrt(n), 1/sqrt(n)) for n inputs; gamma is 1 and
  beta is 0.

  Args:
    num_classes: C.
    feature_dim: D.
    noise_dim: Length of the noise vector.
    hidden_dim: Units of the hidden layer.
    seed: Seed of the draw.
  """
  rng = np.random.default_rng(seed)

  def uniform(num_inputs, *shape):
    bound = 1.0 / np.sqrt(num_inputs)
    return rng.uniform(-bound, bound, shape).astype(np.float32)

  num_inputs = noise_dim + num_classes
  return Generator(
    uniform(num_inputs, num_inputs, hidden_dim),
    np.ones([hidden_dim], np.float32),
    np.zeros([hidden_dim], np.float32),
    uniform(hidden_dim, hidden_dim, feature_dim),
    uniform(hidden_dim, feature_dim),
  )


def generate(
  generator: Generator, noise: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
  """Generates features of given classes.

  The normalization uses the statistics of the batch, at clients and at the
  server. The reference never leaves training mode either.

  Args:
    generator: The weights.
    noise: float32[batch, noise_dim], e.
    labels: int32[batch], y.

  Returns:
    float32[batch, feature_dim].
  """
  num_classes = generator.hidden_kernel.shape[0] - noise.shape[1]
  inputs = tf.concat([noise, tf.one_hot(labels, num_classes)], axis=1)
  hidden = inputs @ generator.hidden_kernel
  mean, variance = tf.nn.moments(hidden, axes=[0])
  hidden = tf.nn.batch_normalization(
    hidden,
    mean,
    variance,
    generator.offset,
    generator.scale,
    _BATCH_NORM_EPSILON,
  )
  return tf.nn.relu(hidden) @ generator.output_kernel + generator.output_bias


def draw(
  label_counts: tf.Tensor, noise_dim: int, batch_size: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Draws noise and labels for a batch of generated features.

  Args:
    label_counts: float32[num_classes]. The probability of a label is
      proportional to its count. If all counts are 0, as in the first round, all
      labels are equally likely.
    noise_dim: Length of the noise vector.
    batch_size: Features to generate, at least 2, because they are normalized
      together.
    seed: int32[2].

  Returns:
    Noise float32[batch_size, noise_dim] ~ U(0, 1) and labels
    int32[batch_size].
  """
  noise_seed, label_seed = (
    tf.random.experimental.stateless_fold_in(seed, i) for i in range(2)
  )
  noise = tf.random.stateless_uniform([batch_size, noise_dim], noise_seed)
  known = tf.reduce_any(label_counts > 0)
  likelihoods = tf.where(known, label_counts, tf.ones_like(label_counts))
  labels = tf.random.stateless_categorical(
    tf.math.log(likelihoods)[tf.newaxis],
    batch_size,
    label_seed,
    dtype=tf.int32,
  )
  return noise, labels[0]


def generator_type(
  num_classes: int, feature_dim: int, *, noise_dim: int, hidden_dim: int
) -> Generator:
  """Returns a `Generator` of TFF types. See `initial_generator`."""
  hidden = tff.TensorType(np.float32, (hidden_dim,))
  return Generator(
    tff.TensorType(np.float32, (noise_dim + num_classes, hidden_dim)),
    hidden,
    hidden,
    tff.TensorType(np.float32, (hidden_dim, feature_dim)),
    tff.TensorType(np.float32, (feature_dim,)),
  )
