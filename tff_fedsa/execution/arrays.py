"""Arrays that are kept where they were computed, e.g. by the runtime `ray`."""

import abc
import math
from typing import Any, Optional

import numpy as np


class RemoteArray(np.lib.mixins.NDArrayOperatorsMixin, abc.ABC):
  """An array on another machine. It comes here when its values are used.

  NumPy and TensorFlow take it in place of an array. As an argument of a TFF
  computation it stays where it is.

  Attributes:
    dtype: NumPy's type of the elements.
    shape: The shape.
  """

  def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
    self.dtype = dtype
    self.shape = shape

  @abc.abstractmethod
  def fetch(self) -> np.ndarray:
    """Returns the array. Each call transfers it anew."""

  @property
  def ndim(self) -> int:
    return len(self.shape)

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def nbytes(self) -> int:
    return self.size * self.dtype.itemsize

  def __array__(self, dtype: Any = None) -> np.ndarray:
    return np.asarray(self.fetch(), dtype)

  def __array_ufunc__(
    self, ufunc: Any, method: str, *inputs: Any, **options: Any
  ) -> Any:
    fetched = [
      one.fetch() if isinstance(one, RemoteArray) else one for one in inputs
    ]
    return getattr(ufunc, method)(*fetched, **options)

  def __tf_tensor__(self, dtype: Any = None, name: Optional[str] = None) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(self.fetch(), dtype, name=name)

  def __len__(self) -> int:
    return len(self.fetch()) if not self.shape else self.shape[0]

  def __getitem__(self, index: Any) -> Any:
    return self.fetch()[index]

  def __getattr__(self, name: str) -> Any:
    if not hasattr(np.ndarray, name):
      raise AttributeError(f'{type(self).__name__} has no attribute {name!r}.')
    return getattr(self.fetch(), name)

  def __repr__(self) -> str:
    return f'<{type(self).__name__} {self.dtype}{list(self.shape)}>'
