"""Seeds the global random state for a while, and restores it."""

from collections.abc import Iterator
import contextlib
import random

from keras.src import backend as keras_backend
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as eager_context

_MISSING = object()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
  """Makes Keras's initializers draw from `seed` in a `with` block.

  Afterwards the global random state of Python, NumPy, TensorFlow and Keras is
  restored. One exception remains: eager random operations with their own seed
  (`tf.random.normal([], seed=1)`) start their sequence again.

  Args:
    seed: Any integer.
  """
  eager = eager_context.context()
  keras_seeds = keras_backend._SEED_GENERATOR  # pylint: disable=protected-access
  python_state, numpy_state = random.getstate(), np.random.get_state()
  tf_state = getattr(eager, '_seed', None), getattr(eager, '_rng', None)
  keras_state = getattr(keras_seeds, 'generator', _MISSING)
  try:
    tf.keras.utils.set_random_seed(seed % 2**32)
    yield
  finally:
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    # TensorFlow has no public way to read its global seed.
    eager._seed, eager._rng = tf_state  # pylint: disable=protected-access
    if keras_state is _MISSING:
      del keras_seeds.generator
    else:
      keras_seeds.generator = keras_state
