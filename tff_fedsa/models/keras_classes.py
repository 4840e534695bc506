"""Undoes the changes of Keras's classes by layers built in a `tf.Graph`.

In a `tf.Graph` (and so in every `model_fn` that TFF calls) Keras replaces the
bases of a layer's class by those of TensorFlow 1 and does not undo this. Layers
of that class that were built eagerly then fail: "Your Layer or Model is in an
invalid state".
"""

import tensorflow as tf


def restore(keras_model: tf.keras.Model) -> None:
  """Restores the classes of an eagerly built model and of its layers."""
  with tf.init_scope():
    # Not `submodules`, which fails for caches of recurrent layers.
    for layer in keras_model._flatten_layers():
      # Keras does the same before it builds an instance.
      tf.keras.layers.Layer.__new__(type(layer))
