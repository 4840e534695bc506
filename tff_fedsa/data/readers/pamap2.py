"""PAMAP2: sensors at hand, chest and ankle of 9 people, at 100 Hz.

Source: "Introducing a New Benchmarked Dataset for Activity Monitoring" (Reiss
and Stricker, ISWC 2012).
"""

import glob
import hashlib
import os
from typing import Optional

import numpy as np

from tff_fedsa.data import array_cache
from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.data.readers import number_files
from tff_fedsa.runs import errors

# Steps of a window by default: 2.56 s.
WINDOW_LENGTH = 256

# Activities of the protocol. 0 is the time between them.
ACTIVITIES = {
  1: 'lying',
  2: 'sitting',
  3: 'standing',
  4: 'walking',
  5: 'running',
  6: 'cycling',
  7: 'Nordic walking',
  12: 'ascending stairs',
  13: 'descending stairs',
  16: 'vacuum cleaning',
  17: 'ironing',
  24: 'rope jumping',
}

# A line: time, activity, heart rate, and 17 numbers for each of three sensors.
_NUM_COLUMNS = 54
# In the order of a sensor's numbers: acceleration (the scale of 16 g), angular
# velocity, magnetic field. Temperature, the scale of 6 g (it saturates) and
# orientation (invalid, say its authors) are left out.
COLUMNS = tuple(
  sensor + own for sensor in (3, 20, 37) for own in (1, 2, 3, *range(7, 13))
)


def read(
  path: str,
  *,
  window_length: int = WINDOW_LENGTH,
  cache_dir: Optional[str] = None,
) -> sources.Source:
  """Reads `Protocol/`; each subject is a client.

  Each run of one activity is cut into windows that do not overlap, so that no
  number is in a train and in a test example. What is left at its end, and the
  time between activities, is dropped. Missing numbers (packets that were lost)
  are interpolated over time, within a subject and a channel.

  Args:
    path: The unpacked folder, with `Protocol/subject101.dat` and so on.
    window_length: Steps of a window, 10 ms each.
    cache_dir: See `array_cache.load_or_build`.

  Returns:
    A source of float32[num_examples, window_length, 27] and a client for each
    subject.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If a file holds other numbers, or no window is left.
  """
  folders.check_is_folder(path)
  files = sorted(glob.glob(os.path.join(glob.escape(path), 'Protocol/*.dat')))
  if not files:
    raise FileNotFoundError(f"No file 'Protocol/subject101.dat' in {path!r}.")

  def build(allocate):
    parts = [_windows(file, window_length) for file in files]
    sizes = [len(labels) for _, labels, _ in parts]
    shape = (sum(sizes), window_length, len(COLUMNS))
    allocate('sizes', (len(sizes),), np.int64)[:] = sizes
    np.concatenate(
      [windows for windows, _, _ in parts],
      out=allocate('windows', shape, np.float32),
    )
    np.concatenate(
      [labels for _, labels, _ in parts],
      out=allocate('labels', shape[:1], np.int32),
    )
    allocate('missing', (), np.float64)[...] = np.mean(
      [missing for _, _, missing in parts]
    )

  where = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:8]
  arrays = array_cache.load_or_build(
    build,
    name=f'pamap2-{window_length}-{where}',
    files=files,
    cache_dir=cache_dir,
  )
  if not len(arrays['labels']):
    raise errors.UserError(
      f'{path!r}: no run of an activity has {window_length} steps '
      '(window_length).'
    )
  subjects = [os.path.splitext(os.path.basename(file))[0] for file in files]
  return sources.Source(
    name='pamap2',
    images=arrays['windows'],
    labels=arrays['labels'],
    class_names=tuple(ACTIVITIES.values()),
    client_ids=np.repeat(subjects, arrays['sizes']),
    sorted_as=f'windows of {window_length} steps, by subject and time',
    notices=(
      f'pamap2: {float(arrays["missing"]):.2%} of the numbers were missing, '
      'and were interpolated over time.',
    ),
  )


def _windows(
  file: str, window_length: int
) -> tuple[np.ndarray, np.ndarray, float]:
  """Returns windows, their labels, and the share of missing numbers."""
  table = number_files.read(file, _NUM_COLUMNS)
  activities = table[:, 1].astype(np.int32)
  for unknown in sorted({*activities.tolist()} - {0, *ACTIVITIES}):
    raise errors.UserError(
      f'{file!r}, line {(activities == unknown).argmax() + 1}: unknown '
      f'activity {unknown}; known: 0 and {[*ACTIVITIES]}.'
    )
  signals = table[:, COLUMNS]
  is_missing = np.isnan(signals)
  times = np.arange(len(signals))
  for channel in np.flatnonzero(is_missing.any(axis=0)):
    missing = is_missing[:, channel]
    if missing.all():
      raise errors.UserError(
        f'{file!r}: column {COLUMNS[channel] + 1} has no number at all.'
      )
    signals[missing, channel] = np.interp(
      times[missing], times[~missing], signals[~missing, channel]
    )
  numbers = {activity: label for label, activity in enumerate(ACTIVITIES)}
  windows, labels = [signals[:0].reshape(0, window_length, len(COLUMNS))], []
  cuts = np.flatnonzero(np.diff(activities)) + 1
  for run in np.split(times, cuts):
    count = len(run) // window_length
    activity = int(activities[run[0]])
    if activity and count:
      used = signals[run[: count * window_length]]
      windows.append(used.reshape(count, window_length, -1))
      labels += [numbers[activity]] * count
  return (
    np.concatenate(windows),
    np.array(labels, np.int32),
    float(is_missing.mean()),
  )
