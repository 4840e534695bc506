"""Sources: where inputs and labels come from, before any partition."""

from collections.abc import Callable, Collection, Mapping
import dataclasses
import operator
from typing import Any, Optional

import numpy as np

from tff_fedsa.data import input_spec
from tff_fedsa.data import inputs as inputs_lib
from tff_fedsa.data import labels as labels_lib
from tff_fedsa.data import packing
from tff_fedsa.data import ragged
from tff_fedsa.data import texts
from tff_fedsa.runs import errors


@dataclasses.dataclass(frozen=True)
class Source:
  """All examples of a data set, train first.

  Attributes:
    name: For messages and file names.
    images: The inputs `[num_examples, …]`, images or of any other kind, of a
      dtype of `input_spec.DTYPES`.
    labels: int32[num_examples], in `[0, num_classes)`.
    class_names: One per class.
    num_train: How many of the first examples are the original train set; the
      rest is the original test set. None where the data set has no such split.
    scale: Models see `images * scale + offset`; None is the default of their
      dtype, see `InputSpec`.
    offset: See `scale`.
    domains: int32[num_examples], in `[0, len(domain_names))`; where an example
      comes from. None where the data set has no domains.
    domain_names: One per domain.
    sorted_as: How the examples are sorted, in words.
    ids_fn: Reads text[num_examples], names of the examples that do not depend
      on their order; None where the data set has none.
    notices: What a user should know about these data. What the images give
      cause for is added.
    vocabulary_size: See `InputSpec`; by default what the integers need.
    client_ids: text[num_examples], whose example it is; None where examples are
      dealt out.
    words: Words behind tokens, see `texts.encoded`; empty of other inputs.
    packed: What rows of bytes hold, where inputs have several parts.
    text_parts: The parts whose tokens `words` are about, where inputs have
      several parts.
    masked: Whether inputs are masked series, see `ragged`.
    examined: Findings of a look at the images.

  Raises (when constructed):
    ValueError: If arrays do not fit, labels, domains or `num_train` are out of
      range, or inputs hold NaN or infinity; the first bad example is named.
    TypeError: For inputs or labels of another dtype.
  """

  name: str
  images: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  num_train: Optional[int] = None
  scale: Optional[float] = None
  offset: Optional[float] = None
  domains: Optional[np.ndarray] = None
  domain_names: tuple[str, ...] = ()
  sorted_as: str = 'as they are read'
  ids_fn: Optional[Callable[[], np.ndarray]] = None
  notices: tuple[str, ...] = ()
  vocabulary_size: Optional[int] = None
  client_ids: Optional[np.ndarray] = None
  words: tuple[str, ...] = ()
  packed: Optional[packing.PackedSpec] = None
  text_parts: tuple[str, ...] = ()
  masked: bool = False
  examined: inputs_lib.Examined = dataclasses.field(init=False)

  def __post_init__(self):
    examined = inputs_lib.examine(self.images, self.name, masked=self.masked)
    object.__setattr__(self, 'examined', examined)
    shape = self.images.shape[1:]
    found = inputs_lib.notices(examined, shape, self.name, masked=self.masked)
    # A source that is replaced by a changed one has them already.
    new = [notice for notice in found if notice not in self.notices]
    object.__setattr__(self, 'notices', (*self.notices, *new))
    labels = labels_lib.numbered(self.labels, self.num_classes, self.name)
    object.__setattr__(self, 'labels', labels)
    self._check_length('label', labels)
    object.__setattr__(self, 'num_train', self._checked_num_train())
    if self.client_ids is not None:
      self._check_length('client id', self.client_ids)
    if self.domains is not None:
      domains = labels_lib.numbered(
        self.domains, len(self.domain_names), self.name, kind='domain'
      )
      object.__setattr__(self, 'domains', domains)
      self._check_length('domain', domains)
    elif self.domain_names:
      raise errors.UserError(
        f'{self.name}: domain_names {self.domain_names} without domains.'
      )

  def _check_length(self, kind: str, found: np.ndarray) -> None:
    if len(found) != len(self.images):
      raise errors.UserError(
        f'{self.name}: expected one {kind} for each of {len(self.images)} '
        f'inputs, found {len(found)} {kind}s.'
      )

  def _checked_num_train(self) -> Optional[int]:
    given: Any = self.num_train
    if given is None:
      return None
    total = len(self.images)
    if isinstance(given, float | np.floating) and float(given).is_integer():
      given = int(given)
    try:
      number = -1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
      number = -1
    if not 0 < number < total:
      raise errors.UserError(
        f'{self.name}: expected num_train, how many of the {total} examples '
        f'are for training, to be a whole number in [1, {total - 1}], found '
        f'{self.num_train!r}.'
      )
    return number

  @property
  def order(self) -> str:
    """The data set and the order of its examples, in words."""
    return f'{self.name}, {self.sorted_as}'

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def input_spec(self) -> input_spec.InputSpec | packing.PackedSpec:
    """The input of a model, without resizing."""
    if self.packed is not None:
      return self.packed
    return input_spec.InputSpec(
      shape=self.images.shape[1:],
      dtype=self.images.dtype.name,
      scale=self.scale,
      offset=self.offset,
      vocabulary_size=inputs_lib.vocabulary_size(
        self.images.dtype, self.examined, self.vocabulary_size, self.name
      ),
      masked=self.masked,
    )


def from_arrays(
  images: Any,
  labels: np.ndarray,
  *,
  num_classes: Optional[int] = None,
  num_train: Optional[int] = None,
  name: str = 'arrays',
  scale: Optional[float] = None,
  offset: Optional[float] = None,
  vocabulary_size: Optional[int] = None,
  client_ids: Optional[Any] = None,
  sequence_length: int = texts.SEQUENCE_LENGTH,
  series_length: Optional[int] = None,
  sorted_as: str = 'as they are given',
) -> Source:
  """Makes a source of own arrays.

  Args:
    images: The inputs `[num_examples, …]` of any kind, see `inputs.stored`, or
      text[num_examples], or series or tokens of unequal length (a list or an
      array of objects), or a dict of several of these by name; all texts in it
      have one vocabulary.
    labels: Whole numbers or text[num_examples], see `labels.classes`.
    num_classes: By default as many as there are distinct labels.
    num_train: See `Source`.
    name: See `Source`.
    scale: See `Source`.
    offset: See `Source`.
    vocabulary_size: See `Source`.
    client_ids: See `Source`; numbers become text.
    sequence_length: See `texts.encoded` and `ragged.padded`.
    series_length: See `ragged.padded`; of series only.
    sorted_as: See `Source`.

  Raises:
    ValueError, TypeError: See `Source`.
  """
  words: tuple[str, ...] = ()
  text_parts: tuple[str, ...] = ()
  packed = None
  notices: list[str] = []
  if isinstance(images, Mapping):
    if scale is not None or offset is not None or vocabulary_size is not None:
      raise errors.UserError(
        f'{name}: inputs of several parts have no scale, offset or '
        'vocabulary_size in common.'
      )
    images, text_parts, words = _with_tokens(images, sequence_length, name)
    images, masked_parts = _padded_parts(
      images, name, series_length, sequence_length, notices
    )
    packed, images = _packed(images, masked_parts, name, notices)
  if texts.are_texts(images):
    images, words = texts.encoded(
      images, sequence_length=sequence_length, what=name
    )
  masked = False
  if packed is None:
    padded = ragged.padded(
      images,
      name,
      series_length=series_length,
      sequence_length=sequence_length,
    )
    if padded is not None:
      images, masked = padded.inputs, padded.masked
      notices.append(padded.notice)
  is_masked = masked or (packed is not None and bool(packed.masked))
  if series_length is not None and not is_masked:
    raise errors.UserError(
      f'{name}: series_length={series_length} would be ignored: there are no '
      'series [steps, channels] of floats.'
    )
  images = inputs_lib.stored(images, name)
  classes = labels_lib.classes(labels, name, num_classes=num_classes)
  return Source(
    name=name,
    images=images,
    labels=classes.labels,
    class_names=classes.names,
    num_train=num_train,
    scale=scale,
    offset=offset,
    vocabulary_size=vocabulary_size,
    client_ids=None if client_ids is None else np.asarray(client_ids, str),
    words=words,
    packed=packed,
    text_parts=text_parts,
    masked=masked,
    sorted_as=sorted_as,
    notices=(*notices, *classes.notices),
  )


def _with_tokens(
  parts: Mapping[str, Any], sequence_length: int, name: str
) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
  """Returns parts with tokens in place of texts, the parts of texts, words.

  Texts of all parts have one vocabulary. The tokens of each part are as long as
  its longest text.
  """
  found = {str(part): values for part, values in parts.items()}
  of_texts = [part for part, values in found.items() if texts.are_texts(values)]
  if not of_texts:
    return found, (), ()
  tokens, words = texts.encoded(
    [text for part in of_texts for text in found[part]],
    sequence_length=sequence_length,
    what=f'{name}, {", ".join(of_texts)}',
  )
  cuts = np.cumsum([len(found[part]) for part in of_texts])[:-1]
  for part, own in zip(of_texts, np.split(tokens, cuts)):
    longest = np.flatnonzero(own.any(axis=0))
    if not longest.size:
      raise errors.UserError(
        f'{name}, {part}: expected texts with words, found none.'
      )
    found[part] = own[:, : longest[-1] + 1]
  return found, tuple(of_texts), words


def _padded_parts(
  parts: Mapping[str, Any],
  name: str,
  series_length: Optional[int],
  sequence_length: int,
  notices: list[str],
) -> tuple[dict[str, Any], set[str]]:
  """Returns parts of one length each, and those that are masked series."""
  found, masked = dict(parts), set()
  for part, values in parts.items():
    padded = ragged.padded(
      values,
      f'{name}, {part}',
      series_length=series_length,
      sequence_length=sequence_length,
    )
    if padded is not None:
      found[part] = padded.inputs
      notices.append(padded.notice)
      if padded.masked:
        masked.add(part)
  return found, masked


def _packed(
  parts: Mapping[str, Any],
  masked_parts: Collection[str],
  name: str,
  notices: list[str],
) -> tuple[packing.PackedSpec, np.ndarray]:
  """Returns what parts of inputs are, and rows of them; adds to the notices."""
  arrays, specs = {}, []
  for part, values in parts.items():
    what = f'{name}, {part}'
    stored = inputs_lib.as_part(inputs_lib.stored(values, what))
    masked = part in masked_parts
    examined = inputs_lib.examine(stored, what, masked=masked)
    notices += inputs_lib.notices(
      examined, stored.shape[1:], what, masked=masked
    )
    spec = input_spec.InputSpec(
      shape=stored.shape[1:],
      dtype=stored.dtype.name,
      vocabulary_size=inputs_lib.vocabulary_size(
        stored.dtype, examined, None, what
      ),
      masked=masked,
    )
    arrays[part] = stored
    specs.append((part, spec))
  packed = packing.PackedSpec(tuple(specs))
  try:
    return packed, packed.pack(arrays)
  except errors.UserError as error:
    raise errors.UserError(f'{name}: {error}') from error
