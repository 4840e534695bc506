"""Random changes of a batch of inputs, as functions of a seed."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epy

with epy.lazy_imports():
  import tensorflow as tf


def augment(
  images: tf.Tensor,
  seed: tf.Tensor,
  *,
  crop_padding: int = 0,
  flip: bool = False,
  fill: float | Sequence[float] = 0.0,
) -> tf.Tensor:
  """Pads images, crops them at random places, and flips half of them.

  Each image has its own random crop (all offsets are equally likely) and flip.

  Args:
    images: float32[batch, height, width, channels].
    seed: int32[2].
    crop_padding: Pixels added at each side before the crop.
    flip: Whether to mirror images, left to right.
    fill: Value of added pixels, for all channels or per channel.

  Returns:
    Images of the same shape.
  """
  num_images = tf.shape(images)[0]
  _, height, width, _ = images.shape
  rows = tf.tile(tf.range(height)[tf.newaxis], [num_images, 1])
  columns = tf.tile(tf.range(width)[tf.newaxis], [num_images, 1])
  if flip:
    mirrored = tf.random.stateless_uniform(
      [num_images, 1], seed=_fold_in(seed, 0), maxval=2, dtype=tf.int32
    )
    columns = tf.where(mirrored == 1, width - 1 - columns, columns)
  if crop_padding:
    shifts = tf.random.stateless_uniform(
      [num_images, 2],
      seed=_fold_in(seed, 1),
      minval=-crop_padding,
      maxval=crop_padding + 1,
      dtype=tf.int32,
    )
    rows += shifts[:, :1]
    columns += shifts[:, 1:]
    inside = tf.logical_and(
      _is_within(rows, height)[:, :, tf.newaxis, tf.newaxis],
      _is_within(columns, width)[:, tf.newaxis, :, tf.newaxis],
    )
    images = tf.gather(
      images, tf.clip_by_value(rows, 0, height - 1), axis=1, batch_dims=1
    )
  images = tf.gather(
    images, tf.clip_by_value(columns, 0, width - 1), axis=2, batch_dims=1
  )
  if crop_padding:
    images = tf.where(inside, images, fill)
  return images


def augment_numbers(
  inputs: tf.Tensor,
  seed: tf.Tensor,
  *,
  crop_padding: int = 0,
  scaling: float = 0.0,
  jitter: float = 0.0,
  masked: bool = False,
) -> tf.Tensor:
  """Shifts, scales and jitters series; jitters rows of tables.

  Source: "Data augmentation of wearable sensor data for Parkinson's disease
  monitoring using convolutional neural networks" (Um et al., ICMI 2017).

  Args:
    inputs: float32[batch, steps, channels] or float32[batch, columns].
    seed: int32[2].
    crop_padding: A series is moved by so many steps at most, all shifts being
      equally likely. Its first or last step fills the gap. Series only.
    scaling: Standard deviation of a factor of mean 1 for each channel of each
      series. Series only.
    jitter: Standard deviation of noise of mean 0 for each number.
    masked: Whether the last channel is a mask. It stays as it is, and so does
      padding: the last step of a series is that before its padding.

  Returns:
    Inputs of the same shape.
  """
  last = inputs.shape[1] - 1
  if masked:
    inputs, mask = inputs[..., :-1], inputs[..., -1:]
    last = tf.cast(tf.reduce_sum(mask, axis=1), tf.int32) - 1
  shape = tf.shape(inputs)
  if crop_padding:
    shifts = tf.random.stateless_uniform(
      [shape[0], 1],
      seed=_fold_in(seed, 0),
      minval=-crop_padding,
      maxval=crop_padding + 1,
      dtype=tf.int32,
    )
    steps = tf.range(inputs.shape[1])[tf.newaxis] + shifts
    inputs = tf.gather(
      inputs,
      tf.clip_by_value(steps, 0, last),
      axis=1,
      batch_dims=1,
    )
  if scaling:
    inputs *= tf.random.stateless_normal(
      [shape[0], 1, inputs.shape[2]],
      seed=_fold_in(seed, 1),
      mean=1.0,
      stddev=scaling,
    )
  if jitter:
    inputs += tf.random.stateless_normal(
      shape, seed=_fold_in(seed, 2), stddev=jitter
    )
  if masked:
    inputs = tf.concat([inputs * mask, mask], axis=-1)
  return inputs


def drop_tokens(
  tokens: tf.Tensor, seed: tf.Tensor, *, rate: float
) -> tf.Tensor:
  """Replaces a share of tokens by padding.

  Source: word dropout of "Deep Unordered Composition Rivals Syntactic Methods
  for Text Classification" (Iyyer et al., ACL 2015).

  Args:
    tokens: int32[batch, length], 0 being padding.
    seed: int32[2].
    rate: Probability of each token, in [0, 1).

  Returns:
    Tokens of the same shape.
  """
  draws = tf.random.stateless_uniform(tf.shape(tokens), seed=seed)
  return tf.where(draws < rate, 0, tokens)


def _is_within(indices, size):
  return tf.logical_and(indices >= 0, indices < size)


def _fold_in(seed, data):
  return tf.random.experimental.stateless_fold_in(seed, data)
