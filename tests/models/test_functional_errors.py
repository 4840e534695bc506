"""Models that cannot be functional are refused with a reason."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import keras_zoo
from tff_fedsa.data import input_spec
from tff_fedsa.models import functional
from tff_fedsa.runs import errors

L = tf.keras.layers
_SPEC = input_spec.InputSpec(keras_zoo.IMAGE, 'float32', 1.0, 0.0)


class _Layer(L.Layer):
  """A layer whose `call` a test gives."""

  def __init__(self, call_fn, build_fn=None):
    super().__init__(name='culprit')
    self._call_fn = call_fn
    self._build_fn = build_fn

  def build(self, input_shape):
    if self._build_fn is not None:
      self._build_fn(self)

  def call(self, x, training=False):
    return self._call_fn(self, x)


def _model(call_fn, build_fn=None):
  return functional.FunctionalModel(
    keras_zoo.client_model(lambda x: _Layer(call_fn, build_fn)(x)), name='net'
  )


def _trace(model):
  return model.build_train_step(
    lambda features, logits, *_: {'loss': tf.reduce_sum(logits)},
    batch_size=None,
    context_specs={},
    input_spec=_SPEC,
  )


def _add_counter(layer):
  layer.counter = layer.add_weight(
    'counter', [], dtype=tf.int64, trainable=False
  )


_OUTSIDE = tf.Variable(tf.ones([3]), name='outside')
_LARGE = tf.ones([16, 8, 8, 3])


def _count(layer, x):
  layer.counter.assign_add(1)
  return x


def _assign_in_loop(layer, x):
  for _ in tf.range(3):
    layer.average.assign_add(0.1)
  return x + layer.average


def _add_average(layer):
  layer.average = layer.add_weight('average', [], trainable=False)


def _add_kernel(layer):
  layer.kernel = layer.add_weight('kernel', [])


def _assign_kernel(layer, x):
  layer.kernel.assign(1.0)
  return x * layer.kernel


_TABLE = []


def _look_up(layer, x):
  if not _TABLE:
    with tf.init_scope():
      _TABLE.append(
        tf.lookup.StaticHashTable(
          tf.lookup.KeyValueTensorInitializer([0], [1.0]), 0.0
        )
      )
  return x + _TABLE[0].lookup(tf.constant(0))


@pytest.mark.parametrize(
  'call_fn, build_fn, message',
  [
    (
      lambda layer, x: x * _OUTSIDE,
      None,
      r"'net'.*variable outside:0.* in layer 'culprit'",
    ),
    (
      lambda layer, x: x + tf.reduce_sum(_LARGE),
      None,
      r"float32\(16, 8, 8, 3\) in layer 'culprit'",
    ),
    (_look_up, None, "lookup table.* in layer 'culprit'"),
    (_count, _add_counter, r"counter:0 \(int64.* in layer 'culprit'"),
    (
      lambda layer, x: x + tf.random.normal(tf.shape(x)),
      None,
      "'net': draws random numbers that no seed controls: "
      ".*RandomStandardNormal in layer 'culprit'",
    ),
    (
      lambda layer, x: tf.cond(
        tf.reduce_sum(x) > 0,
        lambda: x + tf.random.uniform(tf.shape(x)),
        lambda: x,
      ),
      None,
      "random numbers that no seed controls: .* in layer 'culprit'",
    ),
    (
      lambda layer, x: tf.ensure_shape(
        tf.numpy_function(lambda a: a, [x], tf.float32), x.shape
      ),
      None,
      "calls back into Python: .* in layer 'culprit'",
    ),
    (_assign_in_loop, _add_average, r"average:0' is assigned inside of a loop"),
    (
      lambda layer, x: x if layer.kernel.handle is None else -x,
      _add_kernel,
      "(?s)^Model 'net': layer 'culprit': .*no attribute 'handle'\\s*$",
    ),
    (
      lambda layer, x: tf.image.adjust_contrast(x * layer.kernel, 2.0),
      _add_kernel,
      "'net': TensorFlow has no gradient of an operation .*AdjustContrast",
    ),
    (
      _assign_kernel,
      _add_kernel,
      "'net': layer 'culprit': assigns to one of its trainable weights",
    ),
  ],
  ids=[
    'variable_of_nobody',
    'large_tensor',
    'table',
    'counter',
    'random',
    'random_in_branch',
    'numpy_function',
    'assignment_in_loop',
    'variables_handle',
    'no_gradient',
    'trainable_assigned',
  ],
)
def test_impure_steps(call_fn, build_fn, message):
  model = _model(call_fn, build_fn)
  before = [np.array(w) for h in model._keras_model for w in h.get_weights()]
  with pytest.raises(errors.UserError, match=message):
    _trace(model)
  # Everything is back in place, also after the error.
  after = [np.array(w) for h in model._keras_model for w in h.get_weights()]
  for a, b in zip(before, after):
    np.testing.assert_array_equal(a, b)
  for half in model._keras_model:
    for layer in half._flatten_layers():
      for value in vars(layer).values():
        assert not (
          isinstance(value, tf.Tensor)
          and not isinstance(value, tf.__internal__.EagerTensor)
        )


class _ProbabilityHead(tf.keras.Model):
  def __init__(self):
    super().__init__()
    self.last = L.Dense(4, name='last')

  def call(self, features):
    return tf.reshape(tf.nn.softmax(self.last(features)), [-1, 4])


@pytest.mark.parametrize(
  'head_fn, message',
  [
    (
      lambda: tf.keras.Sequential([L.Dense(4, 'softmax', name='last')]),
      r"'net': expected a head that returns logits.*'last' ends with a softmax"
      r'.*activation=None',
    ),
    (
      lambda: tf.keras.Sequential(
        [L.Dense(4), L.Activation('sigmoid', name='a')]
      ),
      "'a' ends with a sigmoid",
    ),
    (lambda: tf.keras.Sequential([L.Dense(4), L.Softmax()]), 'a softmax'),
    (_ProbabilityHead, "'private__probability_head' ends with a softmax"),
    (lambda: tf.keras.Sequential([L.Dense(4, 'log_softmax')]), None),
    (lambda: tf.keras.Sequential([L.Dense(4, 'relu')]), None),
  ],
  ids=['dense', 'activation', 'layer', 'subclassed', 'log_softmax', 'relu'],
)
def test_heads_that_return_probabilities(head_fn, message):
  def build_fn():
    return functional.KerasClientModel(
      tf.keras.Sequential([tf.keras.Input(keras_zoo.IMAGE), *_flat_dense()]),
      head_fn(),
    )

  model = functional.FunctionalModel(build_fn, name='net')
  for build in (
    _trace,
    lambda m: m.build_forward(_SPEC),
    lambda m: m.build_head(),
  ):
    if message is None:
      build(model)
    else:
      with pytest.raises(errors.UserError, match=message):
        build(model)


def test_weights_that_no_attribute_holds():
  class Hidden:
    pass

  def build_fn(layer):
    layer.hidden = Hidden()
    layer.hidden.kernel = layer.add_weight('hidden_kernel', [])

  with pytest.raises(
    errors.UserError, match="'net'.*hidden_kernel:0.*attribute"
  ):
    _model(lambda layer, x: x * layer.hidden.kernel, build_fn)


def _pair(extractor_layers, head_layers):
  return lambda: functional.KerasClientModel(
    tf.keras.Sequential([tf.keras.Input(keras_zoo.IMAGE), *extractor_layers()]),
    tf.keras.Sequential(head_layers()),
  )


def _flat_dense(**kwargs):
  return [L.Flatten(), L.Dense(6, **kwargs)]


def _two_outputs():
  images = tf.keras.Input(keras_zoo.IMAGE)
  features = L.Flatten()(images)
  return functional.KerasClientModel(
    tf.keras.Model(images, [features, features]), keras_zoo.Head()
  )


def _sharing():
  shared = L.Dense(6, name='shared')
  return functional.KerasClientModel(
    tf.keras.Sequential(
      [tf.keras.Input(keras_zoo.IMAGE), L.Flatten(), L.Dense(6), shared]
    ),
    tf.keras.Sequential([tf.keras.Input([6]), shared]),
  )


@pytest.mark.parametrize(
  'build_fn, message',
  [
    (
      _pair(lambda: [L.Conv2D(6, 3)], lambda: [L.Dense(4)]),
      r"'net': the feature extractor must return \[batch, feature_dim\], found"
      r' \[None, 6, 6, 6\]. Add a Flatten',
    ),
    (
      _pair(_flat_dense, lambda: [tf.keras.Input([5]), L.Dense(4)]),
      r'head takes \[None, 5\], but the feature extractor returns \[None, 6\]',
    ),
    (
      _pair(_flat_dense, lambda: [tf.keras.Input([6]), L.Reshape([2, 3])]),
      r'head must return \[batch, num_classes\], found \[None, 2, 3\]',
    ),
    (
      _pair(
        lambda: _flat_dense(kernel_constraint='non_neg'), lambda: [L.Dense(4)]
      ),
      r"kernel:0' has a constraint",
    ),
    (
      _pair(lambda: _flat_dense(dtype='mixed_float16'), lambda: [L.Dense(4)]),
      r'computing in float16. Mixed precision',
    ),
    (
      _pair(lambda: _flat_dense(dtype='float64'), lambda: [L.Dense(4)]),
      r"kernel:0' of float64",
    ),
    (_two_outputs, 'one input and one output'),
    (_sharing, r"share the weights \['shared/bias:0', 'shared/kernel:0'\]"),
    (keras_zoo.subclassed, 'no defined input shape.*give `input_shape`'),
  ],
)
def test_unsuitable_models(build_fn, message):
  with pytest.raises(errors.UserError, match=message):
    functional.FunctionalModel(build_fn, name='net')


def test_an_error_of_a_layer_keeps_its_type_and_gets_the_models_name():
  with pytest.raises(TypeError, match='layer "culprit"') as raised:
    _model(lambda layer, x: x * tf.constant(1))
  assert raised.value.__notes__ == ["In the model 'net'."]


def test_not_a_pair_of_models():
  with pytest.raises(TypeError, match='two tf.keras.Model'):
    functional.FunctionalModel(lambda: (L.Dense(3), L.Dense(4)))


def test_images_that_do_not_fit():
  model = functional.FunctionalModel(
    keras_zoo.client_model(keras_zoo.LAYERS['dense']), name='net'
  )
  with pytest.raises(
    errors.UserError, match=r'expected inputs of shape \(8, 8, 3\)'
  ):
    model.build_forward(input_spec.InputSpec((8, 8, 1)))
  with pytest.raises(
    errors.UserError, match=r'expected inputs of shape \(9, 9, 3\)'
  ):
    functional.FunctionalModel(
      keras_zoo.client_model(keras_zoo.LAYERS['dense']), input_shape=(9, 9, 3)
    )


def test_subclassed_model_without_config_cannot_be_copied():
  class Secret(keras_zoo.Head):
    def __init__(self, unknown):
      super().__init__()
      self.unknown = unknown

    def get_config(self):
      raise NotImplementedError

  extractor, _ = keras_zoo.client_model(keras_zoo.LAYERS['dense'])()
  head = Secret(object())
  head(tf.zeros([1, 6]))
  with pytest.raises(errors.UserError, match='cannot be copied.*a function'):
    functional.FunctionalModel.from_keras(
      functional.KerasClientModel(extractor, head)
    )
