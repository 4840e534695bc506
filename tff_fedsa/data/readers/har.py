"""UCI HAR: smartphones at the waists of 30 people, windows of 128 steps.

Source: "A Public Domain Dataset for Human Activity Recognition Using
Smartphones" (Anguita et al., ESANN 2013).
"""

import hashlib
import os
from typing import Optional

import numpy as np

from tff_fedsa.data import array_cache
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.data.readers import number_files
from tff_fedsa.runs import errors

# The numbers 1 to 6 in the files of labels.
CLASS_NAMES = (
  'WALKING',
  'WALKING_UPSTAIRS',
  'WALKING_DOWNSTAIRS',
  'SITTING',
  'STANDING',
  'LAYING',
)
CHANNELS = tuple(
  f'{signal}_{axis}'
  for signal in ('body_acc', 'body_gyro', 'total_acc')
  for axis in 'xyz'
)
STEPS = 128
_SPLITS = ('train', 'test')


def read(path: str, *, cache_dir: Optional[str] = None) -> sources.Source:
  """Reads the inertial signals; each subject is a client.

  The original test set has the windows of 9 subjects, the train set those of
  the other 21. The windows overlap by half, as they are published.

  Args:
    path: The unpacked folder, with `train/` and `test/`.
    cache_dir: See `array_cache.load_or_build`.

  Returns:
    A source of float32[num_examples, 128, 9] and a client for each subject.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If a file holds other numbers; it is named.
  """
  folders.check_is_folder(path)
  files = {
    split: [
      number_files.required(path, split, *parts)
      for parts in (
        *(('Inertial Signals', f'{c}_{split}.txt') for c in CHANNELS),
        (f'y_{split}.txt',),
        (f'subject_{split}.txt',),
      )
    ]
    for split in _SPLITS
  }

  def build(allocate):
    parts = [_read_split(files[split]) for split in _SPLITS]
    sizes = [len(part[1]) for part in parts]
    allocate('sizes', (2,), np.int64)[:] = sizes
    shape = (sum(sizes), STEPS, len(CHANNELS))
    windows = allocate('windows', shape, np.float32)
    np.concatenate([part[0] for part in parts], out=windows)
    for name, index in (('labels', 1), ('subjects', 2)):
      allocate(name, shape[:1], np.int32)[:] = np.concatenate(
        [part[index] for part in parts]
      )

  where = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:8]
  arrays = array_cache.load_or_build(
    build,
    name=f'har-{where}',
    files=[file for split in _SPLITS for file in files[split]],
    cache_dir=cache_dir,
  )
  return sources.Source(
    name='har',
    images=arrays['windows'],
    labels=arrays['labels'],
    class_names=CLASS_NAMES,
    num_train=int(arrays['sizes'][0]),
    client_ids=np.array([f'subject {s:02d}' for s in arrays['subjects']]),
    sorted_as='as in its files, train before test',
  )


def _read_split(
  files: list[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns windows [n, steps, channels], labels from 0 on, and subjects."""
  *signals, of_labels, of_subjects = files
  labels = number_files.read(of_labels, 1)[:, 0].astype(np.int32) - 1
  bad = (labels < 0) | (labels >= len(CLASS_NAMES))
  if bad.any():
    raise errors.UserError(
      f'{of_labels!r}, line {bad.argmax() + 1}: expected an activity from 1 to '
      f'{len(CLASS_NAMES)}, found {labels[bad.argmax()] + 1}.'
    )
  subjects = number_files.read(of_subjects, 1)[:, 0].astype(np.int32)
  channels = [number_files.read(file, STEPS) for file in signals]
  for file, found in zip((of_subjects, *signals), (subjects, *channels)):
    if len(found) != len(labels):
      raise errors.UserError(
        f'{file!r}: expected {len(labels)} lines, as {of_labels!r} has, found '
        f'{len(found)}.'
      )
  return np.stack(channels, axis=-1), labels, subjects
