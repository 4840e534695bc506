"""Flags of FedProto."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedProtoFlags:
  """Defines FedProto's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._lambda = flags.DEFINE_float(
      'fedproto_lambda',
      10.0,
      'Weight of the pull to global prototypes.',
      lower_bound=0.0,
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedproto.build_fedproto`."""
    return {'regularization_weight': self._lambda.value}
