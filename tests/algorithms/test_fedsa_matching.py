"""FedSA whose server moves anchors by gradient matching, with other parts."""

import functools

import numpy as np
import pytest

from tests.algorithms import clients
from tff_fedsa import experiment
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.aggregation import compression
from tff_fedsa.aggregation import secure
from tff_fedsa.algorithms import fedsa
from tff_fedsa.privacy import private_process
from tff_fedsa.runs import errors
from tff_fedsa.runs import metrics

_CONFIG = fedsa.FedSAConfig(anchor_decay=1.0, anchor_matching=5)


@pytest.fixture(scope='module')
def model():
  return clients.tiny_mlp()


@pytest.fixture(scope='module')
def run(model):
  """Runs two rounds of three clients; each process is built once."""

  def run(config=_CONFIG, **options):
    process = clients.build_fedsa(model, config, **options)
    found = clients.run(process, [model], clients.random_examples(3))
    return process, *found

  return functools.cache(run)


@pytest.mark.usefixtures('in_process_context')
def test_anchors_move_by_matching_alone(run):
  process, server, _, measurements = run()
  initial = _CONFIG.initial_anchors(10, 16)
  moved = np.linalg.norm(server.model.anchors - initial, axis=1)
  assert (moved > 1e-3).all()
  assert 'virtual' not in measurements['client_work']
  table, present, round_num = 10 * 16 * 4, 10, 4
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': 3 * table + present + round_num,
    'bytes_up_per_client': 2 * table + 10 * 4,
  }


@pytest.mark.usefixtures('in_process_context')
def test_without_matching_nothing_changes(run):
  frozen = fedsa.FedSAConfig(anchor_decay=1.0)
  _, plain, states, _ = run(frozen)
  # Squares alone change no number: the anchors are those of the beginning.
  still = fedsa.FedSAConfig(
    anchor_decay=1.0, anchor_matching=1, anchor_matching_rate=1e-30
  )
  _, server, others, _ = run(still)
  clients.assert_close(others, states, 0.0)
  clients.assert_close(server.model[:3], plain.model, 1e-25)


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_with_virtual_features_and_orthogonality(run):
  config = fedsa.FedSAConfig(
    anchor_matching=5, lambda_virtual=1.0, anchor_orthogonality=1.0
  )
  _, server, _, measurements = run(config)
  cosines = server.model.anchors @ server.model.anchors.T
  np.testing.assert_allclose(
    cosines, np.diag(np.diag(cosines)), atol=1e-4 * cosines.max()
  )
  assert measurements['client_work']['virtual'] > 0


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_clients_that_are_trained_together_have_the_same_numbers(run):
  clients.assert_close(run(batch_clients=3)[1:3], run()[1:3], 1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures('context_in_the_clear')
def test_secure_sums_have_the_same_results(run):
  plain, secured = (
    run(max_examples=23, secure=secure.SecureConfig(secure=use))[1:3]
    for use in (False, True)
  )
  clients.assert_close(secured, plain, 1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures('in_process_context')
def test_noise_of_privacy_and_compression_leave_finite_anchors(run):
  mechanism = private_process.Mechanism(
    'central', clip_norm=5.0, noise_multiplier=0.2, participants=3
  )
  small = compression.CompressionConfig('uniform8', 'uniform8')
  for options in ({'privacy': mechanism}, {'compression': small}):
    _, server, states, _ = run(**options)
    assert np.isfinite(server.model.anchors).all()
    assert np.isfinite(states[0].weights).all()


def test_what_does_not_fit_is_refused(run):
  with pytest.raises(errors.UserError, match='`anchor_matching` needs means'):
    run(aggregator=aggregator_config.AggregatorConfig('median'))
  with pytest.raises(ValueError, match='needs `?anchor_agreement'):
    fedsa.FedSAConfig(
      anchor_decay=1.0, anchor_agreement=False, anchor_matching=1
    )
  with pytest.raises(ValueError, match='anchor_matching >= 0, found -1'):
    fedsa.FedSAConfig(anchor_matching=-1)
  with pytest.raises(ValueError, match='anchor_matching_rate > 0, found 0.0'):
    fedsa.FedSAConfig(anchor_matching=1, anchor_matching_rate=0.0)
  with pytest.raises(ValueError, match='anchor_matching_rate would be ignored'):
    experiment.Experiment(anchor_matching_rate=0.2)
