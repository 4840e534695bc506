"""Numbers of a partition, by hand."""

import numpy as np

from tff_fedsa.data import partition
from tff_fedsa.reporting import partition_summary

_LABELS = np.array([0] * 8 + [1] * 8 + [2] * 4)
_DOMAINS = np.array([0, 1] * 10)
_NAMES = ('ant', 'bee', 'cat')


def _summary(**options):
  drawn = partition.Partition(
    # Four of class 0; four of 0 and four of 1.
    train=(np.arange(0, 8, 2), np.r_[1:8:2, 9:16:2]),
    test=(np.array([16, 17]), np.array([8, 16, 18])),
    global_test={'all': np.array([16, 17, 18])},
  )
  return partition_summary.summarize(drawn, _LABELS, _NAMES, **options)


def test_numbers_by_hand():
  summary = _summary()
  assert summary.train_counts.tolist() == [[4, 0, 0], [4, 4, 0]]
  assert summary.test_counts.tolist() == [[0, 0, 2], [0, 1, 2]]
  np.testing.assert_allclose(summary.mixes, [[1, 0, 0], [0.5, 0.5, 0]])
  np.testing.assert_allclose(summary.effective_classes, [1, 2])
  # All together: 2/3, 1/3 and 0.
  np.testing.assert_allclose(summary.distances, [1 / 3, 1 / 6])
  assert summary.global_tests == {'all': 3}
  assert summary.domain_names == ()


def test_text():
  text = partition_summary.to_text(_summary())
  assert text.startswith('2 clients, 3 classes, 12 training examples')
  assert '\n  training examples            4       6     6.0       8\n' in text
  assert '\n  distance from the mix    0.167   0.250   0.250   0.333\n' in text
  assert '\ntest sets of a global model: all 3\n' in text
  assert '\nno client trains on 1 class(es): cat\n' in text
  assert (
    '     1       8       3        2       2.00     0.167  4 of ant\n' in text
  )
  assert '     1       4        1          1.000  bee' in text


def test_domains_of_clients():
  summary = _summary(domains=_DOMAINS, domain_names=('here', 'there'))
  assert summary.domain_names == ('here', 'there')
  rows = partition_summary.to_text(summary).split('\n\n')[1].splitlines()
  places = {row.rindex(' ') for row in rows}
  assert len(places) == 1 and rows[2].endswith(' there')


def test_long_tables_show_the_largest_and_the_smallest():
  sizes = [3, 9, 1, 5, 2, 7]
  ends = np.cumsum(sizes)
  drawn = partition.Partition(
    tuple(np.split(np.arange(27), ends[:-1])),
    tuple(np.array([27]) for _ in sizes),
  )
  summary = partition_summary.summarize(drawn, np.zeros(28, int), ('only',))
  clients = partition_summary.to_text(summary, max_rows=3).split('\n\n')[1]
  _, *rows, note = clients.splitlines()
  assert [int(row.split()[1]) for row in rows] == [9, 7, 1]
  assert note == '  (the 2 largest and the 1 smallest of 6)'
