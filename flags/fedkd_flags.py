"""Flags of FedKD."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedKDFlags:
  """Defines FedKD's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._shared_model = flags.DEFINE_string(
      'fedkd_shared_model',
      None,
      'Architecture of the shared model, one of those that --family takes. '
      "Default: the clients' smallest.",
    )
    self._shared_learning_rate = flags.DEFINE_float(
      'fedkd_shared_learning_rate',
      None,
      "Of the clients' optimizer where it trains the shared model. Default: "
      'as for their own models.',
      lower_bound=0.0,
    )
    self._energy_start = flags.DEFINE_float(
      'fedkd_energy_start',
      0.95,
      'Share of the squared singular values that compression keeps in the '
      'first round, in (0, 1].',
      lower_bound=0.0,
      upper_bound=1.0,
    )
    self._energy_end = flags.DEFINE_float(
      'fedkd_energy_end',
      0.98,
      'The same after --fedkd_energy_rounds; in between it grows linearly.',
      lower_bound=0.0,
      upper_bound=1.0,
    )
    self._energy_rounds = flags.DEFINE_integer(
      'fedkd_energy_rounds',
      100,
      'Rounds until compression keeps --fedkd_energy_end; in the paper all of '
      'the run. A number of its own, so that a longer run repeats a shorter.',
      lower_bound=1,
    )
    self._weighting = flags.DEFINE_enum(
      'fedkd_weighting',
      'examples',
      ['clients', 'examples'],
      "Weight of a client's update in the mean: its examples, or 1 (the "
      'reference).',
    )
    self._clip_norm = flags.DEFINE_float(
      'fedkd_clip_norm',
      10.0,
      "Largest norm of each model's gradient in a step; 0 lets it be.",
      lower_bound=0.0,
    )
    self._reference_losses = flags.DEFINE_boolean(
      'fedkd_reference_losses',
      False,
      'Whether divergences are averaged over classes, too, and all terms move '
      'both models, as in the reference.',
    )
    self._reference_compression = flags.DEFINE_boolean(
      'fedkd_reference_compression',
      False,
      'Whether the weights are compressed, not their updates, and '
      'convolutions kernel by kernel, as in the reference.',
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedkd.build_fedkd`."""
    return {
      'shared_model': self._shared_model.value,
      'shared_learning_rate': self._shared_learning_rate.value,
      'energy_start': self._energy_start.value,
      'energy_end': self._energy_end.value,
      'energy_rounds': self._energy_rounds.value,
      'weighting': self._weighting.value,
      'clip_norm': self._clip_norm.value or None,
      'reference_losses': self._reference_losses.value,
      'reference_compression': self._reference_compression.value,
    }
