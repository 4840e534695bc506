"""Is an image among a client's training images? From what the client sent.

A run is one attacked client, which trains on half of the candidates, drawn at
random: as many of each class. The others of its candidates are non-members of
the same distribution. Each run is attacked with all other runs as shadow runs,
as Carlini et al. do.

Attacks on prototypes score a candidate x of class c by the distance of a
feature of x to the prototype of c. They differ in whose feature it is:

- `surrogate`: the attacker trains clients of its own on public images, with the
  same broadcasts, and takes their features (of the latest round);
- `first round`: all clients begin with weights that the server knows. It takes
  these weights, and the prototypes of the first round;
- `known`: the client's own model of the latest round. No client of FedSA sends
  it, but clients that share weights do, and whoever has the device has it.

Attacks on averaged weights score by the loss of the sent model.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.giveaway_attacks import scores
from benchmarks.giveaway_attacks import worlds

KNOWLEDGE = ('surrogate', 'first round', 'known')

_SURROGATES = 4
# Public images of a class that no surrogate trains on.
_REFERENCES = 20
# Training images of a class up to which gradients of all candidates are solved
# for, and the dimensions of the equations.
_LARGEST_OF_PARTS = 10
_DIMENSIONS = 1024
# Numbers of clients, by what they are: attacked ones of each size, surrogates.
_IDS_OF_SIZE = 100
_FIRST_ID = 1000


class Runs(NamedTuple):
  """Attacked clients, and their candidates.

  Attributes:
    candidates: int[candidates], indices of images, class by class.
    members: bool[runs, candidates], who trained on which.
    sent: What they sent.
  """

  candidates: np.ndarray
  members: np.ndarray
  sent: worlds.Sent


class Scores(NamedTuple):
  """The scores of an attack.

  Attributes:
    knowledge: One of `KNOWLEDGE`, or `sent weights`.
    attack: Name of the attack.
    scores: float[runs, candidates], larger for members.
  """

  knowledge: str
  attack: str
  scores: np.ndarray


def run_clients(
  federation: worlds.Federation,
  data: worlds.Data,
  *,
  size: int,
  num_runs: int,
  seed: int,
) -> Runs:
  """Trains the clients that are attacked.

  Args:
    federation: Has begun with the seed.
    data: Images of the seed.
    size: Training images of each class; as many are left out.
    num_runs: Attacked clients.
    seed: Seed of who trains on what.
  """
  generator = np.random.default_rng([seed, size])
  candidates = data.candidates[:, : 2 * size]
  # In each class of each run, half of the candidates.
  ranks = generator.random([num_runs, *candidates.shape]).argsort(axis=-1)
  members = (ranks < size).reshape(num_runs, -1)
  candidates = candidates.ravel()
  sent = federation.attend(
    [data.examples(candidates[own]) for own in members],
    first_id=_FIRST_ID + _IDS_OF_SIZE * size,
  )
  return Runs(candidates, members, sent)


def attack(
  federation: worlds.Federation,
  data: worlds.Data,
  runs: Runs,
  *,
  size: int,
  seed: int,
) -> Iterator[Scores]:
  """Yields the scores of all attacks that fit what was sent.

  Args:
    federation: Federation of the runs.
    data: Images of the seed.
    runs: Result of `run_clients`.
    size: Training images of each class.
    seed: Seed of the surrogates' images.
  """
  if runs.sent.weights is not None:
    yield from _on_weights(federation, data, runs, size)
  if runs.sent.vectors is not None:
    yield from _on_prototypes(federation, data, runs, size, seed)


def _on_weights(federation, data, runs, size):
  """Yields attacks on sent weights; scores are means over rounds."""
  indices, labels, images = _images(data, runs)
  knowledge = 'sent weights'
  _, logits = _outputs(federation, data, runs.sent.weights, images)
  # The confidence falls with the cross-entropy.
  confidences = scores.scaled_confidence(logits, labels).mean(axis=0)
  for name, found in _by_statistic(confidences, labels, runs.members):
    yield Scores(knowledge, f'loss{name}', found)
  gradients_fn = worlds.gradients_fn(federation.model, data.input_spec)
  count = runs.members.shape[1]
  alignments, parts = [], []
  for state, sent in zip(federation.broadcasts, runs.sent.weights):
    begin = np.asarray(state.model.weights)
    descents = -gradients_fn(begin, images, labels)
    updates = (sent - begin)[:, : descents.shape[1]]
    alignments.append(updates @ descents.T)
    if size <= _LARGEST_OF_PARTS:
      candidates, updates = _projected(descents[:count], updates)
      parts.append([scores.parts_of_mean(u, candidates) for u in updates])
  alignments = np.mean(alignments, axis=0)
  for name, found in _by_statistic(alignments, labels, runs.members):
    yield Scores(knowledge, f'gradient{name}', found)
  if parts:
    yield Scores(knowledge, 'parts', np.mean(parts, axis=0))


def _on_prototypes(federation, data, runs, size, seed):
  """Yields attacks on prototypes; scores are means over the rounds."""
  _, labels, images = _images(data, runs)
  surrogates = train_surrogates(federation, data, size=size, seed=seed)
  initial = federation.initial_weights
  for knowledge, models, rounds in (
    ('first round', surrogates, 1),
    ('surrogate', surrogates, len(surrogates)),
    ('known', runs.sent.own_weights, len(surrogates)),
  ):
    begin = np.broadcast_to(initial, models[:1].shape)
    models = np.concatenate([begin, models[:rounds]])
    features, _ = _outputs(federation, data, models, images)
    # Prototypes are means over the steps of a round.
    features = (features[1:] + features[:-1]) / 2
    if knowledge != 'known':
      features = features.mean(axis=1, keepdims=True)
    vectors = runs.sent.vectors[:rounds]
    distances = ((features - vectors[:, :, labels]) ** 2).sum(axis=-1)
    statistics = -distances.mean(axis=0)
    for name, found in _by_statistic(statistics, labels, runs.members):
      yield Scores(knowledge, f'distance{name}', found)
    yield Scores(knowledge, 'parts', _parts(features, vectors, labels, runs))


def _images(data, runs):
  """Returns indices, labels and pixels: candidates, then the references."""
  # Public images are non-members, too.
  indices = np.append(runs.candidates, data.public[:, -_REFERENCES:])
  return indices, data.labels[indices], data.seen(indices)


def _outputs(federation, data, models, images):
  """Returns features and logits of models [rounds, models] of all images."""
  forward = worlds.forward_fn(federation.model, data.input_spec)
  found = [[forward(own, images) for own in row] for row in models]
  return [
    np.array([[pair[part] for pair in row] for row in found])
    for part in range(2)
  ]


def _projected(candidates, updates):
  """Returns both in fewer dimensions, by one random matrix."""
  if candidates.shape[1] <= _DIMENSIONS:
    return candidates, updates
  matrix = np.random.default_rng(0).standard_normal(
    [candidates.shape[1], _DIMENSIONS], np.float32
  )
  return candidates @ matrix, updates @ matrix


def by_class(
  statistics: np.ndarray, labels: np.ndarray, is_reference: np.ndarray
) -> np.ndarray:
  """Returns statistics minus their mean over the references of the class.

  So one threshold for all is a threshold for each class of each run.

  Args:
    statistics: float[runs, images].
    labels: int[images].
    is_reference: bool[images], some of each class.
  """
  result = np.array(statistics)
  for label in np.unique(labels):
    own = labels == label
    result[:, own] -= statistics[:, own & is_reference].mean(
      axis=1, keepdims=True
    )
  return result


def _by_statistic(statistics, labels, members):
  """Yields three attacks by a statistic: (suffix of the name, scores)."""
  count = members.shape[1]
  yield '', statistics[:, :count]
  is_reference = np.arange(len(labels)) >= count
  calibrated = by_class(statistics, labels, is_reference)
  yield ', per class', calibrated[:, :count]
  yield (
    ', LiRA',
    scores.likelihood_ratios(statistics[:, :count], members),
  )


def _parts(features, vectors, labels, runs):
  """Returns which part of prototypes each candidate is, over all rounds."""
  count = runs.members.shape[1]
  result = np.zeros(runs.members.shape)
  for round_num, of_round in enumerate(features):
    for run, prototypes in enumerate(vectors[round_num]):
      of_run = of_round[run % len(of_round)]
      for label, vector in enumerate(prototypes):
        own = np.flatnonzero(labels[:count] == label)
        result[run, own] += scores.parts_of_mean(vector, of_run[own])
  return result


def train_surrogates(
  federation: worlds.Federation, data: worlds.Data, *, size: int, seed: int
) -> np.ndarray:
  """Returns weights of clients that the attacker trains itself.

  Args:
    federation: Has begun with the seed.
    data: Images of the seed.
    size: Training images of each class.
    seed: Seed of the choice among public images.

  Returns:
    float32[rounds, surrogates, num_weights], after each round.
  """
  generator = np.random.default_rng([seed, size, 1])
  images = data.public[:, :-_REFERENCES]
  examples = [
    data.examples(generator.permuted(images, axis=1)[:, :size].ravel())
    for _ in range(_SURROGATES)
  ]
  first_id = _FIRST_ID + _IDS_OF_SIZE * size - _SURROGATES
  return federation.attend(examples, first_id=first_id).own_weights
