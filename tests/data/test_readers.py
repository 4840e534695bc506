"""Sensors, texts and hospitals in their published layouts."""

import os

import numpy as np
import pytest

from tests.data import made_up_files
from tff_fedsa.data import datasets
from tff_fedsa.data import task_spec
from tff_fedsa.data import tasks
from tff_fedsa.data.readers import pamap2
from tff_fedsa.data.readers import shakespeare


def _rewrite(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))


def test_har(tmp_path):
  path = made_up_files.har(tmp_path / 'har')
  cache = str(tmp_path / 'cache')
  for _ in range(2):  # From its files, and from the cache.
    source = datasets.load('har', data_dir=path, cache_dir=cache)
    assert source.images.shape == (12, 128, 9) and source.num_train == 6
    assert source.images.dtype == np.float32
    np.testing.assert_array_equal(source.images[2, 5], 20.0 + np.arange(9))
    assert source.labels.tolist() == [*range(6)] * 2
    assert source.class_names[5] == 'LAYING'
    assert source.client_ids[:2].tolist() == ['subject 01', 'subject 03']
    assert {*source.client_ids[6:]} == {'subject 30'}
  spec = task_spec.TaskSpec(dataset='har', data_dir=path, cache_dir='none')
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.client_names == ('subject 01', 'subject 03', 'subject 30')
  assert task.input_spec.kind == 'series'
  # Subjects of the original test set do not train.
  task = tasks.load_task(
    task_spec.TaskSpec(
      dataset='har', data_dir=path, cache_dir='none', test_set='original'
    )
  )
  assert task.num_clients == 2 and len(task.clients[0].test['y']) == 6


@pytest.mark.parametrize(
  'file, old, new, message',
  [
    ('y_train.txt', '5\n', '7\n', 'line 5: expected an activity .* found 7'),
    ('y_train.txt', '6\n', '', 'expected 5 lines, as .*, found 6'),
    ('subject_train.txt', '1\n', 'x\n', 'expected lines of 1 numbers'),
    ('y_train.txt', '1\n', '1 2\n', 'y_train.txt.*expected'),
  ],
)
def test_wrong_files_of_har_are_named(tmp_path, file, old, new, message):
  path = made_up_files.har(tmp_path)
  _rewrite(tmp_path / 'train' / file, old, new)
  with pytest.raises(ValueError, match=message):
    datasets.load('har', data_dir=path)
  os.remove(tmp_path / 'train' / file)
  with pytest.raises(FileNotFoundError, match=f"No file 'train/{file}.*UCI re"):
    datasets.load('har', data_dir=path)


def test_pamap2(tmp_path):
  path = made_up_files.pamap2(tmp_path)
  source = datasets.load('pamap2', data_dir=path, window_length=4)
  # Of 10, 9 and 3 steps there are 2, 2 and no windows of 4.
  assert source.images.shape == (8, 4, 27)
  assert source.labels.tolist() == [0, 0, 11, 11] * 2
  assert source.class_names[11] == 'rope jumping'
  assert source.client_ids.tolist() == ['subject101'] * 4 + ['subject102'] * 4
  # What is missing lies on the line between its neighbours.
  steps = np.array([0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15, 16, 17, 18, 19, 20])
  expected = 100.0 * np.array(pamap2.COLUMNS) + steps[:, None]
  np.testing.assert_allclose(source.images[:4].reshape(16, 27), expected)
  # Acceleration, angular velocity and magnetic field of the second sensor.
  assert pamap2.COLUMNS[9:18] == (21, 22, 23, 27, 28, 29, 30, 31, 32)
  assert '2.67% of the numbers were missing' in source.notices[0]
  with pytest.raises(ValueError, match='no run of an activity has 256 steps'):
    datasets.load('pamap2', data_dir=path)
  file = tmp_path / 'Protocol' / 'subject101.dat'
  _rewrite(file, ' 24.00 ', ' 25.00 ')
  with pytest.raises(ValueError, match='line 14: unknown activity 25; known'):
    datasets.load('pamap2', data_dir=path)
  file.write_text('1 2\n')
  with pytest.raises(ValueError, match='expected 54 numbers .* found 2'):
    datasets.load('pamap2', data_dir=path)
  table = np.ones([5, 54])
  table[:, 4] = np.nan
  np.savetxt(file, table)
  with pytest.raises(ValueError, match='column 5 has no number at all'):
    datasets.load('pamap2', data_dir=path)
  for name in os.listdir(tmp_path / 'Protocol'):
    os.remove(tmp_path / 'Protocol' / name)
  with pytest.raises(FileNotFoundError, match="No file 'Protocol/.*ISWC 2012"):
    datasets.load('pamap2', data_dir=path)


@pytest.mark.parametrize('name, classes', [('ag_news', 4), ('sogou_news', 5)])
def test_news(tmp_path, name, classes):
  path = made_up_files.news(tmp_path, classes, train=10)
  source = datasets.load(name, data_dir=path, sequence_length=5)
  assert source.num_train == 10 and source.num_classes == classes
  assert source.images.shape == (14, 5)
  said = [source.words[t] for t in source.images[1]]
  # A backslash is the end of a line in AG News, a backslash and n in Sogou's.
  last = {'ag_news': 'nclass2', 'sogou_news': 'class2'}[name]
  assert said == ['title', '2', 'text', 'of', last]
  assert source.labels[:3].tolist() == [0, 1, 2]
  spec = task_spec.TaskSpec(
    dataset=name,
    data_dir=path,
    sequence_length=6,
    vocabulary_size=5,
    num_clients=2,
    partition='iid',
    test_set='original',
  )
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.input_spec.kind == 'tokens' and len(task.words) == 5


@pytest.mark.parametrize(
  'old, new, message',
  [
    ('"1"', '"5"', 'line 1: expected a class from 1 to 4, .*5, Title 1'),
    ('"Title 2",', '', 'line 2: expected .* found 2 parts'),
    ('"1"', '"1", "x"', 'line 1: expected .* found 4 parts'),
  ],
)
def test_wrong_lines_of_news_are_named(tmp_path, old, new, message):
  path = made_up_files.news(tmp_path)
  _rewrite(tmp_path / 'train.csv', old, new)
  with pytest.raises(ValueError, match=message):
    datasets.load('ag_news', data_dir=path)
  os.remove(tmp_path / 'test.csv')
  with pytest.raises(FileNotFoundError, match="No file 'test.csv'.*header"):
    datasets.load('ag_news', data_dir=path)


def test_shakespeare(tmp_path):
  path = made_up_files.shakespeare(tmp_path)
  assert len(shakespeare.LETTERS) == len({*shakespeare.LETTERS}) == 80
  source = datasets.load('shakespeare', data_dir=path)
  # One letter that follows is none of LEAF's.
  assert source.images.shape == (11, 80) and source.num_classes == 80
  assert 'left out 1 examples whose next letter' in source.notices[0]
  letters = ('', '?', *shakespeare.LETTERS)
  said = ''.join(letters[token] for token in source.images[1])
  assert said.startswith('o be, or not to be?\nTo')
  assert [source.class_names[y] for y in source.labels[:2]] == ['b', 'e']
  assert 'newline' in source.class_names
  assert {*source.images[5]} == {1}
  assert source.input_spec.vocabulary_size == 82
  spec = task_spec.TaskSpec(dataset='shakespeare', data_dir=path)
  spec.refuse_ignored()
  task = tasks.load_task(spec)
  assert task.client_names == ('HAMLET', 'OPHELIA')
  # Files may lie in the folder itself.
  inner = os.path.join(path, 'all_data')
  assert len(datasets.load('shakespeare', data_dir=inner).labels) == 11
  file = tmp_path / 'all_data' / 'all_data.json'
  good = file.read_text()
  for wrong, message in (
    (good.replace('user_data', 'users'), 'JSON of LEAF.*KeyError'),
    (good[:50], 'JSON of LEAF.*JSONDecodeError'),
    (good.replace('"y": ["b"', '"y": ["be"'), "'HAMLET': expected texts x, an"),
    (good.replace('"x": ["To', '"x": ["'), r'one length, found \[78, 80\]'),
  ):
    assert wrong != good
    file.write_text(wrong)
    with pytest.raises(ValueError, match=message):
      datasets.load('shakespeare', data_dir=path)
  os.remove(file)
  with pytest.raises(FileNotFoundError, match='No file .all_data.*LEAF'):
    datasets.load('shakespeare', data_dir=path)


def test_camelyon17(tmp_path):
  path = made_up_files.camelyon17(tmp_path)
  source = datasets.load('camelyon17', data_dir=path, image_size=8)
  assert source.images.shape == (15, 8, 8, 3) and source.num_train == 12
  red, green, _ = source.images[:, 0, 0].T
  np.testing.assert_array_equal(
    source.client_ids, [f'hospital {h}' for h in red // 40]
  )
  np.testing.assert_array_equal(source.labels, green // 100)
  assert (red[12:] // 40).tolist() == [2, 2, 2]
  spec = task_spec.TaskSpec(dataset='camelyon17', data_dir=path, image_size=8)
  spec.refuse_ignored()
  assert tasks.load_task(spec).num_clients == 5
  table = tmp_path / 'metadata.csv'
  good = table.read_text()
  for wrong, message in (
    (
      good.replace('tumor', 'label'),
      'expected rows with the columns.*found 15',
    ),
    (good.replace('4,0,0,0,0,0,0,0', '4,0,0,0,2,0,0,0'), 'line 2: .*tumor'),
    (good[: good.index('\n') + 1], 'found 0 rows'),
  ):
    assert wrong != good
    table.write_text(wrong)
    with pytest.raises(ValueError, match=message):
      datasets.load('camelyon17', data_dir=path)
  table.write_text(good.replace(',004,', ',005,'))
  with pytest.raises(FileNotFoundError, match='3 patches .*WILDS'):
    datasets.load('camelyon17', data_dir=path)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'dataset': 'har', 'num_clients': 3}, 'num_clients.*clients of its own'),
    ({'dataset': 'har', 'image_size': 3}, 'image_size.*har takes none'),
    ({'dataset': 'har', 'window_length': 3}, 'window_length.*no recordings'),
    ({'dataset': 'har', 'sequence_length': 3}, 'the inputs are no texts'),
    ({'dataset': 'ag_news', 'cache_dir': 'x'}, 'cache_dir.*ag_news takes none'),
    ({'dataset': 'shakespeare', 'alpha': 1.0}, 'alpha.*clients of its own'),
    ({'dataset': 'pamap2', 'alpha_background': 'red'}, 'files of images'),
  ],
)
def test_settings_without_effect_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    task_spec.TaskSpec(**options).refuse_ignored()
