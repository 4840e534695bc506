"""Lists of files and folders, and notices of those left out, for readers."""

import collections
import os

from tff_fedsa.runs import errors

# Formats that Pillow reads everywhere.
IMAGE_ENDINGS = (
  '.bmp',
  '.gif',
  '.jfif',
  '.jp2',
  '.jpe',
  '.jpeg',
  '.jpg',
  '.pbm',
  '.pgm',
  '.png',
  '.pnm',
  '.ppm',
  '.tif',
  '.tiff',
  '.webp',
)

# Files of systems and archives, beside names that begin with a dot.
_LEFTOVERS = frozenset(
  ('__macosx', 'thumbs.db', 'desktop.ini', 'icon\r', '@eadir', '$recycle.bin')
)


class LeftOut:
  """Counts the files that a reader finds and leaves out."""

  def __init__(self, name: str):
    """Initializes `LeftOut`.

    Args:
      name: Name of the data set, for notices.
    """
    self._name = name
    self._endings: collections.Counter[str] = collections.Counter()
    self._examples: dict[str, str] = {}
    self._images: collections.Counter[str] = collections.Counter()

  def file(self, path: str) -> None:
    """Counts a file in a class folder that is no image by its ending."""
    ending = os.path.splitext(path)[1].lower() or 'no ending'
    self._endings[ending] += 1
    self._examples.setdefault('file', path)

  def images(self, where: str, count: int, example: str) -> None:
    """Counts images that are not in a class folder.

    Args:
      where: Ends the notice, e.g. 'in no class folder'.
      count: How many.
      example: The path of one, or of their folder.
    """
    if count:
      self._images[where] += count
      self._examples.setdefault(where, example)

  def notices(self) -> tuple[str, ...]:
    """Returns a notice for each kind of file that is left out."""
    found = []
    if self._endings:
      kinds = ', '.join(f'{n} of {e}' for e, n in sorted(self._endings.items()))
      found.append(
        f'{self._name}: left out {self._endings.total()} files that are no '
        f'images by their ending ({kinds}), e.g. {self._examples["file"]!r}. '
        f'Endings that are read: {" ".join(IMAGE_ENDINGS)}.'
      )
    for where, count in self._images.items():
      found.append(
        f'{self._name}: left out {count} images {where}, e.g. '
        f'{self._examples[where]!r}.'
      )
    return tuple(found)


def check_is_folder(path: str) -> None:
  """Raises `FileNotFoundError` if there is no folder at `path`."""
  if not os.path.isdir(path):
    raise FileNotFoundError(f'No folder at {path!r} (--data_dir).')


def name_of(path: str) -> str:
  """Returns the last part of a path as text that can be written anywhere."""
  name = os.path.basename(os.path.normpath(path))
  # A name that is not UTF-8 comes with surrogates.
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def entries(path: str) -> list[os.DirEntry]:
  """Returns a folder's content, sorted by name, without files of systems."""
  with os.scandir(path) as found:
    kept = [
      entry
      for entry in found
      if not entry.name.startswith('.') and entry.name.lower() not in _LEFTOVERS
    ]
  return sorted(kept, key=lambda entry: entry.name)


def is_image(name: str) -> bool:
  """Returns whether a file is an image by its ending."""
  return name.lower().endswith(IMAGE_ENDINGS)


def subfolders(path: str, what: str, *, least: int = 2) -> list[str]:
  """Returns the names of the folders in a folder, sorted, hidden ones left out.

  Args:
    path: Path of the folder.
    what: Meaning of each folder, for the message.
    least: How many there must be.

  Raises:
    ValueError: If there are fewer.
  """
  names = [entry.name for entry in entries(path) if entry.is_dir()]
  if len(names) < least:
    raise errors.UserError(
      f'{path!r}: expected one folder per {what}, at least {least}, found '
      f'{names}.'
    )
  return names


def image_files(
  path: str, left_out: LeftOut, *, may_be_empty: bool = False
) -> list[str]:
  """Returns the paths of the images in a folder, sorted.

  Args:
    path: Path of the folder.
    left_out: Counts other files, and images in folders within this one.
    may_be_empty: Whether there may be none.

  Raises:
    ValueError: If there is none.
  """
  files, inner = [], 0
  for entry in entries(path):
    if entry.is_dir():
      count = num_images_within(entry.path)
      left_out.images('in folders within class folders', count, entry.path)
      inner += count
    elif is_image(entry.name):
      files.append(entry.path)
    else:
      left_out.file(entry.path)
  if not files and not may_be_empty:
    where = f' but in folders within it ({inner})' if inner else ''
    raise errors.UserError(
      f'The folder {path!r} has no image{where} ({", ".join(IMAGE_ENDINGS)}). '
      'Remove it, or add some.'
    )
  return files


def num_images_within(path: str) -> int:
  """Returns how many images are anywhere within a folder."""
  return sum(
    num_images_within(entry.path) if entry.is_dir() else is_image(entry.name)
    for entry in entries(path)
    if not entry.is_symlink()
  )
