"""Noise that is a function of a seed, so that simulations repeat.

The queries are those of `tensorflow_privacy`, whose own noise differs in two
equal runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import dp_accounting
import tensorflow as tf
import tensorflow_privacy as tfp

# Step of an adaptive clipping norm, as in Andrew et al.
_LEARNING_RATE = 0.2
# Standard deviation of the noise on the count of short records, as a share of
# the clients, as in Andrew et al.
_COUNT_STDDEV = 0.05


def folded(numbers: Any) -> tf.Tensor:
  """Returns a seed that is a function of some whole numbers, int32[2]."""
  seed = tf.constant([0, 0])
  for number in numbers:
    seed = tf.random.experimental.stateless_fold_in(seed, number)
  return seed


def with_noise(structure: Any, stddev: Any, numbers: Any) -> Any:
  """Adds Gaussian noise that is a function of some whole numbers.

  Args:
    structure: Float32 tensors of static shapes.
    stddev: Standard deviation of the noise on each coordinate.
    numbers: The numbers.
  """
  seed = folded(numbers)
  leaves = tf.nest.flatten(structure)
  noisy = [
    leaf
    + stddev
    * tf.random.stateless_normal(
      leaf.shape, tf.random.experimental.stateless_fold_in(seed, index)
    )
    for index, leaf in enumerate(leaves)
  ]
  return tf.nest.pack_sequence_as(structure, noisy)


class GaussianSumQuery(tfp.GaussianSumQuery):
  """A `GaussianSumQuery` whose noise is a function of a seed and the round.

  The original's noise differs in two equal runs.
  """

  class _State(NamedTuple):
    """The state at the server.

    Attributes:
      l2_norm_clip: float32 scalar.
      stddev: float32 scalar.
      round_num: int32 scalar, sums noised so far.
    """

    l2_norm_clip: Any
    stddev: Any
    round_num: Any

  def __init__(
    self, l2_norm_clip: float, stddev: float, seed: int, stream: int = 0
  ):
    """Initializes `GaussianSumQuery`.

    Args:
      l2_norm_clip: L2 norm to which a record is clipped, all its tensors
        together.
      stddev: Standard deviation of the noise on the sum.
      seed: Seed of the noise.
      stream: Which noise of the seed, >= 0: others are independent.
    """
    super().__init__(l2_norm_clip, stddev)
    self._seed = seed
    self._stream = stream

  def initial_global_state(self) -> Any:
    """Returns the state before the first sum."""
    initial = super().initial_global_state()
    return self._State(initial.l2_norm_clip, initial.stddev, tf.constant(0))

  def get_noised_result(
    self, sample_state: Any, global_state: Any
  ) -> tuple[Any, Any, dp_accounting.DpEvent]:
    """Returns the sum with noise, the next state, and the event."""
    numbers = [self._seed, global_state.round_num]
    if self._stream:
      numbers.append(self._stream)
    noisy = with_noise(sample_state, global_state.stddev, numbers)
    event = dp_accounting.GaussianDpEvent(
      global_state.stddev / global_state.l2_norm_clip
    )
    state = global_state._replace(round_num=global_state.round_num + 1)
    return noisy, state, event


def adaptive_noise(
  noise_multiplier: float, participants: int
) -> tuple[float, float]:
  """Divides noise between records and the count of short records.

  Both together cost what `noise_multiplier` costs with a fixed clipping norm
  (Andrew et al., theorem 1).

  Args:
    noise_multiplier: z, >= 0.
    participants: Clients drawn for a round.

  Returns:
    The noise multiplier of records, and the standard deviation of the noise on
    the count: a twentieth of the clients, but at least z, so that records get
    no more than 1.16 z.
  """
  if noise_multiplier == 0.0:
    return 0.0, 0.0
  stddev = max(_COUNT_STDDEV * participants, noise_multiplier)
  # A client moves the centered count by 1/2.
  rest = noise_multiplier**-2 - (2.0 * stddev) ** -2
  return rest**-0.5, stddev


class _QuantileQuery(tfp.QuantileEstimatorQuery):
  """A `QuantileEstimatorQuery` with seeded noise."""

  def __init__(self, seed: int, **arguments: Any):
    self._seed = seed
    super().__init__(**arguments)

  def _construct_below_estimate_query(
    self, below_estimate_stddev, expected_num_records
  ):
    return tfp.NormalizedQuery(
      GaussianSumQuery(0.5, below_estimate_stddev, self._seed, stream=1),
      denominator=expected_num_records,
    )


class AdaptiveClipSumQuery(tfp.QuantileAdaptiveClipSumQuery):
  """A `QuantileAdaptiveClipSumQuery` with seeded noise.

  The clipping norm follows a quantile of the norms of records, which it learns
  from a noisy count. Source: Andrew et al., "Differentially Private Learning
  with Adaptive Clipping", NeurIPS 2021 (arXiv:1905.03871).
  """

  def __init__(
    self,
    initial_l2_norm_clip: float,
    noise_multiplier: float,
    quantile: float,
    participants: int,
    seed: int,
  ):
    """Initializes `AdaptiveClipSumQuery`.

    Args:
      initial_l2_norm_clip: Clipping norm of the first round.
      noise_multiplier: That of records and of the count together.
      quantile: Share of the records that are not clipped, in (0, 1).
      participants: Clients drawn for a round.
      seed: Seed of the noise.
    """
    of_records, of_count = adaptive_noise(noise_multiplier, participants)
    super().__init__(
      initial_l2_norm_clip=initial_l2_norm_clip,
      noise_multiplier=of_records,
      target_unclipped_quantile=quantile,
      learning_rate=_LEARNING_RATE,
      clipped_count_stddev=of_count,
      expected_num_records=participants,
    )
    self._sum_query = GaussianSumQuery(
      initial_l2_norm_clip, of_records * initial_l2_norm_clip, seed
    )
    self._quantile_estimator_query = _QuantileQuery(
      seed,
      initial_estimate=initial_l2_norm_clip,
      target_quantile=quantile,
      learning_rate=_LEARNING_RATE,
      below_estimate_stddev=of_count,
      expected_num_records=participants,
      geometric_update=True,
    )

  def get_noised_result(
    self, sample_state: Any, global_state: Any
  ) -> tuple[Any, Any, dp_accounting.DpEvent]:
    """Returns the sum with noise, the next state, and the event."""
    noisy, state, event = super().get_noised_result(sample_state, global_state)
    before, after = global_state.sum_state, state.sum_state
    sum_state = before._replace(
      l2_norm_clip=after.l2_norm_clip,
      stddev=after.stddev,
      round_num=before.round_num + 1,
    )
    return noisy, state._replace(sum_state=sum_state), event
