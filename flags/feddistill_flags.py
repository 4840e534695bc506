"""Flags of FedDistill."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedDistillFlags:
  """Defines FedDistill's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._lambda = flags.DEFINE_float(
      'feddistill_lambda',
      1.0,
      'Weight of the pull to mean logits.',
      lower_bound=0.0,
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `feddistill.build_feddistill`."""
    return {'distillation_weight': self._lambda.value}
