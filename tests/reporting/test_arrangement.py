"""Rows and columns of configurations that say their setting or do not."""

from tff_fedsa.reporting import arrangement


def test_a_setting_that_a_name_says_is_that_of_others_who_do_not():
  # FedSA ran with two values, so its names say them; Local ran with one.
  places = arrangement.places(
    [
      arrangement.Configuration('fedsa,alpha=0.1', 'fedsa', {'alpha': '0.1'}),
      arrangement.Configuration('fedsa,alpha=0.5', 'fedsa', {'alpha': '0.5'}),
      arrangement.Configuration('local', 'local', {'alpha': '0.1'}),
    ],
    ['alpha'],
  )
  assert [place.row for place in places] == ['fedsa', 'fedsa', 'local']
  assert [place.setting for place in places] == [
    ('alpha=0.1',),
    ('alpha=0.5',),
    ('alpha=0.1',),
  ]


def test_variants_of_a_method_are_rows_in_each_setting():
  places = arrangement.places(
    [
      arrangement.Configuration(
        f'alpha={alpha},{name}', 'fedsa', {'alpha': alpha}
      )
      for alpha in ('0.1', '0.5')
      for name in ('frozen', 'moving')
    ],
    ['alpha'],
  )
  assert [place.row for place in places] == ['frozen', 'moving'] * 2
  assert [place.setting for place in places] == [
    *[('alpha=0.1',)] * 2,
    *[('alpha=0.5',)] * 2,
  ]


def test_an_axis_may_name_sets_of_flags_of_the_measurement():
  sets = {
    'plain': {'client_rotation': '0'},
    'turned': {'client_rotation': '90'},
    'tinted': {'client_rotation': '0', 'client_tint': '0.8'},
  }
  rows = {
    'local': {'algorithm': 'local'},
    'frozen': {'algorithm': 'fedsa', 'anchor_decay': '1'},
    'fedsa': {'algorithm': 'fedsa'},
  }
  configurations = [
    arrangement.Configuration(
      f'{name},{row}', flags['algorithm'], {**flags, **given}
    )
    for name, given in sets.items()
    for row, flags in rows.items()
  ]
  places = arrangement.places(
    configurations, ('client_rotation', 'client_tint', 'alpha')
  )
  assert [place.row for place in places] == [*rows] * 3
  assert [place.setting for place in places] == [
    (name,) for name in sets for _ in rows
  ]
