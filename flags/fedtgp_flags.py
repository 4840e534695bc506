"""Flags of FedTGP."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedTGPFlags:
  """Defines FedTGP's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._lambda = flags.DEFINE_float(
      'fedtgp_lambda',
      10.0,
      'Weight of the pull to global prototypes.',
      lower_bound=0.0,
    )
    self._server_epochs = flags.DEFINE_integer(
      'fedtgp_server_epochs',
      100,
      "The server's passes over the prototypes of a round.",
      lower_bound=1,
    )
    self._server_learning_rate = flags.DEFINE_float(
      'fedtgp_server_learning_rate',
      None,
      "Of the server's SGD, which trains the prototypes. Default: the "
      "clients', as in the reference.",
      lower_bound=0.0,
    )
    self._max_margin = flags.DEFINE_float(
      'fedtgp_max_margin',
      100.0,
      'Upper bound of the margin, feature distance.',
      lower_bound=0.0,
    )
    self._reference_order = flags.DEFINE_boolean(
      'fedtgp_reference_order',
      False,
      'Whether clients send prototypes of their model as it was before the '
      'round, as the reference does by its order of saving, and not of the '
      'trained one.',
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedtgp.build_fedtgp`."""
    return {
      'regularization_weight': self._lambda.value,
      'server_epochs': self._server_epochs.value,
      'server_learning_rate': self._server_learning_rate.value,
      'max_margin': self._max_margin.value,
      'reference_order': self._reference_order.value,
    }
