"""LEAF's Shakespeare: 80 letters of a role in a play, and the next one.

Source: "LEAF: A Benchmark for Federated Settings" (Caldas et al., 2018).
"""

import glob
import json
import os

import numpy as np

from tff_fedsa.data import sources
from tff_fedsa.data.readers import folders
from tff_fedsa.runs import errors

# LEAF's letters, in its order.
LETTERS = (
  '\n !"&\'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]'
  'abcdefghijklmnopqrstuvwxyz}'
)
# Tokens: padding, any other letter, and then LETTERS.
_UNKNOWN, _FIRST = 1, 2
_NAMES = {'\n': 'newline', ' ': 'space'}


def read(path: str) -> sources.Source:
  """Reads LEAF's `all_data`; each role is a client.

  Args:
    path: LEAF's folder `data/shakespeare/data`, which has `all_data/`, or a
      folder of its `.json` files.

  Returns:
    A source of tokens int32[num_examples, 80], and classes that are the next
    letters. Examples whose next letter is none of LEAF's are left out with a
    notice.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If a file is no JSON of LEAF's form; it is named.
  """
  folders.check_is_folder(path)
  inner = os.path.join(path, 'all_data')
  folder = inner if os.path.isdir(inner) else path
  files = sorted(glob.glob(os.path.join(glob.escape(folder), '*.json')))
  if not files:
    raise FileNotFoundError(f"No file 'all_data/*.json' in {path!r}.")
  inputs, following, roles = [], [], []
  for file in files:
    for role, said, letters in _roles(file):
      inputs += said
      following += letters
      roles.append((role, len(said)))
  lengths = {len(text) for text in inputs}
  if len(lengths) != 1:
    raise errors.UserError(
      f'{folder!r}: expected inputs of one length, found {sorted(lengths)}.'
    )
  tokens = _tokens(inputs).reshape(len(inputs), lengths.pop())
  labels = _tokens(following) - _FIRST
  known = labels >= 0
  notices: tuple[str, ...] = ()
  if not known.all():
    notices = (
      f'shakespeare: left out {np.sum(~known)} examples whose next letter is '
      f'none of the {len(LETTERS)} of LEAF.',
    )
  names, sizes = zip(*roles)
  return sources.Source(
    name='shakespeare',
    images=tokens[known],
    labels=labels[known],
    class_names=tuple(_NAMES.get(letter, letter) for letter in LETTERS),
    vocabulary_size=len(LETTERS) + _FIRST,
    client_ids=np.repeat(np.array(names, object), sizes)[known],
    sorted_as='as in its files, by role',
    notices=notices,
  )


def _tokens(texts: list[str]) -> np.ndarray:
  """Returns the tokens of all letters of texts, int32."""
  # One code of four bytes for each letter.
  codes = np.frombuffer(''.join(texts).encode('utf-32-le'), np.uint32)
  tokens = np.full(256, _UNKNOWN, np.int32)
  tokens[[ord(letter) for letter in LETTERS]] = _FIRST + np.arange(len(LETTERS))
  return tokens[np.minimum(codes, 255)]


def _roles(file: str) -> list[tuple[str, list[str], list[str]]]:
  """Returns name, inputs and next letters of each role in a file."""
  try:
    with open(file, encoding='utf-8') as stream:
      content = json.load(stream)
    found = [
      (str(role), list(own['x']), list(own['y']))
      for role, own in content['user_data'].items()
    ]
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(
      f'{file!r}: expected JSON of LEAF, {{"user_data": {{role: {{"x": […], '
      f'"y": […]}}}}}}, found: {type(error).__name__}: {error}'
    ) from error
  for role, said, letters in found:
    texts = all(isinstance(text, str) for text in (*said, *letters))
    if not texts or len(said) != len(letters) or {*map(len, letters)} - {1}:
      raise errors.UserError(
        f'{file!r}, {role!r}: expected texts x, and as many y of one letter '
        f'each, found {len(said)} and {len(letters)}.'
      )
  return [own for own in found if own[1]]
