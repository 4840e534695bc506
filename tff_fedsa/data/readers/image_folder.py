"""A tree `class/image.png`, or one tree each for training and testing."""

import os
from typing import Optional

import numpy as np

from tff_fedsa.data import image_files
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.runs import errors

# Names of the folders of an original split.
_ROLES = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'test': 'test',
  'testing': 'test',
}


def read(
  path: str,
  *,
  image_size: int = image_files.IMAGE_SIZE,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> sources.Source:
  """Reads a tree `class/image.png`, classes and files in sorted order.

  Folders `train` and `test` (or `val`) with class folders are the original
  split. If all three exist, `val` joins the train set.

  Args:
    path: A folder with one folder per class, or with such folders in it.
    image_size: See `image_files.read`.
    cache_dir: See `image_files.read`.
    alpha_background: See `image_files.read`.

  Raises:
    FileNotFoundError: If there is no such folder.
    ValueError: If there are fewer than two classes, a class has no image, the
      test set has a class that the train set lacks, or a file is not a readable
      image.
  """
  folders.check_is_folder(path)
  name = folders.name_of(path)
  left_out = folders.LeftOut(name)
  loose = [e.path for e in folders.entries(path) if not e.is_dir()]
  loose = [file for file in loose if folders.is_image(file)]
  left_out.images('in no class folder', len(loose), next(iter(loose), ''))
  parts = _parts(path, left_out)
  train = parts.get('train', path)
  class_names = folders.subfolders(train, 'class')
  files, labels = _listed(train, class_names, left_out)
  num_train, notices = None, []
  if 'train' in parts:
    tests = [part for part in ('val', 'test') if part in parts]
    for part in tests:
      num_train = len(files)
      more = _listed(
        parts[part], class_names, left_out, may_be_empty=True, part=part
      )
      files, labels = files + more[0], labels + more[1]
    if num_train == len(files):
      raise errors.UserError(f'{parts[tests[-1]]!r} has no image.')
    notices.append(_split_notice(name, parts, tests))
  decoded = image_files.read(
    files, image_size, cache_dir=cache_dir, alpha_background=alpha_background
  )
  return sources.Source(
    name=name,
    images=decoded.images,
    labels=np.array(labels, np.int32),
    class_names=tuple(map(folders.name_of, class_names)),
    num_train=num_train,
    sorted_as='by class, then by file name',
    notices=(*notices, *left_out.notices(), *decoded.notices),
  )


def _parts(path: str, left_out: folders.LeftOut) -> dict[str, str]:
  """Returns the folders of an original split by role, if there is one."""
  parts: dict[str, str] = {}
  for entry in folders.entries(path):
    if entry.is_dir():
      role = _ROLES.get(entry.name.lower())
      if role is None or role in parts:
        return {}
      parts[role] = entry.path
  if 'train' not in parts or len(parts) == 1:
    return {}
  for role, part in list(parts.items()):
    if not folders.subfolders(part, 'class', least=0):
      if role == 'train':
        return {}
      # As in competitions.
      count = folders.num_images_within(part)
      left_out.images('without labels, in no class folder', count, part)
      del parts[role]
  return parts if len(parts) > 1 else {'train': parts['train']}


def _listed(
  path: str,
  class_names: list[str],
  left_out: folders.LeftOut,
  *,
  may_be_empty: bool = False,
  part: str = 'train',
) -> tuple[list[str], list[int]]:
  """Returns image files and their labels, by class, then by name."""
  unknown = sorted(
    set(folders.subfolders(path, 'class', least=0)) - set(class_names)
  )
  if unknown:
    raise errors.UserError(
      f'{path!r}: the {part} set has classes that the train set has not: '
      f'{unknown}. Rename or remove these folders.'
    )
  files, labels = [], []
  for label, class_name in enumerate(class_names):
    folder = os.path.join(path, class_name)
    if may_be_empty and not os.path.isdir(folder):
      continue
    of_class = folders.image_files(folder, left_out, may_be_empty=may_be_empty)
    files += of_class
    labels += [label] * len(of_class)
  return files, labels


def _split_notice(name: str, parts: dict[str, str], tests: list[str]) -> str:
  if not tests:
    return (
      f'{name}: only {os.path.basename(parts["train"])!r} has class folders; '
      'there is no original test set.'
    )
  train = repr(os.path.basename(parts['train']))
  if len(tests) == 2:
    train += f' with {os.path.basename(parts["val"])!r}'
  return (
    f'{name}: {train} is its original train set, '
    f'{os.path.basename(parts[tests[-1]])!r} its original test set. '
    '--test_set=original keeps them apart; split divides all examples anew.'
  )
