"""Assigns pretrained vectors of words to embeddings."""

import numpy as np
import tensorflow as tf

from tff_fedsa.runs import errors


def assign(extractor: tf.keras.Model, table: np.ndarray) -> None:
  """Assigns vectors of words to the embeddings of a feature extractor.

  Args:
    extractor: Extractor of tokens.
    table: float32[vocabulary_size, width]. Rows of NaN change nothing.

  Raises:
    ValueError: If the extractor has no embedding of this vocabulary, or one of
      another width.
  """
  layers = [
    layer
    for layer in extractor._flatten_layers()  # pylint: disable=protected-access
    if isinstance(layer, tf.keras.layers.Embedding)
    and layer.input_dim == len(table)
  ]
  if not layers:
    raise errors.UserError(
      f'expected an Embedding layer of {len(table)} tokens for the vectors of '
      'embeddings_file, found none.'
    )
  is_known = np.isfinite(table[:, :1])
  for layer in layers:
    if layer.output_dim != table.shape[1]:
      raise errors.UserError(
        f'the vectors of embeddings_file have the width {table.shape[1]}, its '
        f'embeddings {layer.output_dim}. That of txt_* is feature_dim '
        f'(--feature_dim={table.shape[1]}); those of --family=text take any.'
      )
    (random,) = layer.get_weights()
    layer.set_weights([np.where(is_known, table, random)])
