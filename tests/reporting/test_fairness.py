"""Spread over clients, and gains over Local, by hand."""

import numpy as np
import pytest

from tests.reporting import made_up
from tff_fedsa.reporting import comparison
from tff_fedsa.reporting import fairness
from tff_fedsa.reporting import groups as groups_lib
from tff_fedsa.reporting import runs


def test_gini_by_its_definition():
  values = np.random.default_rng(0).random(20)
  by_pairs = np.abs(values[:, np.newaxis] - values).mean() / (2 * values.mean())
  assert fairness.gini(values) == pytest.approx(by_pairs)
  assert fairness.gini(np.ones(5)) == pytest.approx(0.0)
  assert np.isnan(fairness.gini(np.zeros(5)))


def test_clients_and_their_gains(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.7, 0.7], correct=(10, 9, 8, 1))
  made_up.write_repeats(
    tmp_path, 'local', [0.6, 0.6], algorithm='local', correct=(9, 9, 4, 2)
  )
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  fedsa, local = fairness.over_runs(groups).to_dict('records')
  assert fedsa['std'] == pytest.approx(np.std([1, 0.9, 0.8, 0.1]))
  assert fedsa['worst_10_percent'] == pytest.approx(0.1)
  # Gains are 0.1, 0, 0.4 and -0.1.
  assert fedsa['gain'] == pytest.approx(0.1)
  assert fedsa['gain_worst'] == pytest.approx(-0.1)
  assert fedsa['gainers'] == pytest.approx(0.5)
  assert np.isnan(local['gain'])
  report = comparison.Comparison(groups).texts('x')['report.md']
  assert '## Clients' in report and 'percent points over Local' in report


def test_gains_need_the_same_partition(tmp_path):
  made_up.write_repeats(tmp_path, 'fedsa', [0.7])
  made_up.write_repeats(
    tmp_path, 'local', [0.6], algorithm='local', partition=(7,)
  )
  groups = groups_lib.group(runs.find([str(tmp_path)], made_up.DEFAULTS))
  assert fairness.over_runs(groups)['gain'].isna().all()
