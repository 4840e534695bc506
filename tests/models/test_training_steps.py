"""Training steps of the papers' architectures, made functional."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import parameter_counts
from tff_fedsa.algorithms import fedsa
from tff_fedsa.data import input_spec
from tff_fedsa.models import families

_SPEC = input_spec.InputSpec((32, 32, 3))


def _step(name):
  """Returns `seed -> (gradients, features)` of a step on fixed images."""
  (model,) = families.build_family(name, (32, 32, 3), 10, 64)
  step = model.build_train_step(
    lambda features, logits, labels, head_fn, context: {
      'loss': tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
      )
    },
    batch_size=4,
    context_specs={},
    input_spec=_SPEC,
  )
  images = np.random.default_rng(0).integers(0, 256, [4, 32, 32, 3])
  weights = model.split(tf.constant(model.initial_weights(0)))

  def run(seed):
    output = step(
      *weights, images.astype(np.uint8), np.arange(4, dtype=np.int32), {}, seed
    )
    return output.gradients, output.features.numpy()

  return run


@pytest.mark.parametrize(
  'name',
  ['resnet6_gn']
  + [
    pytest.param(name, marks=pytest.mark.slow)
    for name in (
      'googlenet',
      'mobilenet_v2',
      'resnet50',
      'vit_b_32',
      'keras_mobilenet_v2',
      'resnet18+mlp128_relu',
    )
  ],
)
def test_all_weights_learn_and_dropout_follows_the_seed(name):
  run = _step(name)
  gradients, features = run([0, 1])
  for gradient in gradients:
    assert np.isfinite(gradient).all()
  moved = [np.any(gradient != 0) for gradient in gradients]
  # Of ReLUs that are dead on four images, and keys' biases, which softmax
  # cancels.
  assert np.mean(moved) > 0.9
  if name in ('googlenet', 'mobilenet_v2'):
    np.testing.assert_array_equal(run([0, 1])[1], features)
    assert np.any(run([0, 2])[1] != features)
  else:  # Without dropout.
    np.testing.assert_array_equal(run([0, 2])[1], features)


@pytest.mark.slow
def test_fedsa_over_architectures_of_htfe8_is_traced():
  models = families.build_family('HtFE8', (32, 32, 3), 10, 512)
  trained = [model.num_trainable for model in models]
  assert trained == [
    878_538,
    5_605_034,
    2_229_002,
    11_181_642,
    21_289_802,
    23_513_162,
    42_505_290,
    58_148_938,
  ]
  # The extractors are torchvision's; the first one is of the authors.
  extractors = [
    parameter_counts.torchvision_extractor(model.name) for model in models[1:]
  ]
  head = 512 * 10 + 10
  assert [number - head for number in trained[1:]] == extractors
  # The ResNets that are left out have more of the same blocks.
  kinds = [
    model
    for model in models
    if model.name not in ('resnet34', 'resnet101', 'resnet152')
  ]
  assert len(kinds) == 5
  process = fedsa.build_fedsa(kinds, input_spec=_SPEC)
  model = process.initialize.type_signature.result.member.model
  assert model.anchors.shape == (10, 512)
