"""The objective of a client. The training steps of methods differ only here."""

from collections.abc import Callable, Mapping, Sequence
import types
from typing import Any, NamedTuple

import tensorflow as tf

from tff_fedsa.client import client_state
from tff_fedsa.client import label_loss


class LossWeight(NamedTuple):
  """The weight of a term of the loss, which clients may have of their own.

  Attributes:
    flag: Name of its flag, and of its column in `client_settings`.
    value: Value of clients without one of their own, >= 0.
  """

  flag: str
  value: float

  def of(self, context: Mapping[str, Any]) -> Any:
    """Returns the client's weight: a float32 scalar, or `value` for all.

    Args:
      context: The context of `loss_fn`.
    """
    return context.get(self.flag, self.value)


class ClientObjective(NamedTuple):
  """The loss of a client's steps, and its inputs.

  Attributes:
    loss_fn: `fn(features, logits, labels, head_fn, context) -> dict` of scalar
      tensors. The entry `loss` is differentiated. The others are reported.
    loss_names: The keys of the dict of `loss_fn`.
    context_fn: `fn(broadcast, client_state, round_num) -> dict` of tensors. The
      int32 `round_num` is 0 in the first round. The context is computed once
      per round and fixed in all steps. `loss_fn` also finds the `seed` of each
      step in it, int32[2].
    context_specs: Dict of `tf.TensorSpec` of the context.
    gauges_fn: `fn(broadcast, client_state) -> dict` of float32 scalars. Their
      means over clients are reported. The means leave out values that are not
      finite.
    averages_logits: Whether training also computes the mean logits of each
      class (`LocalResult.class_logits`).
    averages_squares: Whether it computes the mean squares of features of each
      class (`LocalResult.class_squares`).
    proximal_weight: Weight mu >= 0 of the proximal term: mu/2 times the squared
      distance of the trainable weights from their values at the beginning of
      the round. The term is reported without mu as `proximal`, which must be in
      `loss_names`.
    weights: Weights that clients may have of their own. Their values are in the
      context of `loss_fn`.
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
  averages_squares: bool = False
  proximal_weight: float | LossWeight = 0.0
  weights: Sequence[LossWeight] = ()


def cross_entropy_objective() -> ClientObjective:
  """Returns the objective that consists of the cross-entropy alone."""

  def loss_fn(features, logits, labels, head_fn, context):
    del features, head_fn  # Unused.
    cross_entropy = label_loss.cross_entropy(logits, labels, context)
    return {'loss': cross_entropy, 'cross_entropy': cross_entropy}

  return ClientObjective(loss_fn, ('loss', 'cross_entropy'))
