"""The summary of a run, by hand."""

import pytest

from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.reporting import summary


def _row(round_num, accuracy, **more):
  row = {'round': round_num, **more}
  for classifier in client_evaluation.CLASSIFIERS:
    column = f'{classifier}_accuracy'
    row[column] = accuracy
    for statistic in ('mean', 'std', 'min', 'p10'):
      row[f'{column}_{statistic}'] = accuracy / 2
  return row


def test_last_best_and_mean_of_the_last_rows():
  # 12 trained rows: 0.12 … 0.01, so the best is the first.
  history = [_row(0, 0.99)]
  history += [
    _row(
      r,
      (13 - r) / 100,
      seconds_training=r,
      bytes_up_per_client=2000,
      bytes_down_per_client=1000,
    )
    for r in range(1, 13)
  ]
  found = summary.summarize(history)
  head = found['head']
  assert found['rounds'] == 12
  assert head['last'] == 0.01
  # Before training does not count.
  assert (head['best'], head['best_round']) == (0.12, 1)
  assert head['mean_of_last_10'] == pytest.approx(0.055)
  assert head['clients_min'] == 0.005
  assert found['seconds_per_round_median'] == 6.5
  text = summary.to_text(found)
  assert 'accuracy after 12 rounds' in text
  assert '0.0100     0.1200 (1)        0.0550' in text
  assert '2.0 kB up, 1.0 kB down' in text


def test_a_run_of_no_rounds():
  found = summary.summarize([_row(0, 0.25)])
  assert found['prototype']['last'] == 0.25
  assert summary.to_text(found)


def test_nothing_to_summarize():
  with pytest.raises(ValueError, match='at least one row'):
    summary.summarize([])


def test_only_the_classifiers_that_there_are():
  row = {
    name: value for name, value in _row(1, 0.5).items() if 'anchor' not in name
  }
  found = summary.summarize([row])
  assert 'anchor' not in found and found['prototype']['last'] == 0.5
  assert 'anchor' not in summary.to_text(found)


def test_protocol_global_has_domains_in_place_of_clients():
  row = {
    'round': 1,
    'global_test_head_accuracy': 0.5,
    'global_test_head_accuracy_amazon': 0.25,
    'global_test_head_accuracy_dslr': 0.75,
  }
  found = summary.summarize([row])
  assert found == {
    'rounds': 1,
    'global_test_head': {
      'last': 0.5,
      'best': 0.5,
      'best_round': 1,
      'mean_of_last_10': 0.5,
      'by_domain': {'amazon': 0.25, 'dslr': 0.75},
    },
  }
  title, heading, line = summary.to_text(found).splitlines()
  assert title.endswith('(averaged model, mean of the last columns)')
  assert heading.split()[-2:] == ['amazon', 'dslr']
  assert line.split() == ['head', '0.5000', '0.5000', '(1)', '0.5000'] + [
    '0.2500',
    '0.7500',
  ]
  one = summary.summarize([{'round': 1, 'global_test_head_accuracy': 0.5}])
  assert '(averaged model, global test set)' in summary.to_text(one)


def test_validation_chooses_the_best_round():
  history = [
    {
      'round': 0,
      'global_test_head_accuracy': 0.1,
      'validation_head_accuracy': 1,
    },
    {
      'round': 1,
      'global_test_head_accuracy': 0.9,
      'validation_head_accuracy': 0,
    },
    {
      'round': 2,
      'global_test_head_accuracy': 0.5,
      'validation_head_accuracy': 0.7,
    },
    {
      'round': 3,
      'global_test_head_accuracy': 0.6,
      'validation_head_accuracy': 0.6,
    },
  ]
  head = summary.summarize(history)['global_test_head']
  assert (head['best'], head['best_round'], head['last']) == (0.5, 2, 0.6)
