"""Lists files and folders for readers, with notices of ignored files."""

import collections
import os

from tff_fedsa.runs import errors

# Formats that every build of Pillow reads.
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

# Files of systems and archives. Names with a leading dot are ignored, too.
_LEFTOVERS = frozenset(
  ('__macosx', 'thumbs.db', 'desktop.ini', 'icon\r', '@eadir', '$recycle.bin')
)


class LeftOut:
  """Counts the files that a reader ignores."""

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
    """Counts a file in a class folder without the ending of an image."""
    ending = os.path.splitext(path)[1].lower() or 'no ending'
    self._endings[ending] += 1
    self._examples.setdefault('file', path)

  def images(self, where: str, count: int, example: str) -> None:
    """Counts images that are not in a class folder.

    Args:
      where: End of the notice, e.g. 'in no class folder'.
      count: Number of images.
      example: The path of an image, or of the folder.
    """
    if count:
      self._images[where] += count
      self._examples.setdefault(where, example)

  def notices(self) -> tuple[str, ...]:
    """Returns a notice for each kind of ignored file."""
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
  """Returns the last part of a path as valid text."""
  name = os.path.basename(os.path.normpath(path))
  # Names that are not UTF-8 have surrogates.
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def entries(path: str) -> list[os.DirEntry]:
  """Returns the content of a folder, sorted, without files of systems."""
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
  """Returns the names of the visible folders in a folder, sorted.

  Args:
    path: Path of the folder.
    what: Meaning of each folder, for the message.
    least: Smallest legal number of folders.

  Raises:
    ValueError: If there are fewer folders.
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
    may_be_empty: Whether the folder may have no image.

  Raises:
    ValueError: If there is no image.
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
  """Returns the number of images in a folder and its subfolders."""
  return sum(
    num_images_within(entry.path) if entry.is_dir() else is_image(entry.name)
    for entry in entries(path)
    if not entry.is_symlink()
  )
