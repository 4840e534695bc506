"""Flags of FedAvg."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedAvgFlags:
  """Defines FedAvg's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._weighting = flags.DEFINE_enum(
      'fedavg_weighting',
      'examples',
      ['clients', 'examples'],
      "Weight of a client's model in the mean: its examples, or 1.",
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedavg.build_fedavg`."""
    return {'weighting': self._weighting.value}
