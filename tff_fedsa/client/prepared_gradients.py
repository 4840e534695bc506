"""An optimizer of TFF with weight decay and clipping of gradients."""

from collections.abc import Mapping
from typing import Any, Optional

import tensorflow as tf
import tensorflow_federated as tff


class PreparedGradients(tff.learning.optimizers.Optimizer):
  """Prepares gradients for another optimizer, which makes the step.

  First the weight decay is added, as in PyTorch's `SGD(weight_decay=…)`:
  g <- g + decay * w. Then gradients with a larger norm are scaled down, as
  PyTorch's `clip_grad_norm_` does: g <- g * clip_norm / ||g||, with the norm of
  all gradients together.
  """

  def __init__(
    self,
    optimizer: tff.learning.optimizers.Optimizer,
    *,
    weight_decay: float = 0.0,
    clip_norm: Optional[float] = None,
  ):
    """Initializes `PreparedGradients`.

    Args:
      optimizer: Makes the step. State and hyper-parameters are its own.
      weight_decay: Factor of the weights in their gradients, >= 0.
      clip_norm: Largest norm of all gradients, > 0. None turns clipping off.
    """
    self._optimizer = optimizer
    self._weight_decay = weight_decay
    self._clip_norm = clip_norm

  def initialize(self, specs: Any) -> Any:
    """See `tff.learning.optimizers.Optimizer`."""
    return self._optimizer.initialize(specs)

  def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
    """See `tff.learning.optimizers.Optimizer`."""
    if self._weight_decay:
      gradients = tf.nest.map_structure(
        lambda gradient, weight: (
          None if gradient is None else gradient + self._weight_decay * weight
        ),
        gradients,
        weights,
      )
    if self._clip_norm is not None:
      clipped, _ = tf.clip_by_global_norm(
        tf.nest.flatten(gradients), self._clip_norm
      )
      gradients = tf.nest.pack_sequence_as(gradients, clipped)
    return self._optimizer.next(state, weights, gradients)

  def get_hparams(self, state: Any) -> Mapping[str, Any]:
    """See `tff.learning.optimizers.Optimizer`."""
    return self._optimizer.get_hparams(state)

  def set_hparams(self, state: Any, hparams: Mapping[str, Any]) -> Any:
    """See `tff.learning.optimizers.Optimizer`."""
    return self._optimizer.set_hparams(state, hparams)
