"""Flags of FedPCL."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedPCLFlags:
  """Defines FedPCL's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._temperature = flags.DEFINE_float(
      'fedpcl_temperature',
      0.07,
      'Divides similarities in both contrastive terms, > 0.',
      lower_bound=0.0,
    )
    self._lambda = flags.DEFINE_float(
      'fedpcl_lambda',
      1.0,
      'Weight of both contrastive terms.',
      lower_bound=0.0,
    )
    self._cross_entropy_weight = flags.DEFINE_float(
      'fedpcl_cross_entropy_weight',
      1.0,
      'Weight of the cross-entropy. 0 is the paper, whose clients train by the '
      'contrastive terms alone: heads then stay as they were drawn.',
      lower_bound=0.0,
    )
    self._weighting = flags.DEFINE_enum(
      'fedpcl_weighting',
      'clients',
      ['clients', 'examples'],
      "Weight of a client in a class's global prototype: 1 (the reference), "
      'or its examples of the class.',
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedpcl.build_fedpcl`."""
    return {
      'temperature': self._temperature.value,
      'contrastive_weight': self._lambda.value,
      'cross_entropy_weight': self._cross_entropy_weight.value,
      'weighting': self._weighting.value,
    }
