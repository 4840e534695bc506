"""Undoes the changes of Keras's classes by layers built in a `tf.Graph`.

There (and so in every `model_fn` that TFF calls) Keras replaces the bases of
the layer's class by those of TensorFlow 1, and leaves it so. Layers of that
class that were built eagerly break: "Your Layer or Model is in an invalid
state". Building another one eagerly would mend them.
"""

import tensorflow as tf


def restore(keras_model: tf.keras.Model) -> None:
  """Mends the classes of a model that was built eagerly, and of its layers."""
  with tf.init_scope():
    # Not `submodules`, which stumbles over caches of recurrent layers.
    for layer in keras_model._flatten_layers():
      # Keras does this, and no more, before it builds an instance.
      tf.keras.layers.Layer.__new__(type(layer))
