"""Trials of a search: the same number and the same draws for all."""

import math
import textwrap

import numpy as np
import pytest

from tff_fedsa.sweeps import sweep_file
from tff_fedsa.sweeps import values

_FILE = """
  trials = 8
  [flags]
  total_rounds = 5
  [axes]
  algorithm = ['fedsa', 'local']
  [search]
  client_learning_rate = {min = 0.01, max = 1.0, log = true}
  client_epochs_per_round = {min = 1, max = 4}
  standardize_features = [false, true]
  [search.fedsa]
  lambda_reg = {min = 0.5, max = 1.5}
"""


def _read(tmp_path, text=_FILE):
  path = tmp_path / 'try.toml'
  path.write_text(textwrap.dedent(text))
  return sweep_file.read(str(path))


def test_all_variants_have_the_same_draws(tmp_path):
  sweep = _read(tmp_path)
  assert list(sweep.variants)[:2] == ['fedsa,trial=0', 'fedsa,trial=1']
  assert len(sweep.variants) == 16
  assert sweep.searched == (
    'client_learning_rate',
    'client_epochs_per_round',
    'standardize_features',
    'lambda_reg',
  )
  of_all = sweep.searched[:3]
  for trial in range(8):
    ours, other = (
      sweep.variants[f'{name},trial={trial}'] for name in ('fedsa', 'local')
    )
    assert {n: ours[n] for n in of_all} == {n: other[n] for n in of_all}
    assert 'lambda_reg' in ours and 'lambda_reg' not in other
  assert _read(tmp_path).variants == sweep.variants
  reseeded = _read(tmp_path, 'search_seed = 1\n' + textwrap.dedent(_FILE))
  assert reseeded.variants != sweep.variants


def test_draws_fill_their_ranges_evenly(tmp_path):
  sweep = _read(tmp_path, textwrap.dedent(_FILE).replace('= 8', '= 200'))
  drawn = [v for name, v in sweep.variants.items() if name.startswith('fed')]
  rates = [math.log10(one['client_learning_rate']) for one in drawn]
  assert -2 <= min(rates) and max(rates) <= 0
  # Half of them are below 0.1, the middle of a logarithmic range.
  assert np.mean(np.array(rates) < -1) == pytest.approx(0.5, abs=0.02)
  epochs = [one['client_epochs_per_round'] for one in drawn]
  np.testing.assert_allclose(
    np.bincount(epochs, minlength=5) / 200,
    [0, 0.25, 0.25, 0.25, 0.25],
    atol=0.03,
  )
  assert all(type(one) is int for one in epochs)
  weights = [one['lambda_reg'] for one in drawn]
  assert np.mean(weights) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
  ('old', 'new', 'match'),
  [
    ('trials = 8', '', 'needs the number of trials'),
    ('trials = 8', 'trials = 0', 'trials: expected a whole number >= 1'),
    ('min = 0.01', 'min = 0', 'min > 0, for log'),
    ('min = 1, max = 4', 'min = 4, max = 1', 'expected numbers min < max'),
    ('[false, true]', '"both"', 'expected a list of values or'),
    ('search.fedsa', 'search.fedproto', "sets algorithm = 'fedproto'"),
    ('[search]', '[searches]', "did you mean 'search'"),
    (
      'client_learning_rate =',
      'algorithm = ["local"]\nclient_learning_rate =',
      'draws --algorithm, which the variant',
    ),
  ],
)
def test_a_malformed_search_is_refused(tmp_path, old, new, match):
  text = textwrap.dedent(_FILE)
  assert old in text
  with pytest.raises(values.SweepError, match=match):
    _read(tmp_path, text.replace(old, new))


def test_flag_files_name_methods_too(tmp_path):
  text = """
    trials = 2
    [variants]
    alone = {flagfile = 'collaboration/local'}
    [search]
    client_learning_rate = [0.1, 0.2]
    [search.local]
    shuffle = [false, true]
  """
  sweep = _read(tmp_path, text)
  assert all('shuffle' in own for own in sweep.variants.values())
