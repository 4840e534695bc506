"""Flags of LG-FedAvg."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class LGFedAvgFlags:
  """Defines LG-FedAvg's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._weighting = flags.DEFINE_enum(
      'lg_fedavg_weighting',
      'examples',
      ['clients', 'examples'],
      "Weight of a client's head in the mean: its examples (the reference), "
      'or 1.',
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `lg_fedavg.build_lg_fedavg`."""
    return {'weighting': self._weighting.value}
