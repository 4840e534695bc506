"""A tree `class/image.png`."""

import os
from typing import Optional

import numpy as np

from tff_fedsa.data import image_files
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders


def read(
  path: str, *, image_size: int = 32, cache_dir: Optional[str] = None
) -> sources.Source:
  """Reads a tree `class/image.png`, classes and files in sorted order.

  Args:
    path: A folder with one folder per class.
    image_size: See `image_files.read`.
    cache_dir: See `image_files.read`.

  Raises:
    FileNotFoundError: If there is no such folder.
    ValueError: If it holds fewer than two classes, a class has no image, or a
      file is not a readable image.
  """
  folders.check_is_folder(path)
  class_names = folders.subfolders(path, 'class')
  files, labels = [], []
  for label, class_name in enumerate(class_names):
    of_class = folders.image_files(os.path.join(path, class_name))
    files += of_class
    labels += [label] * len(of_class)
  return sources.Source(
    name=os.path.basename(os.path.normpath(path)),
    images=image_files.read(files, image_size, cache_dir=cache_dir),
    labels=np.array(labels, np.int32),
    class_names=tuple(class_names),
  )
