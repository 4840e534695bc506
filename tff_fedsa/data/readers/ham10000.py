"""HAM10000: dermatoscopic images and a table of diagnoses."""

import csv
import os
from typing import Optional

import numpy as np

from tff_fedsa.data import image_files
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.runs import errors

# Values of the column `dx`, in the order of labels.
CLASS_NAMES = ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')
_TABLES = ('HAM10000_metadata.csv', 'HAM10000_metadata')


def read(
  path: str,
  *,
  image_size: int = 64,
  cache_dir: Optional[str] = None,
  alpha_background: str = 'white',
) -> sources.Source:
  """Reads HAM10000, in the order of its table.

  It has no test split. Several images may show one lesion. So a client's test
  image may show a lesion of its train images.

  Args:
    path: A folder with the table, and images in it or in its subfolders. Of
      duplicate images, one is used.
    image_size: See `image_files.read`; the original is 600 x 450.
    cache_dir: See `image_files.read`.
    alpha_background: See `image_files.read`.

  Raises:
    FileNotFoundError: If table or images are missing.
    ValueError: If the table names an unknown class, or a file is not a readable
      image.
  """
  folders.check_is_folder(path)
  table = next(
    (t for t in _TABLES if os.path.isfile(os.path.join(path, t))), None
  )
  if table is None:
    raise FileNotFoundError(f'No table {_TABLES[0]!r} in {path!r}.')
  table = os.path.join(path, table)
  file_of = _images_by_id(path)
  files, labels, missing = [], [], []
  with open(table, encoding='utf-8', newline='') as rows:
    reader = csv.DictReader(rows)
    if not {'image_id', 'dx'} <= set(reader.fieldnames or ()):
      raise errors.UserError(
        f'{table!r}: expected columns image_id and dx, found '
        f'{reader.fieldnames}.'
      )
    for row in reader:
      image_id, diagnosis = row['image_id'], row['dx']
      if diagnosis not in CLASS_NAMES:
        raise errors.UserError(
          f'{table!r}, line {reader.line_num}: unknown class {diagnosis!r} of '
          f'{image_id!r}; known: {", ".join(CLASS_NAMES)}.'
        )
      if image_id not in file_of:
        missing.append(image_id)
        continue
      files.append(file_of[image_id])
      labels.append(CLASS_NAMES.index(diagnosis))
  if missing or not files:
    raise FileNotFoundError(
      f'{len(missing)} images of {table!r} are not in {path!r}, e.g. '
      f'{missing[:3]}.'
    )
  decoded = image_files.read(
    files, image_size, cache_dir=cache_dir, alpha_background=alpha_background
  )
  left_out = folders.LeftOut('ham10000')
  others = sorted(set(file_of.values()) - set(files))
  left_out.images(
    'that the table does not name', len(others), ''.join(others[:1])
  )
  return sources.Source(
    name='ham10000',
    images=decoded.images,
    labels=np.array(labels, np.int32),
    class_names=CLASS_NAMES,
    sorted_as='as in its table',
    notices=(*left_out.notices(), *decoded.notices),
  )


def _images_by_id(path: str) -> dict[str, str]:
  found: dict[str, str] = {}
  inner = [entry.path for entry in folders.entries(path) if entry.is_dir()]
  for folder in [path, *inner]:
    for entry in folders.entries(folder):
      if folders.is_image(entry.name):
        found.setdefault(os.path.splitext(entry.name)[0], entry.path)
  return found
