"""Which classes does a client have, and how many examples of each?

The attacker sees what the client sends. Some of it is in the clear: whether the
client has a class, and often counts of examples. The rest is inferred:

- `bias`: from the change of the last layer's bias (averaged weights), see
  `scores.shares_from_bias`;
- `forest`: the attacker trains clients of its own on public images with label
  distributions of its own, with the same broadcasts. A random forest learns the
  number of examples of a class from what they send about the class.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn import ensemble
import tensorflow as tf

from benchmarks.giveaway_attacks import scores
from benchmarks.giveaway_attacks import worlds

# Concentration of label distributions, and examples of a client.
_ALPHA = 0.3
_SIZES = (20, 60)
_TARGETS = 20
_SHADOWS = 40
_TARGETS_ID = 20_000
_SHADOWS_ID = 30_000
_TREES = 100
# Public images of a class for the mean predictions of a model.
_OF_CONFUSION = 10


class Errors(NamedTuple):
  """How wrong a guess is.

  Attributes:
    presence: Balanced accuracy of the presence of classes; 0.5 is a guess.
    distance: Total variation distance to the true shares, mean over clients.
  """

  presence: float
  distance: float


def attack(
  federation: worlds.Federation, data: worlds.Data, *, seed: int
) -> Iterator[tuple[str, Errors]]:
  """Yields names of attacks, and how wrong they are.

  Args:
    federation: Has begun with the seed.
    data: Images of the seed.
    seed: Seed of label distributions.
  """
  generator = np.random.default_rng([seed, 2])
  truth, examples = _clients(data, data.candidates, _TARGETS, generator)
  shadow_truth, shadows = _clients(data, data.public, _SHADOWS, generator)
  sent = federation.attend(examples, first_id=_TARGETS_ID)
  shadow_sent = federation.attend(shadows, first_id=_SHADOWS_ID)
  none = np.full(truth.shape, 1 / truth.shape[1])
  yield 'nothing seen', errors_of(truth, np.ones(truth.shape, bool), none)
  if sent.vectors is not None:
    counts = sent.presence.mean(axis=0)
    present = counts > 0.5
    shares = _to_shares(np.where(present, np.maximum(counts, 1), 0))
    yield 'as sent', errors_of(truth, present, shares)
  inputs, shadow_inputs = (
    _about_classes(federation, data, of) for of in (sent, shadow_sent)
  )
  if sent.weights is not None:
    # The first input, in examples.
    counts = inputs[..., 0]
    yield 'bias', errors_of(truth, counts >= 0.5, _to_shares(counts))
  forest = ensemble.RandomForestRegressor(_TREES, random_state=seed)
  forest.fit(
    shadow_inputs.reshape(-1, shadow_inputs.shape[-1]), shadow_truth.ravel()
  )
  counts = forest.predict(inputs.reshape(-1, inputs.shape[-1]))
  counts = counts.reshape(truth.shape)
  yield 'forest', errors_of(truth, counts >= 0.5, _to_shares(counts))


def errors_of(
  truth: np.ndarray, present: np.ndarray, shares: np.ndarray
) -> Errors:
  """Returns how wrong a guess is.

  Args:
    truth: int[clients, classes], numbers of examples.
    present: bool[clients, classes], the guess of which classes there are.
    shares: float[clients, classes], the guess of the shares; of sum 1.
  """
  has = truth > 0
  accuracy = (present[has].mean() + (~present)[~has].mean()) / 2
  distances = scores.total_variation(_to_shares(truth), shares)
  return Errors(float(accuracy), float(distances.mean()))


def _clients(data, images, number, generator):
  """Returns counts [clients, classes] and examples of clients."""
  sizes = generator.integers(*_SIZES, size=number, endpoint=True)
  mixes = generator.dirichlet(np.full(len(images), _ALPHA), size=number)
  counts = np.stack(
    [generator.multinomial(*pair) for pair in zip(sizes, mixes)]
  )
  examples = []
  for of_client in counts:
    own = [
      generator.permutation(of_class)[:count]
      for of_class, count in zip(images, of_client)
    ]
    examples.append(data.examples(np.concatenate(own)))
  return counts, examples


def _from_bias(federation, data, sent):
  """Returns shares by the change of the bias, the mean over rounds."""
  forward = worlds.forward_fn(federation.model, data.input_spec)
  public = data.public[:, :_OF_CONFUSION]
  images = data.seen(public.ravel())

  def confusion(weights):
    probabilities = tf.nn.softmax(forward(weights, images)[1]).numpy()
    return probabilities.reshape(*public.shape, -1).mean(axis=1)

  found = []
  for state, weights, num_examples in zip(
    federation.broadcasts, sent.weights, sent.num_examples
  ):
    begin = np.asarray(state.model.weights)
    before = confusion(begin)
    of_round = []
    for own, number in zip(weights, num_examples):
      steps = federation.options.epochs * np.ceil(
        number / federation.options.epochs / federation.batch_size
      )
      bias = _head(federation, own - begin)[1]
      of_round.append(
        scores.shares_from_bias(
          bias / (federation.options.learning_rates['fedavg'] * steps),
          (before + confusion(own)) / 2,
        )
      )
    found.append(of_round)
  return np.mean(found, axis=0)


def _about_classes(federation, data, sent):
  """Returns what the forest sees of each class, [clients, classes, numbers]."""
  sizes = np.nan_to_num(sent.num_examples[0])[:, np.newaxis]
  sizes = sizes / federation.options.epochs
  if sent.vectors is None:
    columns = [_from_bias(federation, data, sent) * sizes]
    for state, weights in zip(federation.broadcasts, sent.weights):
      changes = [
        _head(federation, own - np.asarray(state.model.weights))
        for own in weights
      ]
      columns += [
        np.stack([bias for _, bias in changes]),
        np.stack([np.linalg.norm(kernel, axis=0) for kernel, _ in changes]),
      ]
  else:
    columns = [sent.presence.mean(axis=0)]
    for state, vectors in zip(federation.broadcasts, sent.vectors):
      anchors = np.asarray(state.model.anchors)
      columns += [
        np.linalg.norm(vectors - anchors, axis=-1),
        np.linalg.norm(vectors, axis=-1),
      ]
  columns.append(np.broadcast_to(sizes, columns[0].shape))
  return np.stack(columns, axis=-1)


def _head(federation, vector):
  """Returns kernel and bias of the last layer, in a flat vector."""
  return [part.numpy() for part in federation.model.head_of(vector)]


def _to_shares(counts: np.ndarray) -> np.ndarray:
  """Returns counts divided by their sum; equal shares if it is 0."""
  counts = np.maximum(counts, 0.0)
  totals = counts.sum(axis=1, keepdims=True)
  shares = np.full(counts.shape, 1 / counts.shape[1])
  return np.divide(counts, totals, out=shares, where=totals > 0)
