"""scikit-learn's handwritten digits."""

import numpy as np

from tff_fedsa.data import sources


def read() -> sources.Source:
  """Returns scikit-learn's 1797 handwritten digits, 8x8, in order.

  They come with scikit-learn and need no file and no network. Pixels are 0..16.
  Models see (x / 16 - 0.5) / 0.5.
  """
  from sklearn import datasets  # Slow to import.

  images, labels = datasets.load_digits(return_X_y=True)
  return sources.Source(
    name='digits',
    images=images.reshape(-1, 8, 8, 1).astype(np.uint8),
    labels=labels,
    class_names=tuple(map(str, range(10))),
    scale=1.0 / 8.0,
    sorted_as='as scikit-learn has them',
  )
