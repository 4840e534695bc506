"""The objective of a client: the only part in which methods' steps differ."""

from collections.abc import Callable, Mapping, Sequence
import types
from typing import Any, NamedTuple

import tensorflow as tf

from tff_fedsa.client import client_state
from tff_fedsa.maths import losses


class ClientObjective(NamedTuple):
  """The loss of a client's steps, and its inputs.

  Attributes:
    loss_fn: `fn(features, logits, labels, head_fn, context) -> dict` of scalar
      tensors; the entry `loss` is differentiated, the others are reported.
    loss_names: The keys of what `loss_fn` returns.
    context_fn: `fn(broadcast, client_state, round_num) -> dict` of tensors,
      int32 `round_num` being 0 in the first round; computed once
      per round and fixed in all of its steps; `loss_fn` also finds there the
      `seed` of each step, int32[2].
    context_specs: Dict of `tf.TensorSpec`, of what `context_fn` returns.
    gauges_fn: `fn(broadcast, client_state) -> dict` of float32 scalars that
      are averaged over clients and reported; values that are not finite are
      left out of the average.
    averages_logits: Whether training also leaves the mean logits of each class
      (`LocalResult.class_logits`).
    proximal_weight: mu >= 0 of a further term, mu/2 times the squared distance
      of the trainable weights from those that the round began with; without
      the weight it is reported as `proximal`, to be in `loss_names`.
  """

  loss_fn: Callable[..., Mapping[str, tf.Tensor]]
  loss_names: Sequence[str]
  context_fn: Callable[
    [Any, client_state.ClientState, tf.Tensor], Mapping[str, tf.Tensor]
  ] = lambda *_: {}
  context_specs: Mapping[str, tf.TensorSpec] = types.MappingProxyType({})
  gauges_fn: Callable[
    [Any, client_state.ClientState], Mapping[str, tf.Tensor]
  ] = lambda *_: {}
  averages_logits: bool = False
  proximal_weight: float = 0.0


def cross_entropy_objective() -> ClientObjective:
  """Returns the objective of methods that add nothing to the cross-entropy."""

  def loss_fn(features, logits, labels, head_fn, context):
    del features, head_fn, context  # Unused.
    cross_entropy = losses.cross_entropy(logits, labels)
    return {'loss': cross_entropy, 'cross_entropy': cross_entropy}

  return ClientObjective(loss_fn, ('loss', 'cross_entropy'))
