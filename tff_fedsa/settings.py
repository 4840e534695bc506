"""Settings: frozen dataclasses with bounds, from which flags follow.

A class of settings is a frozen dataclass with bounds in its annotations:

  weight: Annotated[float, settings.AtLeast(0.0)] = 1.0
  order: Annotated[str, settings.OneOf(('up', 'down'))] = 'up'

The `Attributes:` section of its docstring gives the meaning, unit and source of
each field (see `algorithms.fedtgp.FedTGPConfig`). Creating an object checks its
values. `fields_of` describes the fields. Command-line flags (`--my_weight`),
their help and their bounds follow from it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import functools
import inspect
import math
import numbers
import re
import types
import typing
from typing import Any, ClassVar, Optional, TypeVar

from tff_fedsa.runs import errors

_S = TypeVar('_S', bound='Settings')
_Type = type


class SettingsError(errors.UserError):
  """A value does not fit. The text has names of fields in backquotes.

  `str` removes the backquotes. `in_flags` replaces the fields by flags.
  """

  @property
  def text(self) -> str:
    """The text with backquotes."""
    return self.args[0]

  def __str__(self) -> str:
    return self.text.replace('`', '')


@dataclasses.dataclass(frozen=True)
class AtLeast:
  """The value is a finite number of `bound` or more."""

  bound: float


@dataclasses.dataclass(frozen=True)
class Above:
  """The value is a finite number larger than `bound`."""

  bound: float


@dataclasses.dataclass(frozen=True)
class AtMost:
  """The value is a finite number of `bound` or less."""

  bound: float


@dataclasses.dataclass(frozen=True)
class Below:
  """The value is a finite number smaller than `bound`."""

  bound: float


@dataclasses.dataclass(frozen=True)
class OneOf:
  """The value is one of these names.

  Attributes:
    names: The names, or a function that returns them when a value is checked.
  """

  names: Sequence[str] | Callable[[], Collection[str]]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """The value is a mapping, on the command line a list of `key:value`.

  Attributes:
    separator: Text between a key and its value.
    example: Example of one item of the list.
  """

  separator: str
  example: str


@dataclasses.dataclass(frozen=True)
class Flag:
  """The field has a flag of another name, or no flag (None)."""

  name: Optional[str]


@dataclasses.dataclass(frozen=True)
class Lists:
  """The help lists some names, which the class itself checks.

  Attributes:
    title: Name of the list.
    names: Returns the names.
  """

  title: str
  names: Callable[[], Collection[str]]


@dataclasses.dataclass(frozen=True)
class Free:
  """The value may change when a run resumes: it does not affect rounds."""


@dataclasses.dataclass(frozen=True)
class Setting:
  """One field of a class of settings.

  Attributes:
    name: Name of the field.
    flag: Name of its flag, None if it has none.
    type: bool, int, float, str, tuple (of strings) or dict.
    optional: True if the value may be None.
    default: Default value.
    text: The text of the docstring, in one line.
    bounds: `AtLeast`, `Above`, `AtMost` and `Below` of the value.
    choices: Names that the value may take, or a function that returns them.
      None if the value is not a name.
    pairs: Syntax of a dict on the command line, else None.
    item_type: Type of a dict's values, else None.
    free: True if the value may change when a run resumes.
    lists: Names that the help lists.
  """

  name: str
  flag: Optional[str]
  type: _Type
  optional: bool
  default: Any
  text: str
  bounds: tuple[AtLeast | Above | AtMost | Below, ...] = ()
  choices: Optional[Sequence[str] | Callable[[], Collection[str]]] = None
  pairs: Optional[Pairs] = None
  item_type: Optional[_Type] = None
  free: bool = False
  lists: tuple[Lists, ...] = ()

  @property
  def help(self) -> str:
    """The text of the docstring, with lists of known names."""
    listed = [
      f' {known.title}: {", ".join(known.names())}.' for known in self.lists
    ]
    return self.text + ''.join(listed)

  @property
  def lower(self) -> Optional[float]:
    """The lower bound (inclusive or not), None if there is none."""
    return next(
      (b.bound for b in self.bounds if isinstance(b, AtLeast | Above)), None
    )

  @property
  def upper(self) -> Optional[float]:
    """The upper bound (inclusive or not), None if there is none."""
    return next(
      (b.bound for b in self.bounds if isinstance(b, AtMost | Below)), None
    )

  @property
  def range(self) -> str:
    """The bounds as text, e.g. `>= 1` or `in (0, 1]`; '' without bounds."""
    lower, upper = self.lower, self.upper
    opening = '(' if any(isinstance(b, Above) for b in self.bounds) else '['
    closing = ')' if any(isinstance(b, Below) for b in self.bounds) else ']'
    if lower is not None and upper is not None:
      return f'in {opening}{lower:.10g}, {upper:.10g}{closing}'
    if lower is not None:
      return f'{">" if opening == "(" else ">="} {lower:.10g}'
    if upper is not None:
      return f'{"<" if closing == ")" else "<="} {upper:.10g}'
    return ''

  def is_within(self, value: float) -> bool:
    """Returns whether a number is finite and within the bounds."""
    if not math.isfinite(value):
      return False
    tests = {
      AtLeast: lambda bound: value >= bound,
      Above: lambda bound: value > bound,
      AtMost: lambda bound: value <= bound,
      Below: lambda bound: value < bound,
    }
    return all(tests[type(b)](b.bound) for b in self.bounds)

  def check(self, value: Any) -> None:
    """Checks a value.

    Raises:
      TypeError: If the value is of another type.
      ValueError: If it is out of range or an unknown name.
    """
    if value is None and self.optional:
      return
    expected = {
      bool: (bool,),
      int: (numbers.Integral,),
      float: (numbers.Real,),
      tuple: (tuple, list),
      dict: (Mapping,),
    }.get(self.type, (self.type,))
    is_bool = type(value).__name__ in ('bool', 'bool_')
    if self.type is bool and is_bool:
      return
    if not isinstance(value, expected) or is_bool:
      raise TypeError(
        f'Expected {self.name} to be of type {self.type.__name__}, found '
        f'{value!r}.'
      )
    if isinstance(value, numbers.Real) and not self.is_within(float(value)):
      raise SettingsError(
        f'Expected `{self.name}` {self.range or "to be finite"}, found {value}.'
      )
    if self.choices is not None:
      known = self.choices() if callable(self.choices) else self.choices
      if value not in known:
        raise SettingsError(
          f'Unknown `{self.name}` {value!r}; known: {", ".join(known)}.'
        )


@dataclasses.dataclass(frozen=True)
class Settings:
  """Base class of settings. Creating an object checks all fields."""

  flag_prefix: ClassVar[str] = ''

  def __post_init__(self):
    for setting in fields_of(type(self)):
      value = getattr(self, setting.name)
      setting.check(value)
      if isinstance(value, list):
        object.__setattr__(self, setting.name, tuple(value))

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless.

    Subclasses override this method.

    Returns:
      Field -> reason, which completes the sentence "would be ignored: …". Names
      of fields stand in backquotes (see `in_flags`).
    """
    return {}

  def ignored(self, given: Optional[Collection[str]] = None) -> dict[str, str]:
    """Returns the fields that are set but have no effect.

    A field with its default value counts as not set.

    Args:
      given: The fields to check. Default: all.

    Returns:
      Field -> reason, as in `without_effect`.
    """
    return {
      setting.name: reason
      for setting in fields_of(type(self))
      if (reason := self.without_effect().get(setting.name)) is not None
      and (given is None or setting.name in given)
      and getattr(self, setting.name) != setting.default
    }

  def refuse_ignored(self) -> None:
    """Refuses values that have no effect.

    Raises:
      SettingsError: If there are such values. The message names fields and
        reasons.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in self.ignored().items():
      by_reason.setdefault(reason, []).append(f'`{name}`')
    if by_reason:
      raise SettingsError(
        ' '.join(
          f'{", ".join(names)} would be ignored: {reason}.'
          for reason, names in by_reason.items()
        )
      )


def fields_of(cls: type[Settings]) -> tuple[Setting, ...]:
  """Returns the fields of a class of settings, in order.

  Raises:
    TypeError: If a field has an unknown type, no default, or no text in the
      docstring.
  """
  key: Any = cls  # Otherwise mypy does not accept the class as hashable.
  return _fields_of(key)


@functools.cache
def _fields_of(cls: Any) -> tuple[Setting, ...]:
  hints = typing.get_type_hints(cls, include_extras=True)
  texts: dict[str, str] = {}
  for base in reversed(cls.__mro__):
    texts.update(attribute_texts(base.__dict__.get('__doc__') or ''))
  return tuple(
    _setting(cls, field, hints[field.name], texts)
    for field in dataclasses.fields(cls)
  )


def attribute_texts(docstring: str) -> dict[str, str]:
  """Returns the `Attributes:` section of a docstring: name -> text."""
  lines = inspect.cleandoc(docstring).splitlines()
  if 'Attributes:' not in lines:
    return {}
  texts: dict[str, str] = {}
  name = ''
  for line in lines[lines.index('Attributes:') + 1 :]:
    if line and not line.startswith('  '):
      break
    match = re.match(r'  (\w+): (.*)', line)
    if match:
      name = match[1]
      texts[name] = match[2]
    elif line.strip():
      texts[name] += f' {line.strip()}'
  return texts


def from_flags(cls: type[_S], values: Mapping[str, Any]) -> _S:
  """Returns settings with the values of flags. Other fields have defaults.

  Args:
    cls: The class.
    values: Flag -> value, as absl parses it. Flags of other classes are
      allowed.

  Raises:
    SettingsError: If a value is malformed, unknown or out of range.
  """
  return cls(
    **{
      setting.name: _from_flag(setting, values[setting.flag])
      for setting in fields_of(cls)
      if setting.flag is not None and setting.flag in values
    }
  )


def to_flags(obj: Settings) -> dict[str, Any]:
  """Returns the values of settings by flag, the inverse of `from_flags`."""
  return {
    setting.flag: _to_flag(setting, getattr(obj, setting.name))
    for setting in fields_of(type(obj))
    if setting.flag is not None
  }


def with_flags(obj: _S, values: Mapping[str, Any]) -> _S:
  """Returns settings with some values changed.

  Args:
    obj: The settings.
    values: Flag -> value, as absl parses it or as the field takes it.

  Raises:
    SettingsError: If a value is malformed, unknown or out of range.
  """
  return dataclasses.replace(
    obj,
    **{
      setting.name: _from_flag(setting, values[setting.flag])
      for setting in fields_of(type(obj))
      if setting.flag is not None and setting.flag in values
    },
  )


def parse(setting: Setting, text: str) -> Any:
  """Parses the value of a flag from text.

  Raises:
    SettingsError: If the text is not a value of the flag.
  """
  if setting.type in (tuple, dict):
    return text.split(',') if text else []
  if setting.type is bool:
    known = {'true': True, '1': True, 'false': False, '0': False}
    if text.lower() in known:
      return known[text.lower()]
  else:
    try:
      return setting.type(text)
    except ValueError:
      pass
  raise SettingsError(
    f'Expected `{setting.name}` to be of type {setting.type.__name__}, found '
    f'{text!r}.'
  )


def in_flags(cls: type[Settings], text: str) -> str:
  """Returns a text with `field` in backquotes replaced by its --flag."""
  flags = {s.name: s.flag for s in fields_of(cls) if s.flag is not None}
  return re.sub(
    r'`(\w+)`',
    lambda match: f'--{flags[match[1]]}' if match[1] in flags else match[1],
    text,
  )


def _setting(cls, field, hint, texts):
  markers = []
  if typing.get_origin(hint) is typing.Annotated:
    hint, *markers = typing.get_args(hint)
  hint, optional = _without_none(hint)
  origin = typing.get_origin(hint)
  of_dict = origin is not None and issubclass(origin, Mapping)
  kind = dict if of_dict else tuple if origin is tuple else hint
  if kind not in (bool, int, float, str, tuple, dict):
    raise TypeError(f'{cls.__name__}.{field.name}: unknown type {hint}.')
  if field.default_factory is not dataclasses.MISSING:
    default = field.default_factory()
  else:
    default = field.default
  if default is dataclasses.MISSING:
    raise TypeError(f'{cls.__name__}.{field.name} has no default.')
  if field.name not in texts:
    raise TypeError(f'{cls.__name__}.{field.name} is not in the docstring.')
  flag = cls.flag_prefix + field.name.rstrip('_')
  choices = pairs = None
  free = False
  bounds, lists = [], []
  for marker in markers:
    if isinstance(marker, Flag):
      flag = marker.name
    elif isinstance(marker, OneOf):
      choices = marker.names
    elif isinstance(marker, Pairs):
      pairs = marker
    elif isinstance(marker, Lists):
      lists.append(marker)
    elif isinstance(marker, Free):
      free = True
    else:
      bounds.append(marker)
  return Setting(
    name=field.name,
    flag=flag,
    type=kind,
    optional=optional,
    default=default,
    text=texts[field.name],
    bounds=tuple(bounds),
    choices=choices,
    pairs=pairs,
    item_type=typing.get_args(hint)[1] if of_dict else None,
    free=free,
    lists=tuple(lists),
  )


def _without_none(hint):
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    rest = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    if len(rest) == 1:
      return rest[0], True
  return hint, False


def _from_flag(setting, value):
  if setting.type is tuple:
    return tuple(value or ())
  if setting.type is not dict or value is None or isinstance(value, Mapping):
    return value
  if not value and setting.optional:
    return None
  result = {}
  for item in value:
    # Names may contain the separator. Numbers and files rarely do.
    cut = str.rpartition if setting.item_type is int else str.partition
    key, _, text = cut(item, setting.pairs.separator)
    try:
      if not (key and text):
        raise ValueError
      result[key] = setting.item_type(text)
    except ValueError:
      raise SettingsError(
        f'`{setting.name}`: expected {setting.pairs.example}, separated by '
        f'commas, found {",".join(value)!r}.'
      ) from None
  return result


def _to_flag(setting, value):
  if setting.type is tuple:
    return list(value)
  if setting.type is dict:
    return [
      f'{key}{setting.pairs.separator}{item}'
      for key, item in (value or {}).items()
    ]
  # 1 is accepted as 1.0, and NumPy's integers as Python's.
  return value if value is None else setting.type(value)
