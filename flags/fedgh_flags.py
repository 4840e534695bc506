"""Flags of FedGH."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedGHFlags:
  """Defines FedGH's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._server_epochs = flags.DEFINE_integer(
      'fedgh_server_epochs',
      1,
      "The server's passes over the prototypes of a round.",
      lower_bound=1,
    )
    self._server_learning_rate = flags.DEFINE_float(
      'fedgh_server_learning_rate',
      0.01,
      "Of the server's SGD, which trains the head.",
      lower_bound=0.0,
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedgh.build_fedgh`."""
    return {
      'server_epochs': self._server_epochs.value,
      'server_learning_rate': self._server_learning_rate.value,
    }
