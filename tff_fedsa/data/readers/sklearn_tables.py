"""Tables that come with scikit-learn."""

import numpy as np

from tff_fedsa.data import sources

NAMES = ('breast_cancer', 'wine')


def read(name: str) -> sources.Source:
  """Returns a table of scikit-learn, in its order.

  `wine`: 178 wines, 13 columns, 3 growers. `breast_cancer`: 569 tumours, 30
  columns, 2 diagnoses. Both are data of the UCI repository.

  Args:
    name: One of `NAMES`.
  """
  from sklearn import datasets  # Slow to import, and only needed here.

  bunch = getattr(datasets, f'load_{name}')()
  return sources.Source(
    name=name,
    images=bunch.data.astype(np.float32),
    labels=bunch.target,
    class_names=tuple(map(str, bunch.target_names)),
    sorted_as='as scikit-learn has them',
  )
