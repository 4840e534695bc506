"""AG News and Sogou News: a class, a title and a text in each line of CSV.

Source: "Character-level Convolutional Networks for Text Classification" (Zhang
et al., NeurIPS 2015).
"""

from collections.abc import Sequence
import csv

import numpy as np

from tff_fedsa.data import sources
from tff_fedsa.data import texts
from tff_fedsa.data.readers import folders
from tff_fedsa.data.readers import number_files
from tff_fedsa.runs import errors

# The numbers in the first column, from 1 on.
AG_NEWS = ('World', 'Sports', 'Business', 'Sci/Tech')
SOGOU_NEWS = ('sports', 'finance', 'entertainment', 'automobile', 'technology')
# Letters of a text; Python's own limit is 131 072.
_LONGEST = 2**24


def read_ag_news(
  path: str, *, sequence_length: int = texts.SEQUENCE_LENGTH
) -> sources.Source:
  """Reads AG News.

  Args:
    path: Folder of `train.csv` and `test.csv`.
    sequence_length: See `texts.encoded`.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If a line has another form; it is named.
  """
  # A backslash stands for the end of a line.
  return _read('ag_news', path, AG_NEWS, '\\', sequence_length)


def read_sogou_news(
  path: str, *, sequence_length: int = texts.SEQUENCE_LENGTH
) -> sources.Source:
  """Reads Sogou News, Chinese in Latin letters; see `read_ag_news`."""
  return _read('sogou_news', path, SOGOU_NEWS, '\\n', sequence_length)


def _read(
  name: str,
  path: str,
  class_names: Sequence[str],
  newline: str,
  sequence_length: int,
) -> sources.Source:
  folders.check_is_folder(path)
  files = [number_files.required(path, f) for f in ('train.csv', 'test.csv')]
  written, labels, sizes = [], [], []
  for file in files:
    said, numbers = _lines(file, len(class_names))
    sizes.append(len(said))
    written += [text.replace(newline, ' ') for text in said]
    labels.append(numbers)
  tokens, words = texts.encoded(
    written, sequence_length=sequence_length, what=name
  )
  return sources.Source(
    name=name,
    images=tokens,
    labels=np.concatenate(labels),
    class_names=tuple(class_names),
    num_train=sizes[0],
    words=words,
    sorted_as='as in its files, train before test',
  )


def _lines(file: str, num_classes: int) -> tuple[list[str], np.ndarray]:
  """Returns titles with texts, and labels from 0 on."""
  said, labels = [], []
  known = {str(number + 1): number for number in range(num_classes)}
  limit = csv.field_size_limit(_LONGEST)
  try:
    with open(file, encoding='utf-8', newline='') as stream:
      reader = csv.reader(stream)
      for row in reader:
        if len(row) != 3 or row[0] not in known:
          raise errors.UserError(
            f'{file!r}, line {reader.line_num}: expected a class from 1 to '
            f'{num_classes}, a title and a text, found {len(row)} parts: '
            f'{", ".join(row)[:60]!r}.'
          )
        labels.append(known[row[0]])
        said.append(f'{row[1]} {row[2]}')
  except (csv.Error, UnicodeDecodeError) as error:
    raise errors.UserError(f'{file!r} is no CSV in UTF-8: {error}') from error
  finally:
    csv.field_size_limit(limit)
  if not said:
    raise errors.UserError(f'{file!r}: expected lines, found none.')
  return said, np.array(labels, np.int32)
