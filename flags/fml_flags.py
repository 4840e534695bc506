"""Flags of FML."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FMLFlags:
  """Defines FML's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._shared_model = flags.DEFINE_string(
      'fml_shared_model',
      None,
      'Architecture of the shared model, one of those that --family takes. '
      "Default: the clients' smallest.",
    )
    self._alpha = flags.DEFINE_float(
      'fml_alpha',
      0.5,
      "Weight of labels in the training of a client's own model; the rest is "
      "the shared model's opinion.",
      lower_bound=0.0,
      upper_bound=1.0,
    )
    self._beta = flags.DEFINE_float(
      'fml_beta',
      0.5,
      'Weight of labels in the training of the shared model; the rest is the '
      "opinion of the client's own.",
      lower_bound=0.0,
      upper_bound=1.0,
    )
    self._weighting = flags.DEFINE_enum(
      'fml_weighting',
      'examples',
      ['clients', 'examples'],
      "Weight of a client's shared model in the mean: its examples, or 1 (the "
      'reference).',
    )
    self._clip_norm = flags.DEFINE_float(
      'fml_clip_norm',
      10.0,
      "Largest norm of each model's gradient in a step; 0 lets it be.",
      lower_bound=0.0,
    )
    self._reference_losses = flags.DEFINE_boolean(
      'fml_reference_losses',
      False,
      'Whether divergences are averaged over classes, too, and move both '
      'models, teacher and pupil, as in the reference.',
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fml.build_fml`."""
    return {
      'shared_model': self._shared_model.value,
      'alpha': self._alpha.value,
      'beta': self._beta.value,
      'weighting': self._weighting.value,
      'clip_norm': self._clip_norm.value or None,
      'reference_losses': self._reference_losses.value,
    }
