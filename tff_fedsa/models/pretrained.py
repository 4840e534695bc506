"""Reads pretrained weights of feature extractors from files."""

import os

import numpy as np
import tensorflow as tf

from tff_fedsa.models import keras_applications
from tff_fedsa.models import torch_weights
from tff_fedsa.runs import errors


def load(extractor: tf.keras.Model, path: str) -> None:
  """Assigns the weights of a file to a feature extractor.

  Args:
    extractor: Extractor of an architecture that torchvision or
      keras.applications defines.
    path: `.npz`: a torchvision `state_dict`, arrays by name, saved with
      `numpy.savez`; `.h5`: weights of keras.applications without the top, for
      the architectures `keras_*`.

  Raises:
    ValueError: If the file is missing, has another format, or holds weights of
      another architecture.
  """
  if not os.path.isfile(path):
    raise errors.UserError(
      f'There is no file of pretrained weights at {path!r}.'
    )
  ours = [x for x in extractor.layers if x.name == keras_applications.NAME]
  if path.endswith('.npz') and not ours:
    with np.load(path, allow_pickle=False) as arrays:
      torch_weights.assign(extractor, dict(arrays))
  elif path.endswith('.h5') and ours:
    _load_application(ours[0], path)
  else:
    expected = (
      "keras.applications' weights without the top (*_notop.h5)"
      if ours
      else "a torchvision state_dict, saved with numpy.savez (*.npz); Keras's "
      'weights fit the architectures keras_*'
    )
    raise errors.UserError(
      f'Expected pretrained weights as {expected}, found {path!r}.'
    )


def _load_application(application: tf.keras.Model, path: str) -> None:
  try:
    application.load_weights(path)
  except (OSError, KeyError, ValueError) as error:
    raise errors.UserError(
      f'{path!r} does not hold the weights of this application without its '
      f'top: {error}'
    ) from error
