"""Trains every layer of Keras as a client does, and as Keras does.

  python -m benchmarks.keras_layers
  python -m benchmarks.keras_layers --applications
  python -m benchmarks.keras_layers --names=GRU,MobileNetV3Small
  python -m benchmarks.keras_layers --table

A model with the layer is trained for three steps of SGD by a client's local
training, and by `train_on_batch` of the same Keras model. For each layer, the
first prints the largest difference of a weight, relative to the largest
weight, and the seconds it took; the second does so for models of
keras.applications, and builds those that are too large to train. The last
prints the table of docs/models.md; it trains nothing.
"""

from collections.abc import Sequence
import sys
import time

from absl import app
from absl import flags
from absl import logging

from launch import runner

_APPLICATIONS = flags.DEFINE_bool(
  'applications', False, 'Tries keras.applications instead of keras.layers.'
)
_NAMES = flags.DEFINE_list('names', [], 'Only these layers and applications.')
_TABLE = flags.DEFINE_bool('table', False, 'Prints the table, trains nothing.')


def main(argv: Sequence[str]) -> None:
  """Trains and prints as the flags say."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  from benchmarks import keras_equality  # Imports TensorFlow.
  from benchmarks import keras_recipes

  if _TABLE.value:
    print(keras_equality.table())
    return
  names = _NAMES.value or (
    keras_recipes.application_names()
    if _APPLICATIONS.value
    else [
      name
      for name in keras_recipes.layer_classes()
      if name not in keras_recipes.OTHERS
    ]
  )
  # Keras warns of weights without gradients, TensorFlow of many functions.
  logging.set_verbosity(logging.ERROR)
  failed = []
  for name in names:
    start = time.monotonic()
    try:
      outcome = keras_equality.try_out(name)
    except (AssertionError, ValueError) as error:
      failed.append(name)
      outcome = f'FAILED: {error}'
    print(f'{name}: {outcome} ({time.monotonic() - start:.1f} s)', flush=True)
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
  runner.run(main)
