"""Settings of methods, chosen on validation examples."""

import csv

import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import choice
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs


def write(root, name, test, validation, **flags):
  for seed, (tested, chosen_by) in enumerate(zip(test, validation)):
    path = root / name / f'seed_{seed}'
    made_up.write(
      path,
      [0.1, 0.2, 0.3, tested],
      model_seed=str(seed),
      classifiers=('head',),
      **flags,
    )
    if chosen_by is None:
      continue
    with open(path / 'metrics.csv', newline='') as file:
      rows = list(csv.DictReader(file))
    # The best round on validation examples is not the last one.
    for row, accuracy in zip(rows, [0.1, 0.2, chosen_by, 0.3]):
      row['validation_head_accuracy'] = accuracy
    with open(path / 'metrics.csv', 'w', newline='') as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)


def _chosen(root, measurement=()):
  groups = groups_lib.group(
    runs.find([str(root)], made_up.DEFAULTS), measurement=measurement
  )
  return choice.chosen(groups, ['lambda_reg'], measurement=measurement)


def test_each_method_has_its_best_setting_on_validation(tmp_path):
  # The best on test examples is the worst on validation examples.
  write(tmp_path, 'fedsa,a', [0.9, 0.9], [0.5, 0.5], lambda_reg='1.0')
  write(tmp_path, 'fedsa,b', [0.6, 0.8], [0.5, 0.7], lambda_reg='3.0')
  write(tmp_path, 'local', [0.7, 0.7], [0.4, 0.4], algorithm='local')
  groups, table = _chosen(tmp_path)
  assert [group.name for group in groups] == ['fedsa', 'local']
  assert groups[0].finished[0].flags['lambda_reg'] == '3.0'
  assert list(table) == ['method', 'lambda_reg', 'validation', 'tried']
  assert table.loc[0].tolist() == ['fedsa', '3.0', '0.6000', '2']
  # Local has no such setting.
  assert table.loc[1].tolist() == ['local', '', '0.4000', '1']
  assert '| fedsa ' in choice.to_text(table)


def test_variants_of_a_method_are_chosen_apart(tmp_path):
  for decay in ('0.9', '1.0'):
    for rate, score in (('1.0', 0.3), ('3.0', 0.5)):
      write(
        tmp_path,
        f'decay{decay},lambda_reg={rate}',
        [0.7],
        [score],
        anchor_decay=decay,
        lambda_reg=rate,
      )
  groups, _ = _chosen(tmp_path)
  assert [group.name for group in groups] == ['decay0.9', 'decay1.0']


def test_a_choice_for_each_measurement(tmp_path):
  for alpha, good in (('0.1', '1.0'), ('0.5', '3.0')):
    for rate in ('1.0', '3.0'):
      score = 0.8 if rate == good else 0.5
      write(
        tmp_path,
        f'fedsa,alpha={alpha},lambda_reg={rate}',
        [0.7],
        [score],
        alpha=alpha,
        lambda_reg=rate,
      )
  groups, table = _chosen(tmp_path, ['alpha'])
  assert [group.setting for group in groups] == ['alpha=0.1', 'alpha=0.5']
  assert table['lambda_reg'].tolist() == ['1.0', '3.0']


def test_what_cannot_be_chosen_is_refused(tmp_path):
  write(tmp_path, 'fedsa', [0.7], [None])
  with pytest.raises(runs.ReportError, match='--validation_fraction'):
    _chosen(tmp_path)
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  with pytest.raises(runs.ReportError, match='no run has this flag'):
    choice.chosen(groups, ['lambda'])
