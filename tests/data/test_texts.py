"""Texts as tokens, with the vocabulary of train examples."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa.data import texts

_TEXTS = [
  'The cat sat.',
  'the dog, the DOG!',
  'a bird sang and the cat ran away',
  '',
]


def test_tokens_are_those_of_keras():
  tokens, words = texts.encoded(_TEXTS, sequence_length=6, what='x')
  layer = tf.keras.layers.TextVectorization(
    vocabulary=words[2:], output_sequence_length=6
  )
  np.testing.assert_array_equal(tokens, layer(tf.constant(_TEXTS)))
  assert tokens.dtype == np.int32 and not tokens[3].any()
  said = [' '.join(words[t] for t in own if t) for own in tokens]
  assert said[1] == 'the dog the dog'
  assert said[2] == 'a bird sang and the cat'  # Cut off.
  # No longer than the longest.
  assert texts.encoded(_TEXTS, sequence_length=50, what='x')[0].shape == (4, 8)


def test_the_vocabulary_is_of_train_examples():
  tokens, words = texts.encoded(_TEXTS, sequence_length=9, what='x')
  train = [np.array([0]), np.array([1])]
  new, known = texts.trained_words(tokens, words, train, 100)
  layer = tf.keras.layers.TextVectorization()
  layer.adapt(tf.constant(_TEXTS[:2]))
  assert set(known) == set(layer.get_vocabulary())
  assert known[:3] == ('', '[UNK]', 'the')
  said = [[known[t] for t in own if t] for own in new]
  assert said[0] == ['the', 'cat', 'sat']
  assert said[2] == ['[UNK]'] * 4 + ['the', 'cat'] + ['[UNK]'] * 2
  new, known = texts.trained_words(tokens, words, train, 4)
  assert known == ('', '[UNK]', 'the', 'dog') and new.max() == 3
  with pytest.raises(ValueError, match='vocabulary_size > 2'):
    texts.trained_words(tokens, words, train, 2)


def test_what_is_text():
  assert texts.are_texts(['a', 'b'])
  assert texts.are_texts(np.array(['a', 'b'], object))
  assert not texts.are_texts(np.array([1, 2]))
  assert not texts.are_texts(np.array([1, 'b'], object))
  with pytest.raises(ValueError, match='x: expected texts with words'):
    texts.encoded(['', '!'], sequence_length=3, what='x')
