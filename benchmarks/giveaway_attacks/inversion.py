"""What does an image look like whose feature is a prototype?

Gradient descent brings the feature of an image near to the prototype that a
client sent. Without a prior the result is noise with this feature. So the image
is the mean of public images of the class, plus principal components of how
public images differ from the mean of their class, with a Gaussian prior. The
attacker uses one of three models (see `membership`): a `surrogate`, the weights
of the `first round`, or the client's own (`known`).

A reconstruction is compared with the training images of the client's class. The
guess without any message is the mean of public images of the class.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks.giveaway_attacks import membership
from benchmarks.giveaway_attacks import worlds

_CLIENTS = 2
_STEPS = 300
_LEARNING_RATE = 0.05
# Principal components, and the weight of their prior.
_COMPONENTS = 40
_PRIOR = 0.03
# Images of the class among which a reconstruction finds the client's.
CHOICES = 20
_FIRST_ID = 40_000
_IDS_OF_SIZE = 100


class Images(NamedTuple):
  """Reconstructions of the prototypes of some clients, as models see images.

  Attributes:
    found: float32[images, height, width, channels].
    means: float32[images, …], the public mean image of the class.
    choices: float32[images, CHOICES, …], images of the class; the first `size`
      are the client's training images.
    size: Training images of the client's class.
  """

  found: np.ndarray
  means: np.ndarray
  choices: np.ndarray
  size: int


class Quality(NamedTuple):
  """How near reconstructions are.

  Attributes:
    similarity: SSIM with the most similar training image, mean over images.
    of_mean: The same of the public mean image.
    error: Mean squared error to the nearest training image; pixels are in
      [-1, 1].
    error_of_mean: The same of the public mean image.
    recognized: Share of reconstructions whose nearest one of all choices is a
      training image.
    recognized_of_mean: The same of the public mean image.
    chance: The same by chance.
  """

  similarity: float
  of_mean: float
  error: float
  error_of_mean: float
  recognized: float
  recognized_of_mean: float
  chance: float


def attack(
  federation: worlds.Federation,
  data: worlds.Data,
  *,
  size: int,
  seed: int,
  knowledge: Sequence[str] = membership.KNOWLEDGE,
) -> Iterator[tuple[str, Images]]:
  """Yields what the attacker knows, and its reconstructions.

  Args:
    federation: Has begun with the seed.
    data: Images of the seed.
    size: Training images of each class of a client.
    seed: Seed of who has which.
    knowledge: Some of `membership.KNOWLEDGE`.
  """
  generator = np.random.default_rng([seed, size, 3])
  drawn = np.stack(
    [
      generator.permuted(data.candidates, axis=1)[:, :CHOICES]
      for _ in range(_CLIENTS)
    ]
  )
  sent = federation.attend(
    [data.examples(own[:, :size].ravel()) for own in drawn],
    first_id=_FIRST_ID + _IDS_OF_SIZE * size,
  )
  surrogates = membership.train_surrogates(
    federation, data, size=size, seed=seed
  )
  choices = data.seen(drawn.reshape(-1, CHOICES))
  public = data.seen(data.public)
  means = public.mean(axis=1)
  invert = build_inversion(
    worlds.forward_fn(federation.model, data.input_spec),
    principal_components(public - means[:, np.newaxis], _COMPONENTS),
  )
  all_means = np.concatenate([means] * _CLIENTS)
  initial = federation.initial_weights
  for known in knowledge:
    found = []
    for client, own in enumerate(sent.own_weights[-1]):
      weights = {
        'surrogate': surrogates[-1],
        'first round': np.stack([initial, *surrogates[0]]),
        'known': np.stack([sent.own_weights[-2][client], own]),
      }[known]
      round_num = 0 if known == 'first round' else -1
      found.append(invert(weights, sent.vectors[round_num][client], means))
    yield known, Images(np.concatenate(found), all_means, choices, size)


def quality_of(images: Images) -> Quality:
  """Returns how near reconstructions are, and the mean images."""
  numbers = []
  for found in (images.found, images.means):
    own = images.choices[:, : images.size]
    similarity = _similarities(found, own).max(axis=1).mean()
    errors = _errors(found, images.choices)
    error = errors[:, : images.size].min(axis=1).mean()
    recognized = (errors.argmin(axis=1) < images.size).mean()
    numbers.append((similarity, error, recognized))
  (similarity, error, recognized), (of_mean, error_of_mean, by_mean) = numbers
  return Quality(
    *map(
      float,
      (
        similarity,
        of_mean,
        error,
        error_of_mean,
        recognized,
        by_mean,
        images.size / images.choices.shape[1],
      ),
    )
  )


def _errors(found, choices):
  """Returns mean squared errors [images, choices]."""
  return ((found[:, np.newaxis] - choices) ** 2).mean(axis=(2, 3, 4))


def _similarities(found, choices):
  """Returns SSIM [images, choices], of windows of at most 7 pixels."""
  return tf.image.ssim(
    tf.constant(found[:, np.newaxis]),
    tf.constant(choices),
    max_val=2.0,
    filter_size=7,
  ).numpy()


def principal_components(differences: np.ndarray, number: int) -> np.ndarray:
  """Returns the largest components, each as long as its standard deviation.

  Args:
    differences: float32[classes, images, height, width, channels], of mean 0.
    number: Components, at most.

  Returns:
    float32[components, height, width, channels].
  """
  shape = differences.shape[2:]
  rows = differences.reshape(-1, int(np.prod(shape)))
  _, lengths, directions = np.linalg.svd(rows, full_matrices=False)
  scaled = directions * lengths[:, np.newaxis] / np.sqrt(len(rows))
  return scaled[:number].reshape(-1, *shape).astype(np.float32)


def build_inversion(
  forward: Callable[..., Any], components: np.ndarray
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
  """Returns `fn(models, prototypes, begin) -> images`.

  It takes `models` float32[models, num_weights], `prototypes` float32[images,
  D] and `begin` float32[images, height, width, channels], in [-1, 1]. The mean
  of the models' features of an image comes near to its prototype.

  Args:
    forward: Result of `worlds.forward_fn`.
    components: float32[components, height, width, channels], the directions in
      which images change, of the length of one standard deviation.
  """
  optimizer = tff.learning.optimizers.build_adam(_LEARNING_RATE)
  directions = tf.constant(components)

  def to_images(coefficients, begin):
    changes = tf.tensordot(coefficients, directions, axes=1)
    return tf.clip_by_value(begin + changes, -1.0, 1.0)

  @tf.function(autograph=False)
  def step(state, coefficients, begin, models, prototypes):
    with tf.GradientTape() as tape:
      tape.watch(coefficients)
      images = to_images(coefficients, begin)
      features = tf.reduce_mean(
        tf.map_fn(lambda own: forward(own, images)[0], models), axis=0
      )
      # Prototypes differ in length.
      distances = tf.reduce_sum(
        (features - prototypes) ** 2, axis=1
      ) / tf.reduce_sum(prototypes**2, axis=1)
      unlikely = tf.reduce_mean(coefficients**2, axis=1)
      loss = tf.reduce_sum(distances + _PRIOR * unlikely)
    gradients = tape.gradient(loss, coefficients)
    return optimizer.next(state, coefficients, gradients)

  def invert(models, prototypes, begin):
    models, prototypes = tf.constant(models), tf.constant(prototypes)
    begin = tf.constant(begin)
    coefficients = tf.zeros([len(prototypes), len(components)])
    state = optimizer.initialize(tf.TensorSpec(coefficients.shape))
    for _ in range(_STEPS):
      state, coefficients = step(state, coefficients, begin, models, prototypes)
    return to_images(coefficients, begin).numpy()

  return invert
