"""Settings of the runtime reach TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.core.protobuf import rewriter_config_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import config as tf_config

from tff_fedsa import experiment
from tff_fedsa.execution import runtime
from tff_fedsa.runs import errors

_ON = rewriter_config_pb2.RewriterConfig.ON


@pytest.fixture
def restored():
  """Gives TensorFlow its settings back."""
  yield
  tf_config.disable_op_determinism()
  tf.config.experimental.enable_tensor_float_32_execution(True)
  tf.config.optimizer.set_experimental_options({'auto_mixed_precision': False})


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


def test_mixed_precision_is_grapplers_on_gpus(restored, monkeypatch):
  config = runtime.RuntimeConfig(mixed_precision=True)
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind=None: [])
  with pytest.raises(errors.UserError, match='needs a GPU: found none'):
    config.start()
  # Clients that were trained with it are evaluated anywhere.
  config.start(without_workers=True)

  def is_on():
    serialized = context.context().function_call_options.config_proto_serialized
    options = config_pb2.ConfigProto.FromString(serialized).graph_options
    return options.rewrite_options.auto_mixed_precision == _ON

  assert is_on()
  runtime.RuntimeConfig().start()
  assert not is_on()


def test_other_runtimes_have_their_own_kernels():
  for name in ('deterministic_ops', 'mixed_precision', 'jit_compile'):
    for where in (
      {'runtime': 'native'},
      {'runtime': 'remote', 'workers': ('a:1',)},
    ):
      config = runtime.RuntimeConfig(**where, **{name: True})
      assert name in config.ignored()
