"""Checks whether an update is finite, and replaces it if not."""

from collections.abc import Callable
from typing import Any, Optional

import tensorflow as tf

# No feature, logit or weight of a working model comes near this value. Squares
# of larger float32 values soon overflow.
LARGEST = 1e8
# Elements from which a condition pays: it takes long to trace and to compile,
# but what it leaves out is not computed, and what it returns is not copied.
_MANY = 2**16


def all_finite(structure: Any) -> tf.Tensor:
  """Returns whether all floating values are finite, a bool scalar."""
  return _all(structure, tf.math.is_finite)


def all_usable(structure: Any) -> tf.Tensor:
  """Returns whether all floating values are finite and at most LARGEST.

  Args:
    structure: Tensors of any shapes.

  Returns:
    A bool scalar.
  """
  # Comparisons with NaN are false.
  return _all(structure, lambda leaf: tf.abs(leaf) <= LARGEST)


def choose(
  condition: tf.Tensor, if_true: Any, if_false: Optional[Any] = None
) -> Any:
  """Returns one of two structures, chosen by a scalar.

  Args:
    condition: bool scalar.
    if_true: Structure of tensors.
    if_false: Structure of tensors. A vector of unknown length may have another
      length than the one in `if_true`. Default: zeros.
  """
  firsts = tf.nest.flatten(if_true)
  seconds = [None] * len(firsts)
  if if_false is not None:
    seconds = tf.nest.flatten(if_false)
  pairs = list(zip(firsts, seconds))
  chosen = [
    first
    if first is second
    else tf.where(condition, first, _or_zeros(first, second))
    if _are_small(first, second)
    else None
    for first, second in pairs
  ]
  rest = [pair for pair, done in zip(pairs, chosen) if done is None]
  if rest:
    found = iter(
      tf.cond(
        condition,
        lambda: [first for first, _ in rest],
        lambda: [_or_zeros(first, second) for first, second in rest],
      )
    )
    chosen = [next(found) if done is None else done for done in chosen]
  return tf.nest.pack_sequence_as(if_true, chosen)


def _or_zeros(first: tf.Tensor, second: Optional[tf.Tensor]) -> tf.Tensor:
  return tf.zeros_like(first) if second is None else second


def _are_small(first: tf.Tensor, second: Optional[tf.Tensor]) -> bool:
  """Returns whether both have one known shape of few elements."""
  size = first.shape.num_elements()
  known = size is not None and size < _MANY
  return known and (second is None or first.shape == second.shape)


def _all(structure: Any, condition_fn: Callable[..., tf.Tensor]) -> tf.Tensor:
  """Returns whether a condition holds for all floating values."""
  # Each once: Grappler may take another tensor in place of equal ones that are
  # stacked.
  leaves = {id(leaf): leaf for leaf in tf.nest.flatten(structure)}
  # Scalars of a type together: each operation takes time to trace.
  scalars: dict[tf.DType, list[tf.Tensor]] = {}
  vectors, conditions = [], []
  for leaf in leaves.values():
    if not leaf.dtype.is_floating:
      continue
    if leaf.shape.rank == 0:
      scalars.setdefault(leaf.dtype, []).append(leaf)
    elif leaf.dtype == tf.float32 and not _are_small(leaf, None):
      vectors.append(leaf)
    else:
      conditions.append(tf.reduce_all(condition_fn(leaf)))
  conditions += [
    tf.reduce_all(condition_fn(tf.stack(of_type)))
    for of_type in scalars.values()
  ]
  if vectors:
    # One pass over good values: no square exceeds their sum, rounded or not.
    # NaN and values whose squares are too large are looked at one by one.
    half = tf.add_n([tf.nn.l2_loss(vector) for vector in vectors])
    conditions.append(
      tf.cond(
        half < 0.49 * LARGEST**2,
        lambda: tf.constant(True),
        lambda: tf.reduce_all(
          [tf.reduce_all(condition_fn(vector)) for vector in vectors]
        ),
      )
    )
  return tf.reduce_all(conditions) if conditions else tf.constant(True)
