"""HtFE-txt and HtFE-sen: HtFLlib's members, sizes and computations."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import architectures
from tff_fedsa.models import families

_WORDS, _LENGTH, _DIM, _CLASSES = 50, 7, 16, 3


@functools.cache
def _build(name, shape=(_LENGTH,), dim=_DIM):
  size = _WORDS if len(shape) == 1 else None
  return architectures.build(name, shape, _CLASSES, dim, vocabulary_size=size)


def _dense(inputs, units):
  return inputs * units + units


def _gates(number, dim, biases=1):
  """A recurrent layer of PyTorch's gates: two matrices, `biases` vectors."""
  return number * (2 * dim * dim + biases * dim)


def _encoder_layer(dim):
  """`torch.nn.TransformerEncoderLayer(dim, heads, dim_feedforward=dim)`."""
  attention = _dense(dim, 3 * dim) + _dense(dim, dim)
  return attention + 2 * _dense(dim, dim) + 2 * 2 * dim


@pytest.mark.parametrize(
  'name, beside_the_embedding',
  [
    ('txt_fasttext', _dense(_DIM, _DIM)),
    ('txt_logistic', 0),
    # PyTorch has two biases: 2 * 4 * _DIM numbers more, of no effect.
    ('txt_lstm', 2 * _gates(4, _DIM)),
    pytest.param(
      'txt_gru', 2 * _gates(3, _DIM, biases=2), marks=pytest.mark.slow
    ),
    pytest.param(
      'txt_bilstm',
      2 * _gates(4, _DIM) + _dense(2 * _DIM, _DIM),
      marks=pytest.mark.slow,
    ),
    (
      'txt_cnn',
      sum(_dense(k * _DIM, 100) for k in (3, 4, 5)) + _dense(300, _DIM),
    ),
    ('txt_transformer_h8_l2', _DIM + 2 * _encoder_layer(_DIM)),
    ('txt_transformer_h1_l4', _DIM + 4 * _encoder_layer(_DIM)),
  ],
)
def test_texts_have_the_parameters_of_their_definitions(
  name, beside_the_embedding
):
  model = _build(name)
  head = _dense(_DIM, _CLASSES)
  assert model.num_trainable == _WORDS * _DIM + beside_the_embedding + head
  assert model.num_weights == model.num_trainable


@pytest.mark.parametrize(
  'name, convolutions, left',
  [
    ('harcnn1', [(9, 9, 32)], 60 * 32),
    ('harcnn1_stride2', [(9, 9, 32)], 30 * 32),
    ('harcnn1_stride3', [(9, 9, 32)], 20 * 32),
    # HtFLlib's 1664 = 64 * 26.
    ('harcnn2', [(9, 9, 32), (9, 32, 64)], 1664),
    ('harcnn2_stride2', [(9, 9, 32), (9, 32, 64)], 5 * 64),
    ('harcnn2_stride3', [(9, 9, 32), (9, 32, 64)], 2 * 64),
    ('harcnn3', [(5, 9, 32), (5, 32, 64), (5, 64, 128)], 12 * 128),
    ('harcnn3_stride2', [(5, 9, 32), (5, 32, 64), (5, 64, 128)], 128),
  ],
)
def test_harcnns_have_the_parameters_of_their_definitions(
  name, convolutions, left
):
  model = _build(name, (128, 9), dim=512)
  expected = sum(_dense(k * c, filters) for k, c, filters in convolutions)
  assert model.num_trainable == expected + _dense(512, _CLASSES)
  pooled = model.halves[0].layers[-1]
  assert np.prod(pooled.input_shape[1:]) == left


def test_harcnns_average_neighbouring_steps_of_a_channel():
  model = _build('harcnn1', (128, 1), dim=32)
  extractor, _ = model.halves
  series = np.random.default_rng(0).normal(size=[2, 128, 1]).astype('f')
  blocks = tf.keras.Model(extractor.input, extractor.layers[2].output)
  # 60 steps of 32 channels: bin c has the steps of channel c.
  np.testing.assert_allclose(
    extractor(series), tf.reduce_mean(blocks(series), axis=1), atol=1e-6
  )
  with pytest.raises(ValueError, match='harcnn3 needs series of at least 36'):
    _build('harcnn3', (35, 9))
  _build('harcnn3', (36, 9))


@pytest.mark.parametrize(
  'family, members',
  [
    ('HtFE-txt-2', 'txt_fasttext txt_logistic'),
    ('HtFE-txt-4', 'txt_fasttext txt_logistic txt_lstm txt_bilstm'),
    (
      'HtFE-txt-5-1',
      ' '.join(f'txt_transformer_h8_l{n}' for n in (1, 2, 4, 8, 16)),
    ),
    (
      'HtFE-txt-5-2',
      ' '.join(f'txt_transformer_h{n}_l4' for n in (1, 2, 4, 8, 16)),
    ),
    (
      'HtFE-txt-5-3',
      ' '.join(f'txt_transformer_h{n}_l{n}' for n in (1, 2, 4, 8, 16)),
    ),
    (
      'HtFE-txt-6',
      'txt_fasttext txt_lstm txt_bilstm txt_transformer_h8_l2 txt_logistic '
      'txt_gru',
    ),
    ('HtFE-sen-2', 'harcnn2 harcnn2_stride2'),
    ('HtFE-sen-3', 'harcnn2 harcnn2_stride2 harcnn2_stride3'),
    (
      'HtFE-sen-5',
      'harcnn2 harcnn2_stride2 harcnn2_stride3 harcnn1 harcnn3',
    ),
    (
      'HtFE-sen-8',
      'harcnn2 harcnn2_stride2 harcnn2_stride3 harcnn1 harcnn1_stride2 '
      'harcnn1_stride3 harcnn3 harcnn3_stride2',
    ),
  ],
)
def test_members_of_htfllibs_families(family, members):
  assert families.members(family) == tuple(members.split())


_TOKENS = np.array([[5, 3, 8, 0, 0, 0, 0], [2, 9, 4, 7, 1, 6, 3]], np.int32)


def test_fasttext_by_hand():
  model = _build('txt_fasttext')
  extractor, _ = model.halves
  table, kernel, bias = extractor.get_weights()
  table[0] = 0.0  # Padding is seen, as zeros.
  expected = table[_TOKENS].mean(axis=1) @ kernel + bias
  np.testing.assert_allclose(extractor(_TOKENS), expected, atol=1e-5)
  model = _build('txt_logistic')
  extractor, _ = model.halves
  (table,) = extractor.get_weights()
  np.testing.assert_allclose(
    extractor(_TOKENS), table[_TOKENS].mean(axis=1), atol=1e-6
  )


def _sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


def _lstm(steps, kernel, recurrent, bias):
  """The equations of torch.nn.LSTM, gates i, f, g, o; all outputs."""
  outputs, h, c = [], np.zeros(_DIM), np.zeros(_DIM)
  for step in steps:
    i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    h = _sigmoid(o) * np.tanh(c)
    outputs.append(h)
  return outputs


def _gru(steps, kernel, recurrent, biases):
  """The equations of torch.nn.GRU; Keras sorts the gates z, r, n."""
  outputs, h = [], np.zeros(_DIM)
  for step in steps:
    of_step = np.split(step @ kernel + biases[0], 3)
    of_state = np.split(h @ recurrent + biases[1], 3)
    z, r = (_sigmoid(of_step[k] + of_state[k]) for k in (0, 1))
    n = np.tanh(of_step[2] + r * of_state[2])
    h = (1.0 - z) * n + z * h
    outputs.append(h)
  return outputs


def _two_layers(layer, steps, weights):
  first, second = weights[:3], weights[3:]
  return layer(layer(steps, *first), *second)[-1]


def _bilstm(steps, weights):
  *weights, kernel, bias = weights
  forward = _lstm(steps, *weights[:3])[-1]
  backward = _lstm(steps[::-1], *weights[3:])[-1]
  return np.concatenate([forward, backward]) @ kernel + bias


@pytest.mark.parametrize(
  'name, by_hand',
  [
    ('txt_lstm', lambda *own: np.maximum(_two_layers(_lstm, *own), 0.0)),
    pytest.param(
      'txt_gru', lambda *own: _two_layers(_gru, *own), marks=pytest.mark.slow
    ),
    pytest.param('txt_bilstm', _bilstm, marks=pytest.mark.slow),
  ],
)
def test_recurrent_networks_by_hand(name, by_hand):
  model = _build(name)
  extractor, _ = model.halves
  table, *weights = extractor.get_weights()
  # Padding behind a text is not seen.
  expected = [by_hand(table[own[own > 0]], weights) for own in _TOKENS]
  np.testing.assert_allclose(extractor(_TOKENS), expected, atol=1e-5)


def test_transformers_need_heads_that_divide_their_width():
  with pytest.raises(ValueError, match='multiple of its 16 heads, found 24'):
    _build('txt_transformer_h16_l4', dim=24)
  with pytest.raises(ValueError, match='is even'):
    _build('txt_transformer_h1_l1', dim=15)
  with pytest.raises(ValueError, match='at least 5 tokens, found 4'):
    _build('txt_cnn', (4,))


def test_places_of_a_transformer_are_seen():
  model = _build('txt_transformer_h2_l2')
  extractor, _ = model.halves
  swapped = _TOKENS[:, [1, 0, *range(2, _LENGTH)]]
  assert np.abs(extractor(swapped) - extractor(_TOKENS)).max() > 1e-4


@pytest.mark.parametrize(
  'name',
  [
    'txt_transformer_h1_l1',
    'harcnn2',
    pytest.param('txt_gru', marks=pytest.mark.slow),
    pytest.param('txt_bilstm', marks=pytest.mark.slow),
  ],
)
def test_steps_are_functions_of_their_seed(name):
  spec = input_spec_lib.InputSpec((50, 2), 'float32')
  inputs = np.ones([2, 50, 2], np.float32)
  if name.startswith('txt'):
    spec = input_spec_lib.InputSpec((_LENGTH,), 'int32', vocabulary_size=_WORDS)
    inputs = _TOKENS
  model = _build(name, spec.shape)
  step = model.build_train_step(
    lambda features, logits, *_: {'loss': tf.reduce_mean(tf.square(logits))},
    batch_size=2,
    context_specs={},
    input_spec=spec,
  )
  split = model.split(tf.constant(model.initial_weights(2)))

  def loss(seed):
    outputs = step(*split, inputs, np.zeros(2, np.int32), {}, seed)
    assert all(np.isfinite(g).all() for g in outputs.gradients)
    return float(outputs.losses['loss'])

  assert loss([0, 1]) == loss([0, 1])
  has_dropout = name in ('txt_gru', 'txt_transformer_h1_l1')
  assert (loss([0, 1]) != loss([5, 1])) == has_dropout
