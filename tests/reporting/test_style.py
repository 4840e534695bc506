"""A method looks the same in every figure, and unlike every other one."""

from tff_fedsa.algorithms import registry
from tff_fedsa.reporting import arrangement
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import names
from tff_fedsa.reporting import style


def _groups(*named):
  return [groups_lib.Group(name, algorithm, []) for name, algorithm in named]


def test_methods_have_styles_of_their_own():
  styles = [style.of_method(name) for name in registry.NAMES]
  assert len({(one.color, one.marker) for one in styles}) == len(styles)
  # Each has a colour of its own, also after a coarse quantisation.
  quantised = [
    tuple(b >> 5 for b in bytes.fromhex(s.color[1:])) for s in styles
  ]
  assert (
    len(set(quantised)) == len({one.marker for one in styles}) == len(styles)
  )
  # Whichever methods are compared, and in whichever order.
  few = _groups(('local', 'local'), ('fedsa', 'fedsa'), ('mine', 'fedgh'))
  assert style.of_groups(few) == [
    style.of_method(name) for name in ('local', 'fedsa', 'fedgh')
  ]


def test_settings_of_a_method_differ_in_the_line():
  groups = _groups(
    *((f'{m},dim={d}', m) for d in (8, 16) for m in ('fedsa', 'local'))
  )
  styles = style.of_groups(groups)
  assert styles[0] == style.of_method('fedsa')
  assert styles[2] == style.of_method('fedsa', '--')
  assert styles[3] == style.of_method('local', '--')


def test_variants_of_one_method_have_other_colors_than_methods():
  methods = {style.of_method(name) for name in registry.NAMES}
  for count in (9, 40):
    variants = _groups(*((f'no_{i}', 'fedsa') for i in range(count)))
    groups = [*variants, *_groups(('local', 'local'), ('fedsa', 'fedsa'))]
    *styles, local, fedsa = style.of_groups(groups)
    assert (local, fedsa) == tuple(map(style.of_method, ('local', 'fedsa')))
    assert len(set(styles)) == len(styles)
    assert not methods & set(styles)
    assert not {local.color, fedsa.color} & {one.color for one in styles}
  # The values of one hyper-parameter are variants, too.
  values = _groups(
    ('fedsa,lambda_reg=1', 'fedsa'), ('fedsa,lambda_reg=2', 'fedsa')
  )
  first, second = style.of_groups(values)
  assert first.color != second.color


def test_a_variant_looks_the_same_in_each_setting():
  groups = [
    groups_lib.Group(
      f'alpha={alpha},{row}', 'fedsa', [], arrangement.Place(row, (alpha,))
    )
    for alpha in ('0.1', '0.5')
    for row in ('frozen', 'moving')
  ]
  styles = style.of_groups(groups)
  assert styles[:2] == styles[2:] and styles[0] != styles[1]


def test_titles_are_those_of_papers():
  assert names.title('lg_fedavg', 'lg_fedavg') == 'LG-FedAvg'
  assert names.title('fedsa,dim=8', 'fedsa') == 'FedSA, dim=8'
  assert names.title('no_anchors', 'fedsa') == 'no_anchors'
  assert names.title('x', 'a method of the past') == 'x'
  assert names.setting('fedsa,dim=8', 'fedsa') == ('dim=8',)
  assert names.setting('bare', 'fedsa') is None
