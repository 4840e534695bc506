"""Outcomes of a round, worked out by hand."""

import collections

import numpy as np
import pytest

from tff_fedsa import settings
from tff_fedsa.field import field_config
from tff_fedsa.field import outcomes
from tff_fedsa.field import selection
from tff_fedsa.runs import errors


def _write(tmp_path, text):
  path = tmp_path / 'clients.csv'
  path.write_text(text)
  return str(path)


def _speeds(tmp_path, *speeds):
  rows = [f'{client},{speed}' for client, speed in enumerate(speeds)]
  return _write(tmp_path, '\n'.join(['client,examples_per_second', *rows]))


def _field(num_examples, *, sampling_seed=0, **options):
  arguments = {
    name: options.pop(name)
    for name in ('clients_per_round', 'num_epochs')
    if name in options
  }
  return outcomes.Field(
    field_config.FieldConfig(**options),
    num_examples,
    selection.build_select_fn(sampling_seed),
    **arguments,
  )


def test_by_default_all_return():
  outcome = _field([3, 4, 5]).outcome(1)
  assert outcome.sampled == outcome.returned == [0, 1, 2]
  assert outcome.num_examples == [3, 4, 5]
  assert not outcome.dropped and not outcome.late and not outcome.partial


def test_a_deadline_with_known_speeds(tmp_path):
  # 2 epochs over 10, 20, 30, 40 examples at 5, 5, 30, 5 examples per second
  # take 4, 8, 2 and 16 seconds.
  speeds = _speeds(tmp_path, 5, 5, 30, 5)
  examples = [10, 20, 30, 40]
  whole = _field(examples, num_epochs=2, device_speed=speeds).outcome(1)
  assert whole.returned == [0, 1, 2, 3] and whole.seconds == 16
  cut = _field(examples, num_epochs=2, device_speed=speeds, round_deadline=8)
  outcome = cut.outcome(1)
  assert outcome.returned == [0, 1, 2]
  assert outcome.late == [3]
  assert outcome.seconds == 8
  assert cut.seconds_before(4) == 24


def test_partial_work_is_what_fits_before_the_deadline(tmp_path):
  field = _field(
    [10, 20, 30, 40, 1],
    num_epochs=2,
    device_speed=_speeds(tmp_path, 5, 5, 30, 5, 0.1),
    round_deadline=6,
    partial_work=True,
  )
  outcome = field.outcome(3)
  # 20 x 6/8 and 40 x 6/16 examples. Client 4 cannot do its only one.
  assert outcome.returned == [0, 1, 2, 3]
  assert outcome.num_examples == [10, 15, 30, 15]
  assert outcome.partial == [1, 3]
  assert outcome.late == [4]
  assert outcome.seconds == 6
  data = [
    collections.OrderedDict(x=np.arange(n) + 100, y=np.arange(n))
    for n in (10, 20, 30, 40, 1)
  ]
  found = field.examples(outcome, lambda i: data[i])
  assert found[0] is data[0]
  assert [len(e['y']) for e in found] == outcome.num_examples
  assert isinstance(found[1], collections.OrderedDict)
  assert len(set(found[1]['y'])) == 15
  np.testing.assert_array_equal(found[1]['x'], found[1]['y'] + 100)
  # The same again, others in another round.
  again = field.examples(field.outcome(3), lambda i: data[i])
  np.testing.assert_array_equal(again[3]['y'], found[3]['y'])
  other = field.examples(field.outcome(4), lambda i: data[i])
  assert set(other[3]['y']) != set(found[3]['y'])


def test_over_selection_counts_the_first_that_return(tmp_path):
  field = _field(
    [10] * 6,
    clients_per_round=3,
    over_selection=1.6,  # 4.8 clients.
    device_speed=_speeds(tmp_path, 6, 5, 4, 3, 2, 1),
  )
  for round_num in range(1, 20):
    outcome = field.outcome(round_num)
    assert len(outcome.sampled) == 5
    assert outcome.returned == outcome.sampled[:3]
    assert outcome.late == outcome.sampled[3:]
    assert outcome.seconds == 10 / (6 - outcome.returned[-1])


def test_over_selection_does_not_round_up_twice():
  field = _field([1] * 20, clients_per_round=10, over_selection=1.1)
  assert len(field.outcome(1).sampled) == 11


def test_over_selection_makes_up_for_those_that_drop_out():
  field = _field(
    [10] * 40, clients_per_round=10, over_selection=2.0, dropout=0.3
  )
  for round_num in range(1, 30):
    outcome = field.outcome(round_num)
    assert len(outcome.sampled) == 20
    assert len(outcome.returned) == min(10, 20 - len(outcome.dropped))
    groups = (*outcome.returned, *outcome.dropped, *outcome.late)
    assert sorted(groups) == outcome.sampled


def test_without_enough_clients_the_server_waits_until_the_deadline():
  options = {'dropout': 0.5, 'device_speed': 'constant'}
  waiting = _field([100] * 10, round_deadline=7.0, **options).outcome(1)
  assert waiting.dropped and waiting.seconds == 7.0
  # 100 examples at 100 per second.
  assert _field([100] * 10, **options).outcome(1).seconds == 1.0


def test_dropouts_are_as_many_as_said_and_follow_from_seed_round_and_client():
  field = _field([1] * 100, dropout=0.3)
  dropped = [field.outcome(r).dropped for r in range(1, 101)]
  # 3000 expected, standard deviation 46.
  assert abs(sum(map(len, dropped)) - 3000) < 250
  assert dropped[0] == _field([1] * 100, dropout=0.3).outcome(1).dropped
  assert dropped[0] != dropped[1]
  assert (
    dropped[0]
    != _field([1] * 100, dropout=0.3, field_seed=1).outcome(1).dropped
  )
  # What happens to a client does not depend on the others.
  few = _field([1] * 100, dropout=0.3, clients_per_round=20, sampling_seed=5)
  for round_num in range(1, 20):
    outcome = few.outcome(round_num)
    expected = set(outcome.sampled) & set(dropped[round_num - 1])
    assert set(outcome.dropped) == expected


def test_nobody_may_be_there(tmp_path):
  path = _write(tmp_path, 'client,from,to\n1,2,3\n')
  outcome = _field([5, 5], availability=path, round_deadline=9.0).outcome(1)
  assert outcome.available == 0 and not outcome.sampled
  assert outcome.seconds == 0


def test_what_cannot_be_is_refused_at_once(tmp_path):
  with pytest.raises(errors.UserError, match=r'fastest one needs 2 .* is 1\.'):
    _field([200, 300], round_deadline=1.0)
  _field([200, 300], round_deadline=1.0, partial_work=True)
  _field([200, 300], round_deadline=1.0, device_speed_jitter=1.0)
  with pytest.raises(settings.SettingsError, match='all clients take part'):
    _field([1, 1], over_selection=1.5)
  with pytest.raises(ValueError, match=r'\[1, 2\], found 3'):
    _field([1, 1], clients_per_round=3)


@pytest.mark.parametrize(
  'options, match',
  [
    ({'partial_work': True}, 'partial_work would be ignored: there is no'),
    ({'rounds_per_day': 12}, 'availability is not diurnal'),
    ({'availability_mean': 0.2}, 'neither random nor diurnal'),
    ({'device_speed_spread': 0.2}, 'device_speed is not lognormal'),
    ({'field_seed': 1}, 'nothing is drawn at random'),
  ],
)
def test_settings_without_effect_are_refused(options, match):
  with pytest.raises(settings.SettingsError, match=match):
    _field([1, 1], **options)
