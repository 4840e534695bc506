"""Settings: their values are checked, and their flags follow from them."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Annotated, ClassVar, Optional

import pytest

from tff_fedsa import settings


@dataclasses.dataclass(frozen=True)
class _Config(settings.Settings):
  """Example.

  Attributes:
    rate: Learning rate, over
      two lines.
    share: Share of examples.
    steps: Steps; None is as many as `order` says.
    order: Which way.
    source: Where from.
    names: Some names.
    counts: How many of each.
    files: Where each is.
    lambda_: Weight of the term.
    exact: Whether it is exact.
    hidden: Without a flag.

  Not an attribute: this line.
  """

  flag_prefix: ClassVar[str] = 'my_'

  rate: Annotated[float, settings.AtLeast(0.0)] = 0.1
  share: Annotated[float, settings.Above(0.0), settings.AtMost(1.0)] = 0.5
  steps: Annotated[Optional[int], settings.AtLeast(1)] = None
  order: Annotated[str, settings.OneOf(('up', 'down'))] = 'up'
  source: Annotated[
    str, settings.OneOf(lambda: ['here', 'there']), settings.Flag('source')
  ] = 'here'
  names: Annotated[
    tuple[str, ...], settings.Lists('Known', lambda: ['a', 'b'])
  ] = ()
  counts: Annotated[
    Optional[Mapping[str, int]], settings.Pairs(':', 'name:count')
  ] = None
  files: Annotated[Mapping[str, str], settings.Pairs('=', 'NAME=FILE')] = (
    dataclasses.field(default_factory=dict)
  )
  lambda_: float = 1.0
  exact: bool = False
  hidden: Annotated[int, settings.Flag(None), settings.Free()] = 3

  def without_effect(self):
    return {'steps': 'the `order` is up'} if self.order == 'up' else {}


def _by_name():
  return {setting.name: setting for setting in settings.fields_of(_Config)}


def test_fields_are_described():
  fields = _by_name()
  assert list(fields) == [f.name for f in dataclasses.fields(_Config)]
  assert fields['rate'].help == 'Learning rate, over two lines.'
  assert fields['hidden'].help == 'Without a flag.'
  assert fields['names'].help == 'Some names. Known: a, b.'
  assert fields['rate'].type is float and fields['rate'].default == 0.1
  assert fields['steps'].type is int and fields['steps'].optional
  assert not fields['rate'].optional
  assert fields['names'].type is tuple and fields['counts'].type is dict
  assert (fields['counts'].item_type, fields['files'].item_type) == (int, str)
  assert fields['order'].choices == ('up', 'down')
  assert fields['hidden'].free and not fields['rate'].free
  assert (fields['share'].lower, fields['share'].upper) == (0.0, 1.0)
  assert fields['share'].range == 'in (0, 1]'
  assert fields['rate'].range == '>= 0' and fields['exact'].range == ''


def test_flags_have_the_prefix_or_a_name_of_their_own():
  flags = {name: setting.flag for name, setting in _by_name().items()}
  assert flags['rate'] == 'my_rate'
  assert flags['lambda_'] == 'my_lambda'
  assert flags['source'] == 'source'
  assert flags['hidden'] is None


@pytest.mark.parametrize(
  'values, error, message',
  [
    ({'rate': -1.0}, ValueError, '^Expected rate >= 0, found -1.0'),
    ({'rate': math.nan}, ValueError, r'>= 0, found nan'),
    ({'rate': math.inf}, ValueError, r'>= 0, found inf'),
    ({'lambda_': math.nan}, ValueError, 'to be finite, found nan'),
    ({'share': 0.0}, ValueError, r'in \(0, 1\], found 0.0'),
    ({'share': 1.5}, ValueError, r'in \(0, 1\], found 1.5'),
    ({'steps': 0}, ValueError, '>= 1, found 0'),
    ({'order': 'left'}, ValueError, "Unknown order .*'left'; known: up, down"),
    ({'source': 'x'}, ValueError, "Unknown source 'x'; known: here, there"),
    ({'steps': 1.5}, TypeError, 'steps .* type int, found 1.5'),
    ({'steps': True}, TypeError, 'steps .* type int, found True'),
    ({'exact': 1}, TypeError, 'exact .* type bool, found 1'),
    ({'rate': '1'}, TypeError, "rate .* type float, found '1'"),
    ({'rate': None}, TypeError, 'rate .* type float, found None'),
    ({'names': 'ab'}, TypeError, "names .* type tuple, found 'ab'"),
  ],
)
def test_values_are_checked(values, error, message):
  with pytest.raises(error, match=message):
    _Config(**values)


def test_integers_are_numbers_and_lists_become_tuples():
  config = _Config(rate=1, names=['a', 'b'], share=1)
  assert config.rate == 1.0 and config.names == ('a', 'b')


def test_flags_and_settings_say_the_same():
  config = _Config(
    rate=0.25,
    steps=4,
    order='down',
    names=('a', 'b'),
    counts={'x:y': 2, 'z': 3},
    files={'net': 'a=b.npz'},
    exact=True,
  )
  flags = settings.to_flags(config)
  assert flags['my_counts'] == ['x:y:2', 'z:3']
  assert flags['my_files'] == ['net=a=b.npz']
  assert flags['my_names'] == ['a', 'b']
  assert 'hidden' not in flags and 'my_hidden' not in flags
  assert settings.from_flags(_Config, {**flags, 'other': 1}) == config
  assert settings.from_flags(_Config, {}) == _Config()
  assert settings.from_flags(_Config, settings.to_flags(_Config())) == _Config()


@pytest.mark.parametrize('items', [['x'], ['x:'], [':2'], ['x:two']])
def test_malformed_pairs_are_refused(items):
  with pytest.raises(ValueError, match='counts: expected name:count, sep'):
    settings.from_flags(_Config, {'my_counts': items})


def test_values_without_effect_are_found():
  assert _Config().ignored() == {}
  assert _Config(steps=2, order='down').ignored() == {}
  config = _Config(steps=2)
  assert config.ignored() == {'steps': 'the `order` is up'}
  assert config.ignored({'rate'}) == {}
  with pytest.raises(ValueError, match='^steps would be ignored: the order is'):
    config.refuse_ignored()
  reason = settings.in_flags(_Config, config.ignored()['steps'])
  assert reason == 'the --my_order is up'


def test_errors_can_name_flags():
  with pytest.raises(settings.SettingsError) as caught:
    _Config(lambda_=math.inf)
  found = settings.in_flags(_Config, caught.value.text)
  assert found == 'Expected --my_lambda to be finite, found inf.'


def test_fields_are_documented_and_have_defaults():
  @dataclasses.dataclass(frozen=True)
  class Undocumented(settings.Settings):
    """Nothing."""

    rate: float = 1.0

  with pytest.raises(TypeError, match='Undocumented.rate is not in the docstr'):
    Undocumented()

  @dataclasses.dataclass(frozen=True)
  class Strange(settings.Settings):
    """Nothing.

    Attributes:
      rate: A rate.
    """

    rate: complex = 1j

  with pytest.raises(TypeError, match='Strange.rate: unknown type'):
    Strange()
