"""A tree `domain/class/image.png`, e.g. Office-Caltech10 and Digits-5."""

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
  image_size: int = 32,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> sources.Source:
  """Reads a tree `domain/class/image.png`, all in sorted order.

  Args:
    path: A folder with one folder per domain, each with the same classes.
    image_size: See `image_files.read`.
    cache_dir: See `image_files.read`.
    alpha_background: See `image_files.read`.

  Raises:
    FileNotFoundError: If there is no such folder.
    ValueError: If there are fewer than two domains or classes, domains have
      different classes, a class has no image, or a file is not a readable
      image.
  """
  folders.check_is_folder(path)
  name = folders.name_of(path)
  left_out = folders.LeftOut(name)
  domain_names = folders.subfolders(path, 'domain')
  class_names: list[str] = []
  files, labels, domains = [], [], []
  for domain, domain_name in enumerate(domain_names):
    folder = os.path.join(path, domain_name)
    found = folders.subfolders(folder, 'class')
    class_names = class_names or found
    if found != class_names:
      differing = sorted(set(found) ^ set(class_names))
      raise errors.UserError(
        f'{path!r}: expected the same classes in each domain, but '
        f'{domain_names[0]!r} and {domain_name!r} differ in {differing}. '
        'Rename or remove these folders.'
      )
    for label, class_name in enumerate(class_names):
      of_class = folders.image_files(os.path.join(folder, class_name), left_out)
      files += of_class
      labels += [label] * len(of_class)
      domains += [domain] * len(of_class)
  decoded = image_files.read(
    files, image_size, cache_dir=cache_dir, alpha_background=alpha_background
  )
  return sources.Source(
    name=name,
    images=decoded.images,
    labels=np.array(labels, np.int32),
    class_names=tuple(map(folders.name_of, class_names)),
    domains=np.array(domains, np.int32),
    domain_names=tuple(map(folders.name_of, domain_names)),
    sorted_as='by domain, then by class, then by file name',
    notices=(*left_out.notices(), *decoded.notices),
  )
