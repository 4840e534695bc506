"""A run begins with the models of another run."""

import numpy as np
import pytest

from tests import rows as rows_lib
from tff_fedsa import experiment as experiment_lib
from tff_fedsa import settings
from tff_fedsa.client import client_store
from tff_fedsa.runs import checkpoints
from tff_fedsa.runs import directory
from tff_fedsa.runs import warm_start

_BASE = experiment_lib.Experiment(
  dataset='digits',
  num_clients=3,
  max_examples=200,
  feature_dim=8,
  family='digits_mlp',
  total_rounds=2,
  rounds_per_checkpoint=1,
  progress=False,
)


@pytest.fixture(scope='module')
def first(tmp_path_factory):
  """A finished run of two rounds."""
  return _BASE.run(tmp_path_factory.mktemp('runs') / 'first')


def _shared(changed, same_process=True):
  """An experiment that shares what does not depend on the changes."""
  for name in ('task', 'models', 'evaluate', *['process'] * same_process):
    changed.__dict__[name] = getattr(_BASE, name)
  return changed


def test_round_0_is_the_last_round_of_the_other_run(first, tmp_path):
  warm = _shared(
    _BASE.replace(init_from=first.directory, sampling_seed=5, total_rounds=2)
  )
  whole = warm.run(tmp_path / 'whole')
  for name in ('prototype', 'anchor', 'head'):
    assert (
      whole.rows[0][f'{name}_accuracy'] == first.rows[-1][f'{name}_accuracy']
    )
  assert whole.server_state.round_num == 2
  # It resumes, equal, when the other run is gone.
  warm.run(tmp_path / 'resumed', total_rounds=1)
  gone = tmp_path / 'gone'
  flags = tmp_path / 'resumed' / 'flags.txt'
  text = flags.read_text()
  assert f'--init_from={first.directory}' in text
  flags.write_text(text.replace(first.directory, str(gone)))
  resumed = _shared(warm.replace(init_from=str(gone))).run(
    tmp_path / 'resumed', total_rounds=2
  )
  assert rows_lib.stable(resumed.rows) == rows_lib.stable(whole.rows)


def test_seeds_are_of_the_new_run_and_more_clients_begin_anew(first):
  wide = _BASE.replace(
    init_from=first.directory, sampling_seed=5, num_clients=4
  )
  said = []
  store = client_store.MemoryStore(wide.initial_state_fn)
  take = warm_start.build_warm_start(wide, say=said.append)
  server_state = take(_BASE.process.initialize(), store)
  assert said == [
    'models of 3 clients and of the server after round 2 of '
    f'{first.directory}'
  ]
  assert server_state.round_num == 0
  np.testing.assert_array_equal(
    server_state.model.anchors, first.server_state.model.anchors
  )
  assert store.client_ids() == [0, 1, 2]
  for client_id in range(4):
    state, new = store.get(client_id), wide.initial_state_fn(client_id)
    np.testing.assert_array_equal(state.seed, new.seed)
    is_new = np.array_equal(state.weights, new.weights)
    assert is_new == (client_id == 3)


def test_exported_models_are_a_beginning(first, tmp_path):
  for client_id in (0, 2):
    first.client(client_id).save(str(tmp_path / f'client_{client_id}.keras'))

  def begin(path):
    wide = _shared(_BASE.replace(init_from=str(path), num_clients=4), False)
    said, store = [], client_store.MemoryStore(wide.initial_state_fn)
    warm_start.build_warm_start(wide, say=said.append)(None, store)
    return said, [store.get(i) for i in range(3)]

  old = [first.store.get(i) for i in range(3)]
  said, states = begin(tmp_path)
  assert said == [
    'models of 2 of 3 clients from 2 exported: the server begins anew'
  ]
  for client_id, state in enumerate(states):
    same = np.array_equal(state.weights, old[client_id].weights)
    assert same == (client_id != 1)
    assert not state.counts.any()
  said, states = begin(tmp_path / 'client_2.keras')
  for state in states:
    np.testing.assert_array_equal(state.weights, old[2].weights)
  (tmp_path / 'broken.keras').write_text('x')
  with pytest.raises(ValueError, match='broken.keras.*no model that `tff-fed'):
    begin(tmp_path / 'broken.keras')
  with pytest.raises(ValueError, match='There is no exported model at'):
    begin(tmp_path / 'nothing.keras')
  averaging = _BASE.replace(
    init_from=str(tmp_path / 'client_2.keras'), share_weights='model'
  )
  with pytest.raises(ValueError, match='have no averaged weights'):
    warm_start.build_warm_start(averaging)


def test_models_of_other_data_are_refused(first):
  other = _BASE.replace(
    algorithm='local',
    init_from=first.directory,
    dataset='wine',
    max_examples=150,
  )
  store = client_store.MemoryStore(other.initial_state_fn)
  take = warm_start.build_warm_start(other)
  with pytest.raises(ValueError, match='expected weights float32'):
    take(None, store)
  averaging = _BASE.replace(algorithm='fedavg', init_from=first.directory)
  with pytest.raises(ValueError, match='fedsa. have no averaged weights'):
    warm_start.build_warm_start(averaging)


def test_another_method_takes_the_models_of_clients(first):
  local = _shared(
    _BASE.replace(algorithm='local', init_from=first.directory),
    same_process=False,
  )
  del local.__dict__['evaluate']
  result = local.run(total_rounds=1)
  assert result.rows[0]['head_accuracy'] == first.rows[-1]['head_accuracy']


def test_what_does_not_fit_is_refused(first, tmp_path):
  def refused(match, error=directory.RunDirectoryError, **changes):
    changes = {'init_from': first.directory, **changes}
    with pytest.raises(error, match=match):
      _BASE.replace(**changes).run(tmp_path / 'refused')
    assert not (tmp_path / 'refused').exists()

  refused('There is no run at', init_from=str(tmp_path / 'nothing'))
  refused('--feature_dim: 8 there, 16 now', feature_dim=16)
  refused('--family: digits_mlp there, digits3 now', family='digits3')
  refused(
    'needs new models, without init_from',
    settings.SettingsError,
    dp='central',
    dp_epsilon=8.0,
  )
  with pytest.raises(
    directory.RunDirectoryError, match='init_from: None there'
  ):
    _shared(_BASE.replace(init_from=first.directory)).run(first.directory)


def test_another_server_is_refused(first):
  shared = _shared(
    _BASE.replace(share_weights='model', init_from=first.directory),
    same_process=False,
  )
  with pytest.raises(checkpoints.StructureError, match='model/weights'):
    shared.run()
