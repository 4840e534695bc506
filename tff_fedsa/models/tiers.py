"""Tiers: clients of one architecture share weights, or a part of them.

The shared weights of all tiers form one flat vector, tier after tier, in the
order of the models. If one architecture shares all weights, it is the model's
own vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

from etils import epy
import numpy as np

from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.models import functional

PARTS = ('extractor', 'model')


class _Tier(NamedTuple):
  """Shared weights of one architecture.

  Attributes:
    num_weights: Length of the architecture's flat vector.
    cuts: Start and stop of each shared run of that vector, in order.
    offset: Start of the tier in the vector of all tiers.
  """

  num_weights: int
  cuts: Sequence[tuple[int, int]]
  offset: int

  @property
  def size(self) -> int:
    return sum(stop - start for start, stop in self.cuts)

  def part_of(self, shared: tf.Tensor) -> tf.Tensor:
    """Returns the tier's part of the shared weights of all tiers."""
    return shared[self.offset : self.offset + self.size]


class Tiers:
  """The shared weights of each architecture.

  Attributes:
    names: Names of the architectures. Repeated names have a number.
    sizes: Number of shared weights of each architecture.
    num_weights: Number of shared weights of all architectures.
    mixing: See `__init__`.
  """

  def __init__(
    self,
    models: Sequence[functional.FunctionalModel],
    part: str = 'model',
    *,
    statistics: bool = True,
    mixing: float = 1.0,
  ):
    """Initializes `Tiers`.

    Args:
      models: One per architecture, in the order of `ClientState.architecture`.
      part: `model`, or `extractor`: heads stay with clients.
      statistics: Whether clients also share weights without gradients
        (BatchNorm's statistics).
      mixing: Share of the averaged weights in those with which a client begins
        a round, in (0, 1]; the rest is its own. A client without prototypes has
        not trained yet, and takes averaged weights only.

    Raises:
      ValueError: If the part is unknown, or an architecture has no weights in
        it.
    """
    if part not in PARTS:
      raise errors.UserError(
        f'Unknown part of a model {part!r}; known: {", ".join(PARTS)}.'
      )
    self._models = tuple(models)
    self.mixing = mixing
    self._tiers: list[_Tier] = []
    offset = 0
    for model in models:
      tier = _Tier(model.num_weights, _cuts(model, part, statistics), offset)
      if not tier.size:
        raise errors.UserError(
          f'The {part} of {model.name!r} has no weights that its clients could '
          'share. Share another part, or its statistics as well.'
        )
      self._tiers.append(tier)
      offset += tier.size
    names = [model.name for model in models]
    self.names = tuple(
      f'{name}_{i}' if names.count(name) > 1 else name
      for i, name in enumerate(names)
    )
    self.sizes = tuple(tier.size for tier in self._tiers)
    self.num_weights = offset

  @property
  def message_type(self) -> tff.Type:
    """Unplaced type of the weights that a client receives or sends."""
    sizes: Sequence[Any] = self.sizes
    return tff.TensorType(np.float32, sizes if len(sizes) == 1 else [None])

  def initial_weights(self, model_seed: int) -> np.ndarray:
    """Returns the first shared weights of all tiers, float32[num_weights].

    Args:
      model_seed: Seed of `FunctionalModel.initial_weights`.
    """
    parts = []
    for model, tier in zip(self._models, self._tiers):
      weights = model.initial_weights(model_seed)
      parts += [weights[start:stop] for start, stop in tier.cuts]
    return np.concatenate(parts)

  def sent(self, architecture: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns the weights that a client shares, float32[its tier's size].

    Args:
      architecture: int32 scalar, the client's.
      weights: float32[?], all of the client's weights.
    """

    def take(tier: _Tier) -> tf.Tensor:
      own = tf.ensure_shape(weights, [tier.num_weights])
      return _joined([own[start:stop] for start, stop in tier.cuts])

    return self._switch(architecture, take)

  def received(self, state: Any, shared: tf.Tensor) -> tf.Tensor:
    """Returns the weights with which a client begins a round, float32[?].

    Args:
      state: The client's `ClientState` before the round.
      shared: float32[num_weights], the shared weights of all tiers.
    """

    def put(tier: _Tier) -> tf.Tensor:
      if tier.size == tier.num_weights:
        return tier.part_of(shared)
      own = tf.ensure_shape(state.weights, [tier.num_weights])
      parts, done, offset = [], 0, tier.offset
      for start, stop in tier.cuts:
        parts += [own[done:start], shared[offset : offset + stop - start]]
        done, offset = stop, offset + stop - start
      return _joined([*parts, own[done:]])

    received = self._switch(state.architecture, put)
    if self.mixing == 1.0:
      return received
    # Own weights that are not shared stay as they are, bit for bit.
    mixed = state.weights + self.mixing * (received - state.weights)
    return tf.where(tf.reduce_any(state.counts > 0), mixed, received)

  def replaced(
    self,
    shared: tf.Tensor,
    means: Sequence[tf.Tensor],
    has_mean: Sequence[tf.Tensor],
  ) -> tf.Tensor:
    """Returns the shared weights of all tiers after a round.

    Args:
      shared: float32[num_weights], those before it.
      means: float32[size] of each tier.
      has_mean: bool scalar of each tier. Without a mean its weights stay.
    """
    # `tf.cond`, so that old weights are copied only if they stay.
    return tf.concat(
      [
        tf.cond(
          has,
          lambda mean=mean: mean,
          lambda tier=tier: tier.part_of(shared),
        )
        for has, mean, tier in zip(has_mean, means, self._tiers, strict=True)
      ],
      axis=0,
    )

  def _switch(
    self, architecture: tf.Tensor, fn: Callable[[_Tier], tf.Tensor]
  ) -> tf.Tensor:
    if len(self._tiers) == 1:
      return fn(self._tiers[0])
    # A client that joins has a state of NumPy arrays.
    return tf.switch_case(
      tf.convert_to_tensor(architecture),
      [functools.partial(fn, tier) for tier in self._tiers],
    )


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
  return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def _cuts(
  model: functional.FunctionalModel, part: str, statistics: bool
) -> list[tuple[int, int]]:
  """Returns start and stop of each shared run of a model's flat vector."""
  of_head = 0 if part == 'model' else _size(model.head_specs)
  cuts = [(0, model.num_trainable - of_head)]
  if statistics:
    of_head = 0 if part == 'model' else _size(model.head_state_specs)
    cuts.append((model.num_trainable, model.num_weights - of_head))
  if len(cuts) == 2 and cuts[0][1] == cuts[1][0]:
    cuts = [(cuts[0][0], cuts[1][1])]
  return [(start, stop) for start, stop in cuts if stop > start]


def _size(specs: Sequence[tf.TensorSpec]) -> int:
  return sum(spec.shape.num_elements() for spec in specs)
