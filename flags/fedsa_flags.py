"""Flags of FedSA itself: objective, anchors, prototypes, local training."""

import typing

from absl import flags

from flags import holders

if typing.TYPE_CHECKING:
  import numpy as np

  from tff_fedsa import composer

flags.disclaim_key_flags()


class FedSAFlags:
  """Defines FedSA's flags; `build(...)` returns process and anchors."""

  def __init__(self):
    self._epochs = flags.DEFINE_integer(
      'client_epochs_per_round',
      1,
      "Passes over the client's examples.",
      lower_bound=1,
    )
    self._batch_size = flags.DEFINE_integer(
      'client_batch_size', 10, 'Examples of one step.', lower_bound=1
    )
    self._remainder = flags.DEFINE_enum(
      'remainder',
      'short',
      ['short', 'wrap', 'drop'],
      'What happens to examples that do not fill a batch: a short last batch; '
      'a batch filled up from the beginning; or left out (the reference).',
    )
    self._shuffle = flags.DEFINE_boolean(
      'shuffle',
      True,
      'Whether each epoch has its own order. The reference goes in order.',
    )
    self._prototypes = flags.DEFINE_enum(
      'prototypes',
      'running',
      ['running', 'final'],
      'Local prototypes: mean of the features seen while training (the '
      'reference), or of one clean pass with the trained model.',
    )
    self._weighting = flags.DEFINE_enum(
      'prototype_weighting',
      'clients',
      ['clients', 'examples'],
      "Weight of a client in a class's global prototype: 1 (the reference), "
      'or its examples of the class.',
    )
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
    self._anchor_decay = flags.DEFINE_float(
      'anchor_decay',
      0.9999,
      "alpha of the anchors' moving average: A <- alpha A + (1 - alpha) P.",
      lower_bound=0.0,
      upper_bound=1.0,
    )
    self._keep_missing = flags.DEFINE_boolean(
      'keep_missing',
      True,
      'Whether a class that nobody sent in a round keeps its global prototype. '
      'The reference forgets it.',
    )

  @property
  def batch_size(self) -> int:
    return self._batch_size.value

  def build(
    self,
    models: typing.Any,
    input_spec: typing.Any,
    optimizer: typing.Any,
  ) -> 'tuple[composer.StatefulProcess, np.ndarray]':
    """Returns `(process, initial anchors)`.

    Args:
      models: One `FunctionalModel` per architecture.
      input_spec: Of the task.
      optimizer: The `LocalOptimizer`.

    Raises:
      flags.IllegalFlagValueError: If a flag was set that would be ignored.
      ValueError: If a value does not fit; it is named.
      FileNotFoundError: If there is no --anchor_file.
    """
    from tff_fedsa import local_training  # Imports TensorFlow and TFF.
    from tff_fedsa.algorithms import fedsa

    anchors = self._anchors(models[0].num_classes, models[0].feature_dim)
    process = fedsa.build_fedsa(
      models,
      input_spec=input_spec,
      anchors=anchors,
      optimizer=optimizer,
      loss_weights=fedsa.LossWeights(
        regularization=self._lambda_reg.value,
        contrastive=self._lambda_mcl.value,
        calibration=self._lambda_cc.value,
      ),
      local=local_training.LocalTrainingConfig(
        batch_size=self._batch_size.value,
        num_epochs=self._epochs.value,
        remainder=self._remainder.value,
        shuffle=self._shuffle.value,
        prototypes=self._prototypes.value,
      ),
      weighting=self._weighting.value,
      anchor_decay=self._anchor_decay.value,
      keep_missing=self._keep_missing.value,
    )
    return process, anchors

  def _anchors(self, num_classes: int, feature_dim: int) -> 'np.ndarray':
    import numpy as np

    from tff_fedsa import anchors

    if self._anchor_file.value:
      holders.refuse_vain(
        [self._anchor_init, self._anchor_seed],
        'the anchors come from --anchor_file',
      )
      return np.load(self._anchor_file.value, allow_pickle=False)
    return anchors.initial_anchors(
      num_classes,
      feature_dim,
      seed=self._anchor_seed.value,
      initializer=self._anchor_init.value,
    )
