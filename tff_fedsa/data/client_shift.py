"""Feature shift: each client sees its images rotated or tinted in its own way.

Classes stay as they are dealt out; what differs between clients is how examples
of one class look.
"""

from __future__ import annotations

import collections
import colorsys
import dataclasses
from typing import Any, TYPE_CHECKING

import numpy as np
from scipy import ndimage

from tff_fedsa.data import mapped_clients
from tff_fedsa.data import packing
from tff_fedsa.runs import errors

if TYPE_CHECKING:
  from tff_fedsa.data import tasks

_ROTATION, _TINT = 1, 2


def shifted(
  task: tasks.FederatedTask, *, rotation: float, tint: float, seed: int
) -> tasks.FederatedTask:
  """Returns a task whose clients have images of their own rotation and colour.

  Train and test examples of a client are changed alike. Its angle is drawn from
  U(-rotation, rotation), its hue from all hues.

  Args:
    task: A task of images in memory, whose clients have test examples of their
      own.
    rotation: Largest angle, in degrees. 0 rotates nothing.
    tint: Share of a client's colour in its images, in [0, 1]; see `tinted`. 0
      changes no colour.
    seed: Seed of angles and hues.

  Raises:
    ValueError: If the inputs are no images, or stay on disk, or there are test
      examples of no client.
  """
  if not rotation and not tint:
    return task
  spec = task.input_spec
  if isinstance(spec, packing.PackedSpec) or spec.kind != 'image':
    raise errors.UserError(
      f'{task.name}: client_rotation and client_tint change images; found '
      f'{spec.describe()}.'
    )
  if task.global_test_sets:
    raise errors.UserError(
      f'{task.name}: client_rotation and client_tint change the images of each '
      'client, but the partition holds out test examples of no client.'
    )
  clients = mapped_clients.in_memory(
    task.clients,
    f'{task.name}: client_rotation and client_tint copy the images of each '
    'client, but these images stay on disk. Use a smaller image_size, or '
    'data_cache_dir=none, which keeps all images in memory.',
  )
  angles = np.random.default_rng([seed, _ROTATION]).uniform(
    -rotation, rotation, task.num_clients
  )
  hues = np.random.default_rng([seed, _TINT]).uniform(size=task.num_clients)

  def changed(examples: Any, client_id: int) -> Any:
    images = examples['x']
    if rotation:
      images = rotated(images, angles[client_id])
    if tint:
      images = tinted(images, hues[client_id], tint)
    return collections.OrderedDict(examples, x=images)

  if tint and spec.shape[-1] == 1:
    spec = dataclasses.replace(
      spec,
      shape=(*spec.shape[:-1], 3),
      scale=_for_three(spec.scale),
      offset=_for_three(spec.offset),
    )
  return dataclasses.replace(
    task,
    input_spec=spec,
    clients=tuple(
      type(client)(*(changed(part, i) for part in client))
      for i, client in enumerate(clients)
    ),
  )


def rotated(images: np.ndarray, angle: float) -> np.ndarray:
  """Returns images rotated about their centre, of the same size and dtype.

  Pixels are interpolated bilinearly; beyond the edge, the edge goes on.

  Args:
    images: `[n, height, width, channels]`.
    angle: In degrees, counterclockwise.
  """
  turned = ndimage.rotate(
    images.astype(np.float32),
    angle,
    axes=(2, 1),
    reshape=False,
    order=1,
    mode='nearest',
  )
  return _as(turned, images.dtype)


def tinted(images: np.ndarray, hue: float, strength: float) -> np.ndarray:
  """Returns images in three channels: x * (1 - strength + strength * colour).

  Args:
    images: `[n, height, width, channels]` of one channel, which is repeated, or
      three.
    hue: Hue of the colour, which has full saturation, in [0, 1].
    strength: In [0, 1].
  """
  colour = np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0), np.float32)
  factors = (1.0 - strength + strength * colour).astype(np.float32)
  return _as(images.astype(np.float32) * factors, images.dtype)


def _as(values: np.ndarray, dtype: Any) -> np.ndarray:
  if np.issubdtype(dtype, np.integer):
    values = np.rint(values)
  return values.astype(dtype)


def _for_three(value: Any) -> Any:
  """Returns the scale or offset of one channel for three."""
  return tuple(value) * 3 if isinstance(value, tuple) else value
