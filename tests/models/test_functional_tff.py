"""Steps of several architectures inside TFF computations."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import golden
from tests.models import keras_zoo
from tff_fedsa.data import input_spec
from tff_fedsa.models import functional

pytestmark = pytest.mark.usefixtures('in_process_context')

_NAMES = ['batch_norm_fused', 'attention', 'containers', 'operators']
_OTHERS = [
  'lstm_sequence',
  'patch_encoder',
  'regularized',
  'compiled',
  'dense_on_one_channel',
]
_NUM_STEPS = 3


def _build_training(models):
  """Three steps of SGD of the architecture with an index, in a loop."""
  spec = input_spec.InputSpec(keras_zoo.IMAGE, 'float32', 1.0, 0.0)

  def objective_fn(features, logits, labels, head_fn, context):
    del features, head_fn
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    return {
      'loss': context['scale'] * tf.reduce_mean(cross_entropy(labels, logits))
    }

  def branch(model, step, weights, images, labels):
    trainable, state = model.split(weights)

    def body(index, trainable, state):
      output = step(
        trainable,
        state,
        images,
        labels,
        {'scale': tf.constant(2.0)},
        tf.stack([0, index]),
      )
      trainable = [w - 0.1 * g for w, g in zip(trainable, output.gradients)]
      return index + 1, trainable, output.state

    _, trainable, state = tf.while_loop(
      lambda index, *_: index < _NUM_STEPS, body, (0, trainable, state)
    )
    return model.flatten(trainable, state)

  steps = [
    model.build_train_step(
      objective_fn,
      batch_size=None,
      context_specs={'scale': tf.TensorSpec([])},
      input_spec=spec,
    )
    for model in models
  ]

  @tf.function(
    autograph=False,
    input_signature=[
      tf.TensorSpec([], tf.int32),
      tf.TensorSpec([None]),
      tf.TensorSpec([None, *keras_zoo.IMAGE]),
      tf.TensorSpec([None], tf.int32),
    ],
  )
  def train(architecture, weights, images, labels):
    return tf.switch_case(
      architecture,
      [
        functools.partial(branch, model, step, weights, images, labels)
        for model, step in zip(models, steps)
      ],
    )

  return train


@pytest.mark.parametrize(
  'names', [_NAMES, pytest.param(_OTHERS, marks=pytest.mark.slow)]
)
def test_all_architectures_in_one_computation(names):
  models = [
    functional.FunctionalModel(
      keras_zoo.client_model(keras_zoo.LAYERS[name]), name=name
    )
    for name in names
  ]
  train = _build_training(models)
  client_type = collections.OrderedDict(
    architecture=tff.TensorType(np.int32),
    weights=tff.TensorType(np.float32, [None]),
  )
  client_work = tff.tensorflow.computation(
    lambda client, images, labels: train(
      client['architecture'], client['weights'], images, labels
    ),
    (
      tff.types.to_type(client_type),
      tff.TensorType(np.float32, [None, *keras_zoo.IMAGE]),
      tff.TensorType(np.int32, [None]),
    ),
  )

  @tff.federated_computation(
    tff.FederatedType(client_work.type_signature.parameter[0], tff.CLIENTS),
    tff.FederatedType(client_work.type_signature.parameter[1], tff.CLIENTS),
    tff.FederatedType(client_work.type_signature.parameter[2], tff.CLIENTS),
  )
  def train_all(clients, images, labels):
    return tff.federated_map(client_work, (clients, images, labels))

  rng = np.random.default_rng(0)
  images = rng.normal(size=[6, *keras_zoo.IMAGE]).astype(np.float32)
  labels = np.array([0, 1, 2, 3, 0, 1], np.int32)
  weights = [model.initial_weights(1) for model in models]
  clients = [
    collections.OrderedDict(architecture=np.int32(i), weights=w)
    for i, w in enumerate(weights)
  ]
  count = len(models)
  trained = train_all(clients, [images] * count, [labels] * count)
  for i in range(count):
    expected = train(tf.constant(i), weights[i], images, labels)
    golden.assert_close(trained[i], expected, 1e-5)
    assert np.abs(np.asarray(trained[i]) - weights[i]).max() > 1e-3
