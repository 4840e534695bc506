"""Pretrained embeddings of words: text files of GloVe or word2vec."""

from collections.abc import Sequence
import os
import re

import numpy as np

from tff_fedsa.data import notices
from tff_fedsa.runs import errors

# Padding and unknown words, which no file has.
_NUM_SPECIAL = 2


def read(path: str, words: Sequence[str]) -> np.ndarray:
  """Reads the vectors of some words.

  A line is a word and its numbers, separated by spaces. A first line with two
  numbers only (word2vec: words and width) is skipped. Words of texts are in
  lower case, so a word takes the vector of its first line in lower case, or
  else of its first line in any case.

  Args:
    path: Path of the file.
    words: See `texts.encoded`: the first two are padding and unknown words.

  Returns:
    float32[len(words), width]. Rows of words that the file lacks are NaN.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no such text, or a vector of a word has another width;
      the line is named.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f'No file of embeddings at {path!r} (--embeddings_file).'
    )
  wanted = {word: i for i, word in enumerate(words) if i >= _NUM_SPECIAL}
  vectors: dict[int, np.ndarray] = {}
  exact: set[int] = set()
  width = 0
  try:
    with open(path, encoding='utf-8') as lines:
      for number, line in enumerate(lines, start=1):
        word, *numbers = line.rstrip().split(' ')
        if number == 1 and len(numbers) == 1:
          continue  # The header of word2vec.
        width = width or len(numbers)
        index = wanted.get(word, wanted.get(word.lower()))
        if index is None or index in exact:
          continue
        is_exact = word in wanted
        if index in vectors and not is_exact:
          continue
        vectors[index] = _vector(numbers, width, f'{path!r}, line {number}')
        if is_exact:
          exact.add(index)
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f'{path!r} is no text in UTF-8: {error}. Convert binary files of '
      'word2vec to text.'
    ) from error
  if not width:
    raise errors.UserError(
      f'{path!r}: expected lines of a word and its numbers, found none.'
    )
  table = np.full([len(words), width], np.nan, np.float32)
  for index, vector in vectors.items():
    table[index] = vector
  return table


def describe(table: np.ndarray, path: str) -> str:
  """Says which share of a vocabulary has a vector.

  Args:
    table: Result of `read`.
    path: Path of the file.
  """
  total = len(table) - _NUM_SPECIAL
  found = int(np.isfinite(table[:, 0]).sum())
  return (
    f'{found} of {total} words of the vocabulary ({found / max(total, 1):.0%}) '
    f'have an embedding of width {table.shape[1]} in {path!r}; the others '
    'start at random.'
  )


def of_texts(path: str, texts: Sequence[str]) -> np.ndarray:
  """Returns the mean vector of the words of each text.

  Words are runs of letters and digits, so `aquarium_fish` and `T-shirt/top` are
  two and three words. A word counts as often as it occurs. Words that the file
  lacks are left out, and a warning names them.

  Args:
    path: Path of a file, see `read`.
    texts: Names or descriptions of classes, one for each class.

  Returns:
    float32[len(texts), width].

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If the file is wrong (see `read`), or has no word of a class.
  """
  words_of = [re.findall(r'[^\W_]+', text.lower()) for text in texts]
  words = sorted(set().union(*words_of))
  table = read(path, ('',) * _NUM_SPECIAL + tuple(words))[_NUM_SPECIAL:]
  vector_of = {
    word: vector for word, vector in zip(words, table) if np.isfinite(vector[0])
  }
  known = [[word for word in own if word in vector_of] for own in words_of]
  without = [f'{i} ({texts[i]!r})' for i, own in enumerate(known) if not own]
  if without:
    raise errors.UserError(
      f'{path!r} has no word of these classes: {", ".join(without)}. Describe '
      'them in other words.'
    )
  if missing := [word for word in words if word not in vector_of]:
    notices.logged([f'{path!r} lacks these words: {", ".join(missing)}.'])
  return np.stack(
    [np.mean([vector_of[word] for word in own], axis=0) for own in known]
  )


def _vector(numbers: Sequence[str], width: int, where: str) -> np.ndarray:
  try:
    vector = np.array(numbers, np.float32)
  except ValueError as error:
    raise errors.UserError(f'{where}: expected numbers: {error}.') from error
  if len(vector) != width or not np.isfinite(vector).all():
    raise errors.UserError(
      f'{where}: expected {width} finite numbers, found {len(vector)} numbers.'
    )
  return vector
