"""Tiny-ImageNet-200 in its original layout."""

import csv
import os
from typing import Optional

import numpy as np

from tff_fedsa.data import image_files
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.runs import errors


def read(
  path: str,
  *,
  image_size: int = 64,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> sources.Source:
  """Reads Tiny-ImageNet-200 in its original layout.

  The validation images, grouped by their annotations, are the original test
  set. Images under `test` have no labels and are ignored. Classes are in the
  order of their WordNet ids.

  Args:
    path: The unpacked folder, with `train/<wnid>/images/*.JPEG`,
      `val/images/*.JPEG` and `val/val_annotations.txt`.
    image_size: See `image_files.read`; the original is 64.
    cache_dir: See `image_files.read`.
    alpha_background: See `image_files.read`.

  Raises:
    FileNotFoundError: If a part is missing.
    ValueError: If an annotation names an unknown class, an image has no
      annotation or the reverse, or a file is not a readable image.
  """
  train = os.path.join(path, 'train')
  folders.check_is_folder(train)
  left_out = folders.LeftOut('tiny_imagenet')
  class_names = folders.subfolders(train, 'class')
  files, labels = [], []
  for label, class_name in enumerate(class_names):
    of_class = folders.image_files(
      os.path.join(train, class_name, 'images'), left_out
    )
    files += of_class
    labels += [label] * len(of_class)
  num_train = len(files)
  for file, label in _validation(
    os.path.join(path, 'val'), class_names, left_out
  ):
    files.append(file)
    labels.append(label)
  decoded = image_files.read(
    files, image_size, cache_dir=cache_dir, alpha_background=alpha_background
  )
  return sources.Source(
    name='tiny_imagenet',
    images=decoded.images,
    labels=np.array(labels, np.int32),
    class_names=tuple(class_names),
    num_train=num_train,
    sorted_as='by class, then by file name',
    notices=(*left_out.notices(), *decoded.notices),
  )


def _validation(
  path: str, class_names: list[str], left_out: folders.LeftOut
) -> list[tuple[str, int]]:
  """Returns validation images and their labels, by class, then by name."""
  annotations = os.path.join(path, 'val_annotations.txt')
  if not os.path.isfile(annotations):
    raise FileNotFoundError(
      f'No annotations of the validation images at {annotations!r}.'
    )
  label_of = {name: label for label, name in enumerate(class_names)}
  folder = os.path.join(path, 'images')
  folders.check_is_folder(folder)
  missing = {
    os.path.basename(file) for file in folders.image_files(folder, left_out)
  }
  found = []
  with open(annotations, encoding='utf-8', newline='') as rows:
    for number, row in enumerate(csv.reader(rows, delimiter='\t'), 1):
      where = f'{annotations!r}, line {number}'
      if len(row) < 2:
        raise errors.UserError(
          f'{where}: expected an image, a tab and a WordNet id, found {row}.'
        )
      file, wnid = row[:2]
      if wnid not in label_of:
        raise errors.UserError(
          f'{where}: unknown class {wnid!r}, which has no folder in train.'
        )
      if file not in missing:
        raise errors.UserError(f'{where}: there is no (other) image {file!r}.')
      missing.remove(file)
      found.append((label_of[wnid], os.path.join(folder, file)))
  if missing:
    raise errors.UserError(
      f'{annotations!r} says nothing about {len(missing)} images, e.g. '
      f'{min(missing)!r}.'
    )
  return [(file, label) for label, file in sorted(found)]
