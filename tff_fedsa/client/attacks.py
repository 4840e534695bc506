"""Simulated attackers: what some clients send in place of their updates.

Data flow: client_work.py -> [this module] -> screening.py.

An attacker trains as all clients do; then it replaces what it sends. Attackers
know what the honest clients of the round send, which is more than they could
know in a deployment: a defence that holds here holds against weaker ones.

The attack `label_flip` is another one: attackers train on labels C - 1 - y.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.aggregation import tier_mean
from tff_fedsa.aggregation import weighted_mean
from tff_fedsa.client import attack_config
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.maths import finite as finite_lib
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import errors

_ATTACKED = (
  prototypes.ClassPrototypes,
  weighted_mean.WeightedValue,
  tier_mean.TierValue,
)


class Attack(NamedTuple):
  """An attack on a run.

  Attributes:
    config: Kind of attack; not None.
    attackers: Ids of the clients that attack.
    num_classes: C.
  """

  config: attack_config.AttackConfig
  attackers: Sequence[int]
  num_classes: int

  def is_attacker(self, client_id: tf.Tensor) -> tf.Tensor:
    """Returns whether a client attacks, bool scalar."""
    ids = tf.constant(self.attackers, tf.int32)
    return tf.reduce_any(tf.equal(ids, client_id))


class Statistics(NamedTuple):
  """What attackers know of the values of a round.

  Attributes:
    sums: float32[num_classes, dim], of honest clients.
    squares: float32[num_classes, dim], sums of their squares.
    first: float32[num_classes, dim], what the first honest client sent.
    num_honest: float32[num_classes], honest clients that have the class.
    num_attackers: float32[num_classes], attackers that have it.
  """

  sums: Any
  squares: Any
  first: Any
  num_honest: Any
  num_attackers: Any


def with_flipped_labels(
  client_work: tff.Computation,
  attack: Attack,
  client_id_fn: Callable[[Any], tf.Tensor],
) -> tff.Computation:
  """Returns client work in which attackers train on labels C - 1 - y.

  Args:
    client_work: See `client_work.build_client_work`.
    attack: Who attacks.
    client_id_fn: Returns the id of a client with this state.
  """

  def flipped(work, arguments):
    labels = arguments.examples['y']
    flips = attack.is_attacker(client_id_fn(arguments.client_state))
    examples = collections.OrderedDict(
      arguments.examples,
      y=tf.where(flips, attack.num_classes - 1 - labels, labels),
    )
    return work(arguments._replace(examples=examples))

  return client_work_lib.wrap(client_work, flipped)


def build_forgery(attack: Attack, prepared_type: tff.Type) -> tff.Computation:
  """Returns the computation in which attackers replace their messages.

  Its type is `(<int32@SERVER, {P}@CLIENTS> -> {P}@CLIENTS)`, of the round and
  `P`, a pair of a client's message (a NamedTuple of `update`, averaged
  `weights` and `metrics`) and its id. Metrics of attackers become zeros, so
  that metrics are of honest clients.

  Args:
    attack: Kind of attack, and who attacks.
    prepared_type: Unplaced type P.

  Raises:
    ValueError: If clients send neither `ClassPrototypes` nor a `WeightedValue`.
  """
  config, message_type = attack.config, prepared_type[0]
  names = [
    name
    for name in ('update', 'weights')
    if _is_attacked(getattr(message_type, name), config.attack)
  ]
  sent = (message_type.update, message_type.weights)
  if not any(tff.structure.flatten(part) for part in sent):
    raise errors.UserError(
      'Clients of this method send nothing that an attack could replace.'
    )
  if config.attack == 'label_flip':
    names = []
  elif not names:
    raise errors.UserError(
      f'The attack {config.attack} replaces prototypes, mean logits or '
      'averaged weights, and clients of this method send something else. '
      'Attack it by label_flip.'
    )

  @tff.tensorflow.computation
  def zero():
    return tuple(_no_statistics(getattr(message_type, name)) for name in names)

  known_type = zero.type_signature.result

  @tff.tensorflow.computation(known_type, prepared_type)
  def accumulate(known, prepared):
    message, client_id = prepared
    attacks = attack.is_attacker(client_id)
    return tuple(
      add(statistics, getattr(message, name), attacks)
      for name, statistics in zip(names, known)
    )

  @tff.tensorflow.computation(known_type, known_type)
  def merge(first, second):
    return tuple(_joined(*pair) for pair in zip(first, second))

  @tff.tensorflow.computation(known_type)
  def report(known):
    return known

  @tff.tensorflow.computation(np.int32, prepared_type, known_type)
  def replace(round_num, prepared, known):
    message, client_id = prepared
    seed = tf.random.experimental.stateless_fold_in(
      tf.stack([config.attack_seed, round_num]), client_id
    )
    forged = message._replace(
      metrics=tf.nest.map_structure(tf.zeros_like, message.metrics),
      **{
        name: forge(config, getattr(message, name), statistics, seed)
        for name, statistics in zip(names, known)
      },
    )
    chosen = finite_lib.choose(attack.is_attacker(client_id), forged, message)
    return chosen, client_id

  @tff.federated_computation(
    tff.FederatedType(np.int32, tff.SERVER),
    tff.FederatedType(prepared_type, tff.CLIENTS),
  )
  def forgery(round_num, prepared):
    known = tff.federated_aggregate(prepared, zero(), accumulate, merge, report)
    return tff.federated_map(
      replace,
      (
        tff.federated_broadcast(round_num),
        prepared,
        tff.federated_broadcast(known),
      ),
    )

  return forgery


def add(
  statistics: Statistics, update: Any, is_attacker: tf.Tensor
) -> Statistics:
  """Returns statistics with one client more.

  Args:
    statistics: Those of the clients before.
    update: What the client would send if it were honest.
    is_attacker: bool scalar.
  """
  vectors, held = _to_table(update)
  honest = held & ~is_attacker
  counted = tf.cast(honest, tf.float32)[:, tf.newaxis]
  is_first = (honest & tf.equal(statistics.num_honest, 0.0))[:, tf.newaxis]
  vectors = tf.where(held[:, tf.newaxis], vectors, tf.zeros_like(vectors))
  return Statistics(
    statistics.sums + counted * vectors,
    statistics.squares + counted * tf.square(vectors),
    tf.where(is_first, vectors, statistics.first),
    statistics.num_honest + counted[:, 0],
    statistics.num_attackers + tf.cast(held & is_attacker, tf.float32),
  )


def forge(
  config: attack_config.AttackConfig,
  update: Any,
  statistics: Statistics,
  seed: tf.Tensor,
) -> Any:
  """Returns what an attacker sends.

  Args:
    config: The attack, none but label_flip.
    update: What it would send if it were honest.
    statistics: Those of the round.
    seed: int32[2], its own in this round.
  """
  vectors, held = _to_table(update)
  means = _divide(statistics.sums, statistics.num_honest)
  own = {
    'sign_flip': lambda: -config.scale * vectors,
    'scale': lambda: config.scale * vectors,
    'gaussian': lambda: _noise(vectors, config.scale, seed),
    'same_value': lambda: config.scale * tf.ones_like(vectors),
    'alie': lambda: means - config.scale * _alie_shift(statistics, means),
    'ipm': lambda: -config.scale * means,
    'mimic': lambda: statistics.first,
    'targeted': lambda: _moved(vectors, means, config),
  }
  forged = own[str(config.attack)]()
  forged = tf.where(held[:, tf.newaxis], forged, vectors)
  return _from_table(update, forged)


def alie_factor(num_clients: tf.Tensor, num_attackers: tf.Tensor) -> tf.Tensor:
  """Returns z, by how many standard deviations ALIE moves the mean.

    z = Phi^-1((n - m - s) / (n - m)),  s = floor(n / 2 + 1) - m

  Source: Baruch et al., "A Little Is Enough: Circumventing Defenses For
  Distributed Learning", NeurIPS 2019 (arXiv:1902.06156), Algorithm 3.

  Args:
    num_clients: n, float32 of any shape.
    num_attackers: m, float32 of the same shape.

  Returns:
    float32 >= 0, 0 where a class has no honest client, or nobody more is needed
    for a majority.
  """
  honest = num_clients - num_attackers
  supporters = tf.floor(num_clients / 2.0 + 1.0) - num_attackers
  share = tf.math.divide_no_nan(honest - supporters, honest)
  inside = tf.clip_by_value(share, 0.5, 1.0 - 1e-6)
  # Many attackers need no supporter; then a share of 1 would be infinity.
  return tf.cast(tf.math.ndtri(tf.cast(inside, tf.float64)), tf.float32)


def _no_statistics(update_type):
  if update_type.python_container is prototypes.ClassPrototypes:
    shape = update_type.vectors.shape
  else:
    leaves = tff.structure.flatten(update_type.value)
    shape = (1, sum(int(np.prod(leaf.shape)) for leaf in leaves))
  table, counts = tf.zeros(shape), tf.zeros(shape[:1])
  return Statistics(table, table, table, counts, counts)


def _is_attacked(value_type, attack):
  container = getattr(value_type, 'python_container', None)
  if container not in _ATTACKED:
    return False
  if attack == 'targeted' and container is not prototypes.ClassPrototypes:
    return False
  # Weights of several architectures have no common mean.
  return all(
    None not in leaf.shape for leaf in tff.structure.flatten(value_type)
  )


def _joined(one, other):
  is_first = (one.num_honest > 0)[:, tf.newaxis]
  joined = tf.nest.map_structure(tf.add, one, other)
  return joined._replace(first=tf.where(is_first, one.first, other.first))


def _alie_shift(statistics, means):
  variances = _divide(statistics.squares, statistics.num_honest)
  deviations = tf.sqrt(tf.maximum(variances - tf.square(means), 0.0))
  factor = alie_factor(
    statistics.num_honest + statistics.num_attackers, statistics.num_attackers
  )
  return factor[:, tf.newaxis] * deviations


def _noise(vectors, scale, seed):
  size = tf.sqrt(tf.reduce_mean(tf.square(vectors), axis=1, keepdims=True))
  return scale * size * tf.random.stateless_normal(tf.shape(vectors), seed)


def _moved(vectors, means, config):
  source = vectors[config.attack_source]
  target = means[config.attack_target]
  moved = source + config.scale * (target - source)
  is_source = tf.range(tf.shape(vectors)[0])[:, tf.newaxis]
  return tf.where(tf.equal(is_source, config.attack_source), moved, vectors)


def _divide(sums, counts):
  return tf.math.divide_no_nan(sums, counts[:, tf.newaxis])


def _to_table(update):
  """Returns an update as rows float32[?, dim], and which of them there are."""
  if isinstance(update, prototypes.ClassPrototypes):
    return update.vectors, update.weights > 0
  parts = [tf.reshape(part, [-1]) for part in tf.nest.flatten(update.value)]
  return tf.concat(parts, 0)[tf.newaxis], (update.weight > 0)[tf.newaxis]


def _from_table(update, vectors):
  if isinstance(update, prototypes.ClassPrototypes):
    return update._replace(vectors=vectors)
  parts = tf.nest.flatten(update.value)
  sizes = [int(np.prod(part.shape)) for part in parts]
  pieces = [
    tf.reshape(piece, part.shape)
    for piece, part in zip(tf.split(vectors[0], sizes), parts)
  ]
  return update._replace(value=tf.nest.pack_sequence_as(update.value, pieces))
