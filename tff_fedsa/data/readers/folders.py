"""What readers of folders share: what is in a folder, and what is missing."""

import os

IMAGE_ENDINGS = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.webp')


def check_is_folder(path: str) -> None:
  """Raises `FileNotFoundError` if there is no folder at `path`."""
  if not os.path.isdir(path):
    raise FileNotFoundError(f'No folder at {path!r} (--data_dir).')


def subfolders(path: str, what: str) -> list[str]:
  """Returns the names of the folders in a folder, sorted, hidden ones left out.

  Args:
    path: Of the folder.
    what: What each of them stands for, for the message.

  Raises:
    ValueError: If there are fewer than two.
  """
  names = sorted(
    entry.name
    for entry in os.scandir(path)
    if entry.is_dir() and not entry.name.startswith('.')
  )
  if len(names) < 2:
    raise ValueError(
      f'{path!r}: expected one folder per {what}, at least two, found {names}.'
    )
  return names


def image_files(path: str) -> list[str]:
  """Returns the paths of the images in a folder, sorted.

  Raises:
    ValueError: If there is none.
  """
  files = sorted(
    os.path.join(path, file)
    for file in os.listdir(path)
    if file.lower().endswith(IMAGE_ENDINGS)
  )
  if not files:
    raise ValueError(
      f'The folder {path!r} has no image ({", ".join(IMAGE_ENDINGS)}). Remove '
      'it, or add some.'
    )
  return files
