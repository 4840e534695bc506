"""Flags of class means: what clients send, and how it is averaged."""

from typing import Any

from absl import flags

flags.disclaim_key_flags()


class PrototypeFlags:
  """Defines the flags of methods that average prototypes, or mean logits."""

  def __init__(self):
    self._kind = flags.DEFINE_enum(
      'prototypes',
      'running',
      ['running', 'final', 'initial'],
      'Local prototypes: mean of the features seen while training (the '
      'reference), of one clean pass with the trained model, or of one with '
      'the model as the round began.',
    )
    self._weighting = flags.DEFINE_enum(
      'prototype_weighting',
      'clients',
      ['clients', 'examples'],
      "Weight of a client in a class's global prototype: 1 (the reference), "
      'or its examples of the class.',
    )
    self._keep_missing = flags.DEFINE_boolean(
      'keep_missing',
      True,
      'Whether a class that nobody sent in a round keeps its global prototype. '
      'The reference forgets it.',
    )

  @property
  def kind(self) -> str:
    return self._kind.value

  def hyperparameters(self) -> dict[str, Any]:
    """Returns arguments of `build_*`."""
    return {
      'weighting': self._weighting.value,
      'keep_missing': self._keep_missing.value,
    }
