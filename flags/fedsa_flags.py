"""Flags of FedSA: objective and anchors."""

import typing

from absl import flags

from flags import holders

if typing.TYPE_CHECKING:
  import numpy as np

flags.disclaim_key_flags()


class FedSAFlags:
  """Defines FedSA's flags; `hyperparameters` returns what they say."""

  def __init__(self):
    self._lambda_reg = flags.DEFINE_float(
      'lambda_reg',
      10.0,
      'Weight of the anchor regularization.',
      lower_bound=0.0,
    )
    self._lambda_mcl = flags.DEFINE_float(
      'lambda_mcl',
      1.0,
      'Weight of the margin contrastive term.',
      lower_bound=0.0,
    )
    self._lambda_cc = flags.DEFINE_float(
      'lambda_cc',
      1.0,
      'Weight of the classifier calibration.',
      lower_bound=0.0,
    )
    self._margin_scale = flags.DEFINE_float(
      'margin_scale',
      1.0,
      'The margin of the contrastive term is multiplied by it; 1 is the '
      'reference, 0 is no margin.',
      lower_bound=0.0,
    )
    self._warmup_rounds = flags.DEFINE_integer(
      'warmup_rounds',
      0,
      'The weights of regularization and contrastive term rise from 0 in the '
      'first round to their value after so many; 0 is the reference.',
      lower_bound=0,
    )
    self._anchor_init = flags.DEFINE_enum(
      'anchor_init',
      'random_projection',
      ['random_projection', 'gaussian', 'orthogonal'],
      "Where anchors start: the reference's random projection, Gaussian, or "
      'equally far apart.',
    )
    self._anchor_file = flags.DEFINE_string(
      'anchor_file',
      None,
      'Start from these anchors instead: a .npy file float32[num_classes, '
      'feature_dim].',
    )
    self._anchor_seed = flags.DEFINE_integer(
      'anchor_seed', 0, 'Initial anchors follow from it.'
    )
    self._anchor_scale = flags.DEFINE_float(
      'anchor_scale',
      1.0,
      'Initial anchors are multiplied by it; 1 is the reference, whose norm is '
      'about the square root of half of --feature_dim.',
      lower_bound=0.0,
    )
    self._anchor_decay = flags.DEFINE_float(
      'anchor_decay',
      0.9999,
      "alpha of the anchors' moving average: A <- alpha A + (1 - alpha) P.",
      lower_bound=0.0,
      upper_bound=1.0,
    )

  def hyperparameters(
    self, num_classes: int, feature_dim: int
  ) -> dict[str, typing.Any]:
    """Returns arguments of `fedsa.build_fedsa`.

    Args:
      num_classes: C.
      feature_dim: D.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
      ValueError: If anchors of these sizes can't be made, or --anchor_file is
        not a .npy file.
      FileNotFoundError: If there is no --anchor_file.
    """
    from tff_fedsa.algorithms import fedsa  # Imports TensorFlow and TFF.

    return {
      'anchors': self._anchors(num_classes, feature_dim),
      'loss_weights': fedsa.LossWeights(
        regularization=self._lambda_reg.value,
        contrastive=self._lambda_mcl.value,
        calibration=self._lambda_cc.value,
      ),
      'margin_scale': self._margin_scale.value,
      'warmup_rounds': self._warmup_rounds.value,
      'anchor_decay': self._anchor_decay.value,
    }

  def _anchors(self, num_classes: int, feature_dim: int) -> 'np.ndarray':
    import numpy as np

    from tff_fedsa.maths import anchors

    if self._anchor_file.value:
      holders.refuse_vain(
        [self._anchor_init, self._anchor_seed, self._anchor_scale],
        'the anchors come from --anchor_file',
      )
      path = self._anchor_file.value
      try:
        return np.load(path, allow_pickle=False)
      except FileNotFoundError as error:
        raise FileNotFoundError(f'There is no --anchor_file={path}.') from error
      except ValueError as error:
        raise ValueError(
          f'--anchor_file={path} is not a .npy file of numbers: {error}'
        ) from error
    return anchors.initial_anchors(
      num_classes,
      feature_dim,
      seed=self._anchor_seed.value,
      initializer=self._anchor_init.value,
      scale=self._anchor_scale.value,
    )
