"""Settings of the runtime reach TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from tff_fedsa import experiment
from tff_fedsa.execution import runtime


@pytest.fixture
def restored():
  """Gives TensorFlow its settings back."""
  yield
  tf_config.disable_op_determinism()
  tf.config.experimental.enable_tensor_float_32_execution(True)


def test_deterministic_kernels_and_no_tf32(restored):
  settings = {'deterministic_ops': True, 'tf32': False}
  runtime.RuntimeConfig(**settings).start()
  assert tf_config.is_op_determinism_enabled()
  assert not tf.config.experimental.tensor_float_32_execution_enabled()
  # Everything that a run does is allowed: no random number is without a seed.
  result = experiment.Experiment(
    family='digits_mlp',
    num_clients=2,
    max_examples=100,
    alpha=1.0,
    feature_dim=8,
    total_rounds=1,
    **settings,
  ).run(progress=False)
  assert np.isfinite(result.rows[-1]['loss'])
  runtime.RuntimeConfig().start()
  assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_other_runtimes_have_their_own_kernels():
  config = runtime.RuntimeConfig(runtime='native', deterministic_ops=True)
  assert 'deterministic_ops' in config.ignored()
