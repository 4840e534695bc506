"""Pretrained embeddings: files, the share that is found, and models."""

import numpy as np
import pytest
import tensorflow as tf

from tff_fedsa import experiment
from tff_fedsa.data import embeddings
from tff_fedsa.data import own_data
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.models import families

_WORDS = ('', '[UNK]', 'the', 'cat', 'paris', 'qux')
_LINES = ['the 1 2 3', 'Paris 4 5 6', 'cat 7 8 9', 'paris 0 1 0', 'the 9 9 9']


def _file(tmp_path, lines=_LINES):
  path = tmp_path / 'vectors.txt'
  path.write_text('\n'.join(lines))
  return str(path)


@pytest.mark.parametrize('header', [[], ['5 3']])
def test_glove_and_word2vec(tmp_path, header):
  path = _file(tmp_path, header + _LINES)
  table = embeddings.read(path, _WORDS)
  assert table.dtype == np.float32 and table.shape == (6, 3)
  # The first line of a word counts, one in lower case before others.
  expected = [[1, 2, 3], [7, 8, 9], [0, 1, 0]]
  np.testing.assert_array_equal(table[2:5], expected)
  assert np.isnan(table[[0, 1, 5]]).all()
  assert embeddings.describe(table, path).startswith('3 of 4 words of the')
  assert '(75%) have an embedding of width 3' in embeddings.describe(
    table, path
  )


@pytest.mark.parametrize(
  'lines, message',
  [
    (['a 1 2', 'the 1'], 'line 2: expected 2 finite numbers, found 1'),
    (['a 1 2', 'the 1 x'], 'line 2: expected numbers'),
    (['the 1 nan'], 'line 1: expected 2 finite numbers'),
    ([], 'expected lines of a word and its numbers, found none'),
  ],
)
def test_wrong_files_are_refused(tmp_path, lines, message):
  with pytest.raises(ValueError, match=message):
    embeddings.read(_file(tmp_path, lines), _WORDS)
  with pytest.raises(FileNotFoundError, match='--embeddings_file'):
    embeddings.read(str(tmp_path / 'none.txt'), _WORDS)
  (tmp_path / 'binary').write_bytes(b'3 2\nthe \xff\xfe\xfd')
  with pytest.raises(ValueError, match='no text in UTF-8'):
    embeddings.read(str(tmp_path / 'binary'), _WORDS)


def _task(path, x=('the cat', 'the dog', 'a cat', 'cat dog')):
  return own_data.from_arrays(
    [*x] * 4, [0, 1] * 8, client_ids=['a', 'b'] * 8, embeddings_file=path
  )


def test_models_start_with_the_vectors(tmp_path):
  path = _file(tmp_path)
  task = _task(path)
  assert '2 of 4 words of the vocabulary (50%)' in tasks.report(task)
  models = experiment.Experiment(
    task, family='text_mean,text_cnn', feature_dim=4
  ).models
  cat = task.words.index('cat')
  dog = task.words.index('dog')
  for model in models:
    (of_0, of_1) = (
      next(
        layer.get_weights()[0]
        for layer in model.to_keras(model.initial_weights(seed))[0].layers
        if isinstance(layer, tf.keras.layers.Embedding)
      )
      for seed in (0, 1)
    )
    assert of_0.shape == (len(task.words), 3)
    np.testing.assert_array_equal(of_0[cat], [7, 8, 9])
    np.testing.assert_array_equal(of_1[cat], [7, 8, 9])
    assert not np.array_equal(of_0[dog], of_1[dog])


def test_what_does_not_fit_is_refused(tmp_path):
  path = _file(tmp_path)
  table = _task(path).embeddings
  build = families.build_family
  with pytest.raises(ValueError, match='width 3, its embeddings 4.*feature_d'):
    build('txt_fasttext', (5,), 2, 4, vocabulary_size=6, embeddings=table)
  build('txt_fasttext', (5,), 2, 3, vocabulary_size=6, embeddings=table)
  with pytest.raises(ValueError, match='embeddings_file needs texts'):
    own_data.from_arrays(
      np.ones([8, 2], int),
      [0, 1] * 4,
      client_ids=[0] * 8,
      embeddings_file=path,
    )
  with pytest.raises(ValueError, match='embeddings_file.*are no texts'):
    task_spec.TaskSpec(embeddings_file=path).refuse_ignored()


def test_texts_have_the_mean_of_their_words(tmp_path, caplog):
  path = _file(tmp_path)
  texts = ['The_cat', 'paris/cat CAT', 'the QUX, the cat!']
  found = embeddings.of_texts(path, texts)
  assert found.dtype == np.float32
  expected = [[4, 5, 6], [14 / 3, 17 / 3, 6], [3, 4, 5]]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert 'lacks these words: qux.' in caplog.text


def test_a_class_without_a_known_word_is_named(tmp_path):
  texts = ['cat', 'qux', 'the', '??']
  message = r"no word of these classes: 1 \('qux'\), 3 \('\?\?'\)"
  with pytest.raises(ValueError, match=message):
    embeddings.of_texts(_file(tmp_path), texts)
