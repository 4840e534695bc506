"""Figures over settings show the numbers of the tables."""

import numpy as np
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import comparison
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs
from tff_fedsa.reporting import setting_figures
from tff_fedsa.reporting import significance
from tff_fedsa.reporting import tables

_MEASURED = ('test_classes', 'num_clients')


@pytest.fixture
def groups(tmp_path):
  # Directories come as 20 < 5; methods gain more with fewer clients.
  for tested in ('own', 'all'):
    for clients in ('20', '5'):
      for name, gain in (('fedsa', 0.1), ('local', 0.0)):
        base = (0.5 if tested == 'own' else 0.3) + gain * 5 / int(clients)
        made_up.write_repeats(
          tmp_path,
          f'test_classes={tested},num_clients={clients},{name}',
          [base + gain * 0.1 * seed for seed in range(3)],
          algorithm=name,
          test_classes=tested,
          num_clients=clients,
        )
  found = runs.find(
    [str(tmp_path)], {**made_up.DEFAULTS, 'test_classes': 'own'}
  )
  return groups_lib.group(found, measurement=_MEASURED)


def test_differences_are_those_of_the_tests(groups):
  tested = significance.compare(tables.per_run(groups), 'local')
  figure = setting_figures.differences(groups, tested)
  assert [axes.get_title() for axes in figure.axes] == [
    'test_classes=all',
    'test_classes=own',
  ]
  for axes in figure.axes:
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ['num_clients=5', 'num_clients=20']
    (bars,) = axes.containers
    line, _, (segments,) = bars
    # 0.1 * 5 / clients, and 0, 0.01, 0.02 more: mean 0.01, deviation 0.01.
    np.testing.assert_allclose(line.get_ydata(), [11.0, 3.5], atol=1e-4)
    half = [np.ptp(s[:, 1]) / 2 for s in segments.get_segments()]
    # t(0.975, 2) = 4.3027.
    np.testing.assert_allclose(half, [4.3027 / np.sqrt(3)] * 2, rtol=1e-3)
  assert 'gain over Local' in figure.axes[0].get_ylabel()
  names = figure.axes[-1].get_legend().get_texts()
  assert [text.get_text() for text in names] == ['FedSA']


def test_own_classes_against_all_classes(groups):
  assert setting_figures.has_both_tests(groups)
  means = tables.over_seeds(groups, tables.per_run(groups))
  figure = setting_figures.own_against_all(groups, means)
  assert [axes.get_title() for axes in figure.axes] == [
    'num_clients=5',
    'num_clients=20',
  ]
  marks = [c.get_offsets()[0] for c in figure.axes[0].collections]
  np.testing.assert_allclose(marks, [[0.61, 0.41], [0.5, 0.3]], atol=1e-6)
  # A setting with one of the tests has no panel.
  some = [
    g
    for g in groups
    if g.place.setting != ('test_classes=own', 'num_clients=20')
  ]
  figure = setting_figures.own_against_all(some, means)
  assert [axes.get_title() for axes in figure.axes] == ['num_clients=5']
  only = [g for g in groups if 'test_classes=own' in g.place.setting]
  assert not setting_figures.has_both_tests(only)


def test_they_are_part_of_a_report(groups):
  drawn = comparison.Comparison(groups, 'local').figures()
  assert {'differences', 'own_against_all'} <= {*drawn}
