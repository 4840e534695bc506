"""Texts as tokens, and a vocabulary of the words that clients train on."""

import collections
from collections.abc import Iterable, Sequence
import os
from typing import Any

import numpy as np

from tff_fedsa.runs import errors

# The first tokens of every vocabulary, as in `tf.keras.layers`.
_SPECIAL = ('', '[UNK]')
_UNKNOWN = 1

# Defaults of settings: words of a vocabulary and of a text at most.
VOCABULARY_SIZE = 10_000
SEQUENCE_LENGTH = 128


def are_texts(inputs: Any) -> bool:
  """Returns whether inputs are an array or a sequence of texts."""
  if isinstance(inputs, list | tuple):
    return bool(inputs) and all(isinstance(text, str) for text in inputs)
  kind = getattr(getattr(inputs, 'dtype', None), 'kind', '')
  if kind == 'O':
    return len(inputs) > 0 and all(isinstance(text, str) for text in inputs)
  return kind == 'U'


def encoded(
  texts: Iterable[str], *, sequence_length: int, what: str
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns texts as tokens of all of their words.

  Words are those of `tf.keras.layers.TextVectorization`: in lower case, without
  punctuation, between white space.

  Args:
    texts: One for each example.
    sequence_length: Tokens of a text at most; the rest is cut off.
    what: Whose texts they are, for messages.

  Returns:
    int32[num_texts, length], 0 being padding, and the words: token i is
    words[i]. The length is that of the longest text, or `sequence_length`.

  Raises:
    ValueError: If no text has a word.
  """
  import tensorflow as tf  # Slow to import, and only needed here.

  layer = tf.keras.layers.TextVectorization(
    output_sequence_length=sequence_length
  )
  values = tf.constant([str(text) for text in texts])
  layer.adapt(values)
  words = tuple(layer.get_vocabulary())
  if len(words) <= len(_SPECIAL):
    raise errors.UserError(f'{what}: expected texts with words, found none.')
  tokens = layer(values).numpy().astype(np.int32)
  longest = np.flatnonzero(tokens.any(axis=0))[-1] + 1
  return tokens[:, :longest], words


def trained_words(
  tokens: np.ndarray,
  words: Sequence[str],
  train: Iterable[np.ndarray],
  vocabulary_size: int,
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns tokens of a vocabulary of the words in train examples.

  Args:
    tokens: int32[num_texts, length], see `encoded`.
    words: See `encoded`.
    train: Indices of each client's train examples.
    vocabulary_size: Words at most, padding and unknown ones among them: the
      most frequent ones. Other words become the token 1, '[UNK]'.

  Returns:
    As `encoded`.

  Raises:
    ValueError: If the size leaves no word.
  """
  if vocabulary_size <= len(_SPECIAL):
    raise errors.UserError(
      f'Expected vocabulary_size > {len(_SPECIAL)} (padding and unknown '
      f'words), found {vocabulary_size}.'
    )
  counts = np.zeros(len(words), np.int64)
  for own in train:
    counts += np.bincount(tokens[own].ravel(), minlength=len(words))
  counts[: len(_SPECIAL)] = 0
  # Stable: of equally frequent words the order is that of all texts.
  order = np.argsort(-counts, kind='stable')
  kept = order[counts[order] > 0][: vocabulary_size - len(_SPECIAL)]
  new = np.full(len(words), _UNKNOWN, np.int32)
  new[0] = 0
  new[kept] = np.arange(len(kept)) + len(_SPECIAL)
  return new[tokens], (*_SPECIAL, *(words[token] for token in kept))


def given_words(
  tokens: np.ndarray, words: Sequence[str], given: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns tokens of a vocabulary that is given.

  Args:
    tokens: int32[num_texts, length], see `encoded`.
    words: See `encoded`.
    given: Words of the vocabulary, see `read_words`. Other words become the
      token 1, '[UNK]'.

  Returns:
    As `encoded`.
  """
  places = {word: i for i, word in enumerate(given, start=len(_SPECIAL))}
  new = np.array([places.get(word, _UNKNOWN) for word in words], np.int32)
  new[0] = 0
  return new[tokens], (*_SPECIAL, *given)


def read_words(path: str) -> tuple[str, ...]:
  """Reads the words of a vocabulary, one on each line.

  `TextVectorization.get_vocabulary` begins with padding and '[UNK]', which may
  be there or not.

  Args:
    path: Path of the file.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is no text, has no word, or a word twice.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f'No file at {path!r} (--vocabulary_file).')
  try:
    with open(path, encoding='utf-8') as file:
      lines = [line.strip() for line in file]
  except UnicodeDecodeError as error:
    raise errors.UserError(f'{path!r} is no text in UTF-8: {error}.') from error
  found = [word for word in lines if word not in _SPECIAL]
  if not found or len(set(found)) < len(found):
    counts = collections.Counter(found)
    twice = [word for word, count in counts.items() if count > 1][:3]
    raise errors.UserError(
      f'{path!r}: expected one word on each line, each once, found '
      f'{len(found)} words{f", twice {twice}" if twice else ""}.'
    )
  return tuple(found)
