"""Makes absl flags from a class of settings, and settings from flags."""

from collections.abc import Iterable, Iterator
import contextlib
from typing import Any, Generic, TypeVar

from absl import flags

from tff_fedsa import settings
from tff_fedsa.runs import errors

flags.disclaim_key_flags()

_S = TypeVar('_S', bound=settings.Settings)


class SettingsFlags(Generic[_S]):
  """Defines the flags of a class of settings. `build()` returns settings.

  Names, defaults, bounds and help are those of the class (see
  `settings.fields_of`). Fields in backquotes become flags in the help.

  Attributes:
    cls: The class.
    names: Names of the flags, in the order of the fields.
  """

  def __init__(self, cls: type[_S]):
    self.cls = cls
    self._holders = {
      setting.flag: _define(cls, setting)
      for setting in settings.fields_of(cls)
      if setting.flag is not None
    }
    self.names = tuple(self._holders)

  def build(self) -> _S:
    """Returns the settings that the flags describe.

    Raises:
      flags.IllegalFlagValueError: If a value does not fit, or a flag was set
        that would be ignored.
    """
    with naming_flags(self.cls):
      values = {name: h.value for name, h in self._holders.items()}
      built = settings.from_flags(self.cls, values)
      built.refuse_ignored()
      return built

  def given(self) -> list[str]:
    """Returns the names of flags that differ from their default."""
    return [n for n, h in self._holders.items() if h.value != h.default]


def refuse(names: Iterable[str], because: str) -> None:
  """Refuses flags that are set but have no effect.

  Args:
    names: The flags; nothing happens if there are none.
    because: Completes the sentence "would be ignored: …".

  Raises:
    flags.IllegalFlagValueError: Naming the flags.
  """
  if names := list(names):
    raise flags.IllegalFlagValueError(
      f'{", ".join(f"--{name}" for name in names)} would be ignored: {because}.'
    )


@contextlib.contextmanager
def naming_flags(cls: type[settings.Settings]) -> Iterator[None]:
  """Replaces fields by flags in errors of settings within `with`.

  Args:
    cls: The class of the settings.

  Raises:
    flags.IllegalFlagValueError: In place of a `settings.SettingsError`.
  """
  try:
    yield
  except settings.SettingsError as error:
    raise flags.IllegalFlagValueError(
      settings.in_flags(cls, error.text)
    ) from error


class _NumberParser(flags.ArgumentParser):
  """Parses numbers within the bounds of a setting."""

  def __init__(self, setting: settings.Setting):
    super().__init__()
    self._setting = setting
    is_int = setting.type is int
    self._parser = flags.IntegerParser() if is_int else flags.FloatParser()
    kind = 'an integer' if is_int else 'a number'
    self.syntactic_help = f'{kind} {setting.range}'.strip()

  def parse(self, argument: Any) -> int | float:
    value = self._parser.parse(argument)
    if not self._setting.is_within(value):
      raise errors.UserError(f'expected {self.syntactic_help}')
    return value

  def flag_type(self) -> str:
    return self._parser.flag_type()


def _define(
  cls: type[settings.Settings], setting: settings.Setting
) -> flags.FlagHolder:
  name, default = setting.flag, setting.default
  assert name is not None
  text = settings.in_flags(cls, setting.help)
  if setting.type is bool:
    return flags.DEFINE_boolean(name, default, text)
  if setting.type in (int, float):
    return flags.DEFINE(
      _NumberParser(setting),
      name,
      default,
      text,
      serializer=flags.ArgumentSerializer(),
    )
  if setting.type in (tuple, dict):
    assert not default, 'Lists are empty by default.'
    return flags.DEFINE_list(name, [], text)
  if setting.choices is not None and not callable(setting.choices):
    return flags.DEFINE_enum(name, default, list(setting.choices), text)
  return flags.DEFINE_string(name, default, text)
