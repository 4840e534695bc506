"""Any data set of TFDS by its keys, on one that is prepared here."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tff_fedsa.data import datasets
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.data.readers import tfds_by_key


class MadeUpReviews(tfds.core.GeneratorBasedBuilder):
  """Reviews with a text, its tokens, a picture and a person."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = tfds.features
    return self.dataset_info_from_configs(
      features=features.FeaturesDict(
        {
          'text': features.Text(),
          'tokens': features.Sequence(np.int64),
          'walk': features.Tensor(shape=(None, 2), dtype=np.float32),
          'picture': features.Image(shape=(None, None, 3)),
          'person': {'age': np.float32, 'sex': features.Text()},
          'label': features.ClassLabel(names=['bad', 'good']),
          'stars': features.ClassLabel(names=['one', 'two']),
        }
      ),
      supervised_keys=('text', 'label'),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    sizes = {'train': 6, 'unsupervised': 2, 'test': 4, 'validation': 2}
    return {
      name: self._generate_examples(name, size) for name, size in sizes.items()
    }

  def _generate_examples(self, split, count):
    for i in range(count):
      yield (
        i,
        {
          'text': f'word{i} the end',
          'tokens': np.arange(1, 2 + i),
          'walk': np.full([2 + i, 2], i % 2, np.float32),
          'picture': np.full([4 + i % 2, 5, 3], 10 * i, np.uint8),
          'person': {'age': 20.0 + i, 'sex': 'fm'[i % 2]},
          'label': i % 2,
          'stars': -1 if split == 'test' else i % 2,
        },
      )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('tfds'))
  MadeUpReviews(data_dir=path).download_and_prepare()
  return path


def _read(folder, *input_keys, **options):
  return tfds_by_key.read(
    'made_up_reviews', data_dir=folder, input_keys=input_keys, **options
  )


def test_the_supervised_keys_are_the_default(folder):
  source = _read(folder)
  # Train and validation, then test.
  assert source.num_train == 8 and len(source.labels) == 12
  assert source.class_names == ('bad', 'good')
  assert 'end' in source.words
  assert source.notices == (
    "made_up_reviews: left out the splits ['unsupervised'].",
  )
  spec = task_spec.TaskSpec(
    dataset='tfds',
    tfds_name='made_up_reviews',
    data_dir=folder,
    num_clients=2,
    partition='iid',
    test_set='original',
    sequence_length=2,
  )
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.input_spec.kind == 'tokens' and task.input_spec.shape == (2,)


def test_a_test_split_without_labels_is_left_out(folder):
  source = _read(folder, 'person/age', label_key='stars')
  # Train, then validation, which is the test set instead.
  assert len(source.labels) == 8 and source.num_train == 6
  assert source.class_names == ('one', 'two')
  assert "left out the splits ['test', 'unsupervised']" in source.notices[0]


def test_other_inputs(folder):
  source = _read(folder, 'tokens', sequence_length=4)
  tokens = source.images
  assert source.notices[0] == (
    'made_up_reviews: 12 examples of 1 to 6 tokens have 4 now: 8 are padded at '
    'their end, 2 were cut.'
  )
  assert tokens.shape == (12, 4) and tokens.dtype == np.int64
  assert {*map(tuple, tokens[:6])} == {
    (1, 0, 0, 0),
    (1, 2, 0, 0),
    (1, 2, 3, 0),
    (1, 2, 3, 4),
  }
  pictures = _read(folder, 'picture', image_size=8).images
  assert pictures.shape == (12, 8, 8, 3) and pictures.dtype == np.uint8
  age = _read(folder, 'person/age')
  assert age.images.shape == (12, 1) and age.images.min() == 20.0
  table = _read(folder, 'person/age', 'person/sex')
  assert table.images.shape == (12, 3) and table.num_train == 8
  np.testing.assert_array_equal(table.images[:, 2], table.labels)
  assert table.class_names == ('bad', 'good')
  several = _read(
    folder, 'picture', 'text', 'tokens', 'person/age', image_size=8
  )
  assert several.input_spec.model_shape == {
    'text': (3,),
    'picture': (8, 8, 3),
    'tokens': (6,),
    'columns': (1,),
  }
  assert several.text_parts == ('text',) and 'end' in several.words
  by_text = _read(folder, 'person/age', label_key='person/sex')
  assert by_text.class_names == ('f', 'm')


def test_series_of_unequal_length_are_masked(folder):
  source = _read(folder, 'walk')
  assert source.masked and source.images.shape == (12, 7, 3)
  several = _read(folder, 'walk', 'person/age', series_length=3)
  assert several.input_spec.masked == ('walk',)
  assert several.input_spec.model_shape == {'walk': (3, 3), 'columns': (1,)}
  spec = task_spec.TaskSpec(
    dataset='tfds',
    tfds_name='made_up_reviews',
    input_key=('walk',),
    data_dir=folder,
    num_clients=2,
    partition='iid',
    series_length=4,
  )
  spec.refuse_ignored()
  assert tasks.load_task(spec).input_spec.shape == (4, 3)


@pytest.mark.parametrize(
  'keys, label, message',
  [
    (('txt',), None, "no feature 'txt' .--input_key.*person/age, person/sex"),
    ((), 'mark', "no feature 'mark' .--label_key.*keys: .*tokens"),
    (('label',), None, 'an input other than the label'),
  ],
)
def test_unsuitable_keys_are_refused_with_those_there_are(
  folder, keys, label, message
):
  with pytest.raises(ValueError, match=message):
    _read(folder, *keys, label_key=label)


def test_unknown_and_missing_data_sets(folder, tmp_path):
  with pytest.raises(ValueError, match="TFDS has no data set 'no_such_data'"):
    datasets.load('tfds', tfds_name='no_such_data', data_dir=folder)
  with pytest.raises(FileNotFoundError, match='not prepared.*--download'):
    datasets.load('tfds', tfds_name='imdb_reviews', data_dir=folder)
  with pytest.raises(FileNotFoundError, match='nowhere'):
    datasets.load('tfds', tfds_name='mnist', data_dir=str(tmp_path / 'nowhere'))
  with pytest.raises(ValueError, match='needs tfds_name, e.g. imdb_reviews'):
    datasets.load('tfds')
  with pytest.raises(
    ValueError, match='tfds_name would be ignored.*is not tfds'
  ):
    task_spec.TaskSpec(tfds_name='mnist').refuse_ignored()
