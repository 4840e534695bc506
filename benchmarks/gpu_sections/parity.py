"""Compares a device with the CPU: golden vectors and rounds."""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

_GOLDEN = pathlib.Path(__file__).parents[2] / 'tests' / 'testdata' / 'golden'

# Relative to the largest entry. Tests on the CPU require 1e-5. A GPU adds in
# another order, and training steps amplify the difference.
GOLDEN_TOLERANCE = 1e-4
ROUNDS_TOLERANCE = 1e-3


def difference(actual: Any, expected: Any) -> float:
  """Returns max|a - b| / max|b|, or infinity if only one is finite."""
  actual = np.asarray(actual, np.float64)
  expected = np.asarray(expected, np.float64)
  if actual.shape != expected.shape:
    raise ValueError(f'Expected shape {expected.shape}, found {actual.shape}.')
  finite = np.isfinite(expected)
  if not np.array_equal(finite, np.isfinite(actual)):
    return float('inf')
  if not finite.any():
    return 0.0
  error = np.max(np.abs(actual[finite] - expected[finite]))
  return float(error / max(np.max(np.abs(expected[finite])), 1e-30))


def golden_losses() -> dict[str, float]:
  """Compares each loss term and its gradients with the authors' code.

  Returns:
    By term, the largest difference over all cases of golden file 3, computed
    on TensorFlow's current device.
  """
  import tensorflow as tf

  from tff_fedsa.maths import losses

  arrays = _load('3_losses')
  found: dict[str, float] = {}
  for case in ('c10d512_glob', 'c10d512_loc', 'c100d64_glob', 'c100d64_loc'):
    features, kernel, bias, anchors = (
      tf.identity(arrays[f'{case}_{name}'])
      for name in ('feats', 'head_W', 'head_b', 'anchors')
    )
    labels = tf.constant(arrays[f'{case}_y'])
    gap = tf.constant(arrays[f'{case}_gap'], tf.float32)

    def head_fn(inputs, kernel=kernel, bias=bias):
      return tf.matmul(inputs, kernel, transpose_b=True) + bias

    with tf.GradientTape(persistent=True) as tape:
      tape.watch(features)
      values = {
        'ce': losses.cross_entropy(head_fn(features), labels),
        'mse': losses.anchor_regularization(features, labels, anchors),
        'mcl': losses.margin_contrastive(features, labels, anchors, gap),
        'cc': losses.classifier_calibration(head_fn, anchors),
      }
    for name, value in values.items():
      errors = [difference(value, arrays[f'{case}_{name}'])]
      gradient = f'{case}_g_feats_{name}'
      if gradient in arrays:
        errors.append(
          difference(
            tape.gradient(value, features, unconnected_gradients='zero'),
            arrays[gradient],
          )
        )
      found[name] = max(found.get(name, 0.0), *errors)
  return found


def golden_training() -> dict[str, float]:
  """Replays golden file 4, two rounds of one client, in TFF's context.

  Returns:
    By what is compared with the authors' code, the largest difference.
  """
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.data import input_spec
  from tff_fedsa.maths import prototypes
  from tff_fedsa.models import functional

  def build_fn():
    # The reference's test model.
    images = tf.keras.Input([8, 8, 1])
    hidden = tf.keras.layers.Flatten()(images)
    hidden = tf.keras.layers.Dense(32, activation='relu')(hidden)
    features = tf.keras.layers.Dense(16)(hidden)
    return functional.KerasClientModel(
      tf.keras.Model(images, features),
      tf.keras.Sequential([tf.keras.Input([16]), tf.keras.layers.Dense(10)]),
    )

  model = functional.FunctionalModel(build_fn, name='tiny_mlp')
  golden = _load('4_local_training')
  found: dict[str, float] = {}
  for variant in 'abcd':
    arrays = {
      name[2:]: array
      for name, array in golden.items()
      if name.startswith(f'{variant}_')
    }
    process = fedsa.build_fedsa(
      [model],
      fedsa.FedSAConfig(lambda_reg=float(arrays['lamda']), anchor_decay=1.0),
      input_spec=input_spec.InputSpec((8, 8, 1), 'float32', 1.0, 0.0),
      anchors=arrays['anchors'],
      optimizer=local_optimizer.LocalOptimizer(
        tff.learning.optimizers.build_sgdm(0.01)
      ),
      local=local_training.LocalTrainingConfig(
        batch_size=10, num_epochs=2, remainder='drop', shuffle=False
      ),
      class_means=prototypes.ClassMeanConfig(keep_missing=False),
    )
    examples = {
      'x': arrays['x'].transpose(0, 2, 3, 1).astype(np.float32),
      'y': arrays['y'].astype(np.int32),
    }
    state = client_state.new_client_state(
      model, 0, _flat(arrays, 'init'), client_id=0
    )
    server = process.initialize()
    for name in ('r1', 'r2'):
      output = process.next(server, [state], [examples])
      server, (state,) = output.state, output.result
      expected = arrays[f'{name}_protos']
      held = ~np.isnan(expected[:, 0])
      errors = {
        'weights': difference(state.weights, _flat(arrays, name)),
        'prototypes': difference(state.prototypes[held], expected[held]),
        'loss': difference(
          output.measurements['client_work']['loss'],
          np.mean(arrays[f'{name}_step_loss']),
        ),
      }
      for what, error in errors.items():
        found[what] = max(found.get(what, 0.0), error)
  return found


class Digits:
  """FedSA on digits: six clients of three architectures, three rounds."""

  def __init__(self):
    """Loads the data and builds the process."""
    import tensorflow_federated as tff

    from tff_fedsa.algorithms import fedsa
    from tff_fedsa.client import client_state
    from tff_fedsa.client import local_optimizer
    from tff_fedsa.data import tasks
    from tff_fedsa.evaluation import client_evaluation
    from tff_fedsa.models import families

    self._task = tasks.load_task(
      tasks.TaskSpec(dataset='digits', num_clients=6, max_examples=480)
    )
    models = families.build_family(
      'digits3',
      self._task.input_spec.model_shape,
      self._task.num_classes,
      feature_dim=64,
    )
    self._process = fedsa.build_fedsa(
      models,
      input_spec=self._task.input_spec,
      optimizer=local_optimizer.LocalOptimizer(
        tff.learning.optimizers.build_sgdm(0.05)
      ),
    )
    self._evaluate = client_evaluation.build_evaluation(
      models, self._task.input_spec
    )
    self._initial_state = client_state.build_initial_state_fn(models)

  def run(self, rounds: int = 3) -> dict[str, Any]:
    """Returns arrays by name, computed in TFF's context."""
    examples = [client.train for client in self._task.clients]
    server = self._process.initialize()
    clients = [self._initial_state(i) for i in range(len(examples))]
    losses = []
    for _ in range(rounds):
      output = self._process.next(server, clients, examples)
      server, clients = output.state, list(output.result)
      losses.append(float(output.measurements['client_work']['loss']))
    correct = self._evaluate(
      server.model, clients, [client.test for client in self._task.clients]
    )
    totals = {
      name: sum(int(client[name]) for client in correct) for name in correct[0]
    }
    return {
      'anchors': np.asarray(server.model.anchors),
      'prototypes': np.stack([np.asarray(c.prototypes) for c in clients]),
      'weights': np.concatenate([np.asarray(c.weights) for c in clients]),
      'loss': np.asarray(losses),
      'correct': totals,
    }


def compare_rounds(
  actual: Mapping[str, Any], expected: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns differences by name, and both counts of correct examples."""
  return {
    **{
      name: difference(actual[name], expected[name])
      for name in expected
      if name != 'correct'
    },
    'correct': [actual['correct'], expected['correct']],
  }


def _load(name: str) -> dict[str, np.ndarray]:
  with np.load(_GOLDEN / f'{name}.npz') as arrays:
    return dict(arrays)


def _flat(arrays: Mapping[str, np.ndarray], prefix: str) -> np.ndarray:
  """Returns flat weights of torch's arrays, whose kernels are [out, in]."""
  return np.concatenate(
    [
      part
      for layer in '12h'
      for part in (
        arrays[f'{prefix}_W{layer}'].T.ravel(),
        arrays[f'{prefix}_b{layer}'],
      )
    ]
  )
