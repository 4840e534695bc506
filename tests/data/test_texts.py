"""Texts as tokens, with the vocabulary of train examples."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tff_fedsa.data import input_spec
from tff_fedsa.data import own_data
from tff_fedsa.data import packing
from tff_fedsa.data import partition
from tff_fedsa.data import sources
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
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


def test_a_vocabulary_is_given(tmp_path):
  path = tmp_path / 'words.txt'
  path.write_text('\n[UNK]\ncat\nfish\nthe\n')
  given = texts.read_words(str(path))
  assert given == ('cat', 'fish', 'the')
  tokens, words = texts.encoded(_TEXTS, sequence_length=9, what='x')
  new, known = texts.given_words(tokens, words, given)
  layer = tf.keras.layers.TextVectorization(
    vocabulary=[*given], output_sequence_length=9
  )
  np.testing.assert_array_equal(new, layer(tf.constant(_TEXTS))[:, :8])
  assert known == ('', '[UNK]', *given)
  task = own_data.from_arrays(
    {'said': _TEXTS * 2, 'age': np.arange(8.0)},
    [0, 1] * 4,
    client_ids=[0, 0, 1, 1] * 2,
    vocabulary_file=str(path),
  )
  assert task.words == known
  assert task.input_spec.vocabulary_size == {'said': 5}
  path.write_text('cat\ncat\n')
  with pytest.raises(ValueError, match=r"each once, .*twice \['cat'\]"):
    texts.read_words(str(path))
  with pytest.raises(FileNotFoundError, match='vocabulary_file'):
    texts.read_words(str(tmp_path / 'nothing'))


def test_what_is_text():
  assert texts.are_texts(['a', 'b'])
  assert texts.are_texts(np.array(['a', 'b'], object))
  assert not texts.are_texts(np.array([1, 2]))
  assert not texts.are_texts(np.array([1, 'b'], object))
  with pytest.raises(ValueError, match='x: expected texts with words'):
    texts.encoded(['', '!'], sequence_length=3, what='x')


def _pairs():
  """A table of two texts, each of which a client has twice."""
  return pd.DataFrame(
    {
      'premise': ['a dog runs', 'a cat', 'only'] * 4,
      'hypothesis': ['dog', 'a dog runs far away', 'rare cat'] * 4,
      'age': range(12),
      'label': [0, 1, 0] * 4,
      'who': ['x', 'y'] * 6,
    }
  )


def _read_back(task, part):
  """Returns the texts of all examples of a task, from tokens and words."""
  return sorted(
    ' '.join(task.words[token] for token in row if token)
    for client in task.clients
    for examples in client
    for row in task.input_spec.unpack(examples['x'])[part]
  )


def test_two_texts_have_one_vocabulary(tmp_path):
  frame = _pairs()
  task = own_data.from_dataframe(
    frame, label='label', client='who', text=['premise', 'hypothesis']
  )
  # Each part is as long as its longest text.
  assert task.input_spec.model_shape == {'premise': (3,), 'hypothesis': (5,)}
  sizes = task.input_spec.vocabulary_size
  assert sizes == {part: len(task.words) for part in sizes} and len(sizes) == 2
  assert task.words.count('dog') == 1
  for part in ('premise', 'hypothesis'):
    assert _read_back(task, part) == sorted(frame[part])
  frame.to_csv(tmp_path / 'pairs.csv', index=False)
  spec = task_spec.TaskSpec(
    dataset='csv',
    data_dir=str(tmp_path / 'pairs.csv'),
    client_column='who',
    text_column='premise,hypothesis',
  )
  spec.refuse_ignored()
  read = tasks.load_task(spec)
  assert own_data.digest(read) == own_data.digest(task)
  with_age = dataclasses.replace(spec, text_with_columns=True)
  assert {*tasks.load_task(with_age).input_spec.model_shape} == {
    'premise',
    'hypothesis',
    'columns',
  }
  # A comma may be part of a name.
  frame.rename(columns={'premise': 'premise,hypothesis'}).to_csv(
    tmp_path / 'pairs.csv', index=False
  )
  assert tasks.load_task(spec).input_spec.shape == (3,)
  missing = dataclasses.replace(spec, text_column='premise,hypothesi')
  with pytest.raises(ValueError, match="no column 'premise'"):
    tasks.load_task(missing)


def test_words_of_two_texts_are_those_of_train_examples():
  tokens = np.array([[2, 3], [4, 5]], np.int32)
  one = input_spec.InputSpec((1,), 'int32', vocabulary_size=6)
  packed = packing.PackedSpec((('a', one), ('b', one)))
  both = sources.Source(
    name='x',
    images=packed.pack({'a': tokens[:, :1], 'b': tokens[:, 1:]}),
    labels=np.array([0, 1]),
    class_names=('0', '1'),
    words=('', '[UNK]', 'p', 'q', 'r', 's'),
    packed=packed,
    text_parts=('a', 'b'),
  )
  train, test = (np.array([0]),), (np.array([1]),)
  task = tasks.task_from_source(both, partition.Partition(train, test))
  assert task.words == ('', '[UNK]', 'p', 'q')
  (client,) = task.clients
  for part, token in (('a', 2), ('b', 3)):
    assert task.input_spec.unpack(client.train['x'])[part].tolist() == [[token]]
    assert task.input_spec.unpack(client.test['x'])[part].tolist() == [[1]]


def test_vectors_of_words_are_for_both_texts(tmp_path):
  path = tmp_path / 'vectors.txt'
  path.write_text('dog 1 2\ncat 3 4\n')
  inputs = {c: [*_pairs()[c]] for c in ('premise', 'hypothesis')}
  options = dict(client_ids=['x', 'y'] * 6, embeddings_file=str(path))
  task = own_data.from_arrays(inputs, [0, 1, 0] * 4, **options)
  assert np.isfinite(task.embeddings).all(axis=1).sum() == 2
  other = {**inputs, 'code': np.full([12, 1], len(task.words) - 1)}
  with pytest.raises(ValueError, match='tokens that are no words'):
    own_data.from_arrays(other, [0, 1, 0] * 4, **options)
