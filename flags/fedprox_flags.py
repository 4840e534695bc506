"""Flags of FedProx."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedProxFlags:
  """Defines FedProx's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._mu = flags.DEFINE_float(
      'fedprox_mu',
      0.001,
      'mu: half of it times the squared distance from the weights that the '
      'round began with is part of the loss. The paper chooses it from 0.001, '
      '0.01, 0.1 and 1; with 0 it is FedAvg.',
      lower_bound=0.0,
    )
    self._weighting = flags.DEFINE_enum(
      'fedprox_weighting',
      'examples',
      ['clients', 'examples'],
      "Weight of a client's model in the mean: its examples, or 1.",
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedprox.build_fedprox`."""
    return {
      'proximal_weight': self._mu.value,
      'weighting': self._weighting.value,
    }
