"""Runs are grouped up to the seed, and not mixed."""

import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs

_SAME = ('alpha', 'dataset', 'test_set', 'total_rounds')


def _groups(*directories, ignored=()):
  found = runs.find(list(map(str, directories)), made_up.DEFAULTS)
  return groups_lib.group(found, ignored=ignored)


def _statuses(group):
  return {run.seed: run.status for run in group.runs}


def test_repeats_are_one_group(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.8, 0.9, 0.7])
  made_up.write_repeats(tmp_path, 'fedproto', [0.6, 0.7], algorithm='fedproto')
  by_name = {group.name: group for group in _groups(tmp_path)}
  assert _statuses(by_name['fedsa']) == dict.fromkeys('012', 'finished')
  assert by_name['fedproto'].algorithm == 'fedproto'
  groups_lib.check_comparable(list(by_name.values()), _SAME)
  assert groups_lib.missing_seeds(list(by_name.values())) == {'fedproto': ['2']}


def test_runs_of_any_name_are_grouped_by_their_flags(tmp_path):
  for seed in '01':
    made_up.write(tmp_path / f'a{seed}', [0.1, 0.5, 0.6, 0.7], model_seed=seed)
    made_up.write(
      tmp_path / f'b{seed}',
      [0.1, 0.5, 0.6, 0.7],
      model_seed=seed,
      lambda_reg='1.0',
    )
  names = [group.name for group in _groups(tmp_path)]
  assert names == ['fedsa,lambda_reg=10.0', 'fedsa,lambda_reg=1.0']
  (group,) = _groups(tmp_path / 'a0', tmp_path / 'a1')
  # The sampling seed is the same.
  assert [run.seed for run in group.runs] == ['0', '1/0']


def test_attacks_and_aggregators_are_named_and_not_mixed(tmp_path):
  made_up.write(tmp_path / 'plain' / 'run', [0.1, 0.9], aggregator='mean')
  made_up.write(
    tmp_path / 'a' / 'run', [0.1, 0.2], aggregator='mean', attack='ipm'
  )
  made_up.write(
    tmp_path / 'b' / 'other', [0.1, 0.8], aggregator='krum', attack='ipm'
  )
  names = [group.name for group in _groups(tmp_path)]
  assert sorted(names) == [
    'other,attack=ipm,aggregator=krum',
    'run',
    'run,attack=ipm',
  ]


def test_differential_privacy_is_named_and_seeds_of_noise_are_repeats(tmp_path):
  for seed in '01':
    for epsilon in ('2.0', '4.0'):
      made_up.write(
        tmp_path / epsilon / seed,
        [0.1, 0.9],
        dp='central',
        dp_epsilon=epsilon,
        dp_delta='1e-05',
        dp_seed=seed,
        model_seed=seed,
      )
  names = [group.name for group in _groups(tmp_path)]
  assert names == [
    f'fedsa,dp_epsilon={epsilon},dp=central' for epsilon in ('2.0', '4.0')
  ]


def test_repeats_may_differ_in_their_anchors_only(tmp_path):
  for seed in '01':
    made_up.write(tmp_path / seed, [0.1, 0.5, 0.6, 0.7], anchor_seed=seed)
  (group,) = _groups(tmp_path)
  assert [run.seed for run in group.runs] == ['0/0', '0/1']


def test_the_same_run_twice_is_refused(tmp_path):
  made_up.write(tmp_path / 'a', [0.1, 0.5, 0.6, 0.7])
  made_up.write(tmp_path / 'b', [0.1, 0.5, 0.6, 0.8])
  with pytest.raises(runs.ReportError, match='the same seed, 0:'):
    _groups(tmp_path)


@pytest.mark.parametrize(
  'flags, message',
  [
    ({'alpha': '0.5'}, r'--alpha: 0.1 \(fedsa\); 0.5 \(other\)'),
    ({'dataset': 'cifar10'}, '--dataset: digits'),
    ({'test_set': 'original'}, '--test_set: split'),
    ({'partition': (2, 1)}, r'partition.npz, seed 0: \w+ \(fedsa\); \w+ \(oth'),
  ],
)
def test_what_was_not_measured_alike_is_not_compared(tmp_path, flags, message):
  made_up.write_repeats(tmp_path, 'fedsa', [0.8])
  made_up.write_repeats(tmp_path, 'other', [0.8], lambda_reg='0.0', **flags)
  with pytest.raises(runs.ReportError, match=message):
    groups_lib.check_comparable(_groups(tmp_path), _SAME)


def test_a_partition_per_seed_is_a_repeat(tmp_path):
  for name, algorithm in (('a', 'fedsa'), ('b', 'local')):
    for seed in (0, 1):
      made_up.write(
        tmp_path / name / f'seed_{seed}',
        [0.1, 0.5, 0.6, 0.7],
        algorithm=algorithm,
        partition=(seed, 5),
        partition_seed=str(seed),
        model_seed=str(seed),
        sampling_seed=str(seed),
      )
  groups = _groups(tmp_path)
  assert [len(group.runs) for group in groups] == [2, 2]
  groups_lib.check_comparable(groups, _SAME)


def _sweep(root, methods=('fedsa', 'local'), alphas=('0.1', '0.5'), **options):
  for alpha in alphas:
    for method in methods:
      made_up.write_repeats(
        root,
        f'{method},alpha={alpha}',
        [0.8, 0.7],
        algorithm=method,
        alpha=alpha,
        partition=(int(float(alpha) * 10),),
        **options,
      )


def _arranged(*directories):
  found = runs.find(list(map(str, directories)), made_up.DEFAULTS)
  groups = groups_lib.group(found, measurement=_SAME)
  groups_lib.check_comparable(groups, _SAME)
  return {one.name: (one.place.row, one.setting) for one in groups}


def test_a_sweep_over_alpha_has_a_column_for_each(tmp_path):
  _sweep(tmp_path)
  assert _arranged(tmp_path) == {
    f'{method},alpha={alpha}': (method, f'alpha={alpha}')
    for method in ('fedsa', 'local')
    for alpha in ('0.1', '0.5')
  }


def test_named_sets_of_flags_name_columns_and_variants_join_them(tmp_path):
  for name, alpha in (('skewed', '0.1'), ('even', '0.5')):
    for method in ('fedsa', 'local'):
      made_up.write(
        tmp_path / f'{method},{name},feature_dim=8',
        [0.1, 0.5, 0.6, 0.7],
        algorithm=method,
        alpha=alpha,
        feature_dim='8',
      )
  made_up.write(tmp_path / 'no_pull', [0.1, 0.5, 0.6, 0.7], lambda_reg='0.0')
  arranged = _arranged(tmp_path)
  assert arranged['local,even,feature_dim=8'] == (
    'local',
    'even, feature_dim=8',
  )
  # Its alpha is that of `skewed`, its feature_dim is not.
  assert arranged['no_pull'] == ('no_pull', 'alpha=0.1')


def test_values_of_one_method_are_rows(tmp_path):
  for alpha in ('0.1', '0.5'):
    for value in ('1', '2'):
      made_up.write(
        tmp_path / f'fedsa,alpha={alpha},lambda_reg={value}',
        [0.1, 0.5, 0.6, 0.7],
        alpha=alpha,
        lambda_reg=value,
      )
  assert set(_arranged(tmp_path).values()) == {
    (f'fedsa,lambda_reg={value}', f'alpha={alpha}')
    for value in '12'
    for alpha in ('0.1', '0.5')
  }


def test_runs_with_names_of_their_own_are_arranged(tmp_path):
  for alpha in ('0.1', '0.5'):
    for method in ('fedsa', 'local'):
      made_up.write(
        tmp_path / f'mine_{method}_{alpha}',
        [0.1, 0.5, 0.6, 0.7],
        algorithm=method,
        alpha=alpha,
      )
  assert set(_arranged(tmp_path).values()) == {
    (method, f'alpha={alpha}')
    for method in ('fedsa', 'local')
    for alpha in ('0.1', '0.5')
  }


def test_seeds_are_missing_within_a_setting(tmp_path):
  _sweep(tmp_path, alphas=('0.1',))
  made_up.write_repeats(tmp_path, 'fedsa,alpha=0.5', [0.8], alpha='0.5')
  found = runs.find([str(tmp_path)], made_up.DEFAULTS)
  assert not groups_lib.missing_seeds(
    groups_lib.group(found, measurement=_SAME)
  )


def test_an_axis_of_partition_seeds_makes_repeats(tmp_path):
  for method in ('fedsa', 'local'):
    for dealt in '01':
      for seed in '01':
        made_up.write(
          tmp_path / f'{method},partition_seed={dealt}' / f'seed_{seed}',
          [0.1, 0.5, 0.6, 0.7],
          algorithm=method,
          partition=(int(dealt), 5),
          partition_seed=dealt,
          model_seed=seed,
          sampling_seed=seed,
        )
  groups = _groups(tmp_path)
  groups_lib.check_comparable(groups, _SAME)
  assert [one.name for one in groups] == ['fedsa', 'local']
  assert [run.seed for run in groups[0].runs] == [
    f'{seed}, partition {dealt}' for seed in '01' for dealt in '01'
  ]
