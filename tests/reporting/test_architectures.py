"""Accuracy by architecture, of known numbers."""

import pandas
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import architectures
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs

# The last ones are those of per_client.csv.
_ACCURACIES = [0.1, 0.6, 0.5, 0.5]


@pytest.fixture
def groups(tmp_path):
  for seed, (large, small) in enumerate([((9, 8), (4, 2)), ((7, 8), (4, 4))]):
    path = tmp_path / 'fedsa' / f'seed_{seed}'
    made_up.write(path, _ACCURACIES, model_seed=str(seed))
    rows = [
      ('a', 10, count, received)
      for count, received in zip((*large, *small), (10, 10, 5, 5))
    ]
    frame = pandas.DataFrame(
      rows, columns=['architecture', 'num_examples', 'head', 'received_head']
    )
    frame.loc[2:, 'architecture'] = 'b'
    frame.loc[3, 'num_examples'] = 30
    frame.to_csv(path / 'per_client.csv', index_label='client')
  made_up.write(
    tmp_path / 'local' / 'seed_0', _ACCURACIES, algorithm='local', bytes_up=0
  )
  found = runs.find([str(tmp_path)], {})
  return groups_lib.group(found)


@pytest.fixture
def table(groups):
  return architectures.by_architecture(groups)[0]


def test_accuracies_count_examples_and_are_means_over_seeds(table):
  assert list(table) == [
    'method',
    architectures.ALL,
    'a',
    'b',
    'm',
    architectures.WORST,
    'kB per round',
  ]
  by_method = table.set_index('method')
  head = by_method.loc['FedSA']
  assert head['a'] == pytest.approx((17 / 20 + 15 / 20) / 2)
  assert head['b'] == pytest.approx((6 / 40 + 8 / 40) / 2)
  assert head[architectures.ALL] == pytest.approx((23 / 60 + 23 / 60) / 2)
  assert head[architectures.WORST] == pytest.approx((2 / 30 + 4 / 30) / 2)
  assert head[architectures.BYTES] == pytest.approx(1.0)
  received = by_method.loc['FedSA, as received']
  assert received['a'] == 1.0
  assert received[architectures.WORST] == pytest.approx(5 / 30)
  # A method without weights of others has one row.
  assert len(table) == 3


def test_deviations_stand_where_there_are_several_runs(groups, table):
  _, deviations = architectures.by_architecture(groups)
  cells = architectures.to_text(table, deviations)
  # 0.85 and 0.75; all received models are right; the other method has no 'a'.
  assert cells['a'].tolist() == ['80.0 ± 7.1', '100.0 ± 0.0', '–']
  assert ' ± ' not in cells[architectures.ALL].iloc[2]
  assert cells[architectures.BYTES].tolist() == ['1.0', '1.0', '0.4']


def test_text_and_picture(table):
  cells = architectures.to_text(table)
  assert cells['a'].tolist() == ['80.0', '100.0', '–']
  assert cells[architectures.BYTES].tolist() == ['1.0', '1.0', '0.4']
  figure = architectures.draw(table, 'title')
  (axes,) = figure.axes
  heights = [bar.get_height() for bar in axes.containers[0]]
  assert heights[0] == pytest.approx(23 / 60)
  labels = [text.get_text() for text in axes.get_legend().get_texts()]
  assert labels[0].startswith('FedSA (1.0 kB)')
