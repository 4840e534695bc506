"""Flags of FedGen."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class FedGenFlags:
  """Defines FedGen's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._lambda = flags.DEFINE_float(
      'fedgen_lambda',
      1.0,
      'Weight of the cross-entropy of generated features.',
      lower_bound=0.0,
    )
    self._noise_dim = flags.DEFINE_integer(
      'fedgen_noise_dim',
      512,
      'Length of the noise that features are generated from.',
      lower_bound=1,
    )
    self._hidden_dim = flags.DEFINE_integer(
      'fedgen_hidden_dim',
      512,
      "Units of the generator's hidden layer.",
      lower_bound=1,
    )
    self._server_epochs = flags.DEFINE_integer(
      'fedgen_server_epochs',
      100,
      "The server's steps on the generator in a round, each on a batch of its "
      'own. 0 never trains it: what clients of the reference see, which does '
      'not save the trained one.',
      lower_bound=0,
    )
    self._generator_learning_rate = flags.DEFINE_float(
      'fedgen_generator_learning_rate',
      0.005,
      "Of the server's Adam, which trains the generator.",
      lower_bound=0.0,
    )
    self._ensemble_weighting = flags.DEFINE_enum(
      'fedgen_ensemble_weighting',
      'examples',
      ['examples', 'labels'],
      "Weight of a client's head where the server trains the generator: its "
      "examples (the reference), or those of the generated class (the authors' "
      'code).',
    )

  def hyperparameters(
    self, unused_num_classes: int, unused_feature_dim: int
  ) -> dict[str, Any]:
    """Returns arguments of `fedgen.build_fedgen`."""
    return {
      'generative_weight': self._lambda.value,
      'noise_dim': self._noise_dim.value,
      'hidden_dim': self._hidden_dim.value,
      'server_epochs': self._server_epochs.value,
      'generator_learning_rate': self._generator_learning_rate.value,
      'ensemble_weighting': self._ensemble_weighting.value,
    }
