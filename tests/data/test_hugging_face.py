"""Data sets of Hugging Face, by objects that behave like theirs."""

import types

import numpy as np
import pytest

from tff_fedsa import data

_LABELS = ['no', 'perhaps', 'yes']


class _Dataset:
  """What `datasets.Dataset` has in common with this class is used."""

  def __init__(self, **columns):
    self._columns = columns
    self.column_names = [*columns]
    self.features = {
      name: types.SimpleNamespace(dtype=type(column[0]).__name__)
      for name, column in columns.items()
    }
    if 'label' in columns:
      self.features['label'] = types.SimpleNamespace(names=_LABELS)

  def __len__(self):
    return len(next(iter(self._columns.values())))

  def __getitem__(self, column):
    return self._columns[column]


def _texts(count, users=2):
  return _Dataset(
    text=[f'word{i % 3} the end' for i in range(count)],
    label=[i % 3 for i in range(count)],
    user=[f'user {i % users}' for i in range(count)],
  )


def test_texts_and_names_of_classes():
  task = data.from_hugging_face(_texts(12), inputs='text', client='user')
  assert task.client_names == ('user 0', 'user 1')
  assert task.class_names == tuple(_LABELS)
  assert task.input_spec.kind == 'tokens' and 'end' in task.words
  # The only other column is the input.
  again = data.from_hugging_face(_texts(12), client='user')
  assert again.words == task.words


def test_splits():
  splits = {'test': _texts(3), 'train': _texts(9), 'validation': _texts(6)}
  task = data.from_hugging_face(
    splits,
    inputs='text',
    num_clients=2,
    partition='iid',
    test_set='original',
  )
  assert sum(len(client.train['y']) for client in task.clients) == 15
  assert len(task.global_test()['test']['y']) == 3
  with pytest.raises(ValueError, match="found unsupervised.*dataset\\['unsup"):
    data.from_hugging_face({'unsupervised': _texts(3)})


def test_images_tables_and_absent_classes():
  images = np.random.default_rng(0).integers(0, 256, [12, 4, 4, 3], np.uint8)
  clients = ['a', 'b'] * 6
  task = data.from_hugging_face(
    _Dataset(image=[*images], label=[0, 0, 2, 2] * 3, who=clients),
    client='who',
  )
  assert task.input_spec.shape == (4, 4, 3)
  assert task.class_names == ('no', 'yes')
  table = _Dataset(
    age=[float(i) for i in range(12)],
    sex=['f', 'm'] * 6,
    label=[0, 1, 2] * 4,
    who=clients,
  )
  task = data.from_hugging_face(table, client='who')
  assert task.input_spec.kind == 'table' and task.input_spec.shape == (3,)
  several = _Dataset(
    image=[*images],
    said=[f'word{i} the end' for i in range(12)],
    title=[f'word{i}' for i in range(12)],
    age=[float(i) for i in range(12)],
    label=[0, 1, 2] * 4,
    who=clients,
  )
  task = data.from_hugging_face(several, client='who')
  assert task.input_spec.model_shape == {
    'said': (3,),
    'title': (1,),
    'image': (4, 4, 3),
    'columns': (1,),
  }
  task = data.from_hugging_face(several, inputs=['image', 'age'], client='who')
  assert {*task.input_spec.model_shape} == {'image', 'columns'}


def test_unsuitable_data_sets_are_refused():
  with pytest.raises(ValueError, match="no column 'sentence'; columns: text"):
    data.from_hugging_face(_texts(6), inputs='sentence')
  with pytest.raises(TypeError, match='column_names.*found list'):
    data.from_hugging_face([1, 2])
  images = [np.zeros([4, 5 + i, 3], np.uint8) for i in range(2)]
  uneven = _Dataset(image=images, label=[0, 1])
  with pytest.raises(ValueError, match=r'dataset, image: .* and \(4, 6, 3\)'):
    data.from_hugging_face(uneven)


def test_series_of_unequal_length_are_masked():
  series = [[[1.0 * i, 2.0]] * (1 + i % 3) for i in range(12)]
  ids = [[1] * (1 + i % 3) for i in range(12)]
  who = [*'ab'] * 6
  table = _Dataset(walk=series, ids=ids, label=[0, 1, 2] * 4, who=who)
  task = data.from_hugging_face(table, inputs='walk', client='who')
  assert task.input_spec.masked and task.input_spec.shape == (3, 3)
  task = data.from_hugging_face(table, client='who', series_length=2)
  assert task.input_spec.masked == ('walk',)
  assert task.input_spec.model_shape == {'walk': (2, 3), 'ids': (3,)}
