"""Flags of local training: how clients go through their examples."""

import typing

from absl import flags

if typing.TYPE_CHECKING:
  from tff_fedsa.client import local_training

flags.disclaim_key_flags()


class LocalTrainingFlags:
  """Defines the flags of local training, which all methods have."""

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

  @property
  def batch_size(self) -> int:
    return self._batch_size.value

  def build(self, prototypes: str) -> 'local_training.LocalTrainingConfig':
    """Returns the `local_training.LocalTrainingConfig`.

    Args:
      prototypes: Its kind of prototypes.
    """
    from tff_fedsa.client import local_training  # Imports TensorFlow and TFF.

    return local_training.LocalTrainingConfig(
      batch_size=self._batch_size.value,
      num_epochs=self._epochs.value,
      remainder=self._remainder.value,
      shuffle=self._shuffle.value,
      prototypes=prototypes,
    )
