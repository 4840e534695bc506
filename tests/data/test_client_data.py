"""Clients' own data sets: read, or refused with the client's name."""

import collections

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.data import client_data
from tff_fedsa.data import elements
from tff_fedsa.data import tasks
from tff_fedsa.runs import errors

_ZEROS = tf.zeros([4, 4, 1], tf.uint8)


def _of(build_fn, client_ids=('a', 'b')):
  return tff.simulation.datasets.ClientData.from_clients_and_tf_fn(
    client_ids, build_fn
  )


def _of_arrays(labels, images=None):
  """Clients 'a', 'b', … with these labels each."""
  rng = np.random.default_rng(0)
  return tff.simulation.datasets.TestClientData(
    {
      chr(ord('a') + number): collections.OrderedDict(
        x=rng.integers(0, 256, (len(own), 4, 4, 1)).astype(np.uint8)
        if images is None
        else images[: len(own)],
        y=np.array(own),
      )
      for number, own in enumerate(labels)
    }
  )


def _task(data, **options):
  return client_data.task_from_client_data(data, **options)


def _mapped(function, count=4):
  return lambda unused_client_id: tf.data.Dataset.range(count).map(function)


def test_client_data():
  rng = np.random.default_rng(0)
  data = tff.simulation.datasets.TestClientData(
    {
      name: collections.OrderedDict(
        pixels=rng.random((count, 6, 6)).astype(np.float32),
        label=rng.integers(0, 3, count).astype(np.int32),
      )
      for name, count in (('b', 8), ('a', 4))
    }
  )
  task = _task(data, num_classes=3)
  assert [len(c.train['y']) for c in task.clients] == [3, 6]
  assert [len(c.test['y']) for c in task.clients] == [1, 2]
  assert task.input_spec.shape == (6, 6, 1)
  # Floats stay, by this way in as by the others.
  assert (task.input_spec.scale, task.input_spec.offset) == (1.0, 0.0)


@pytest.mark.parametrize(
  'client_ids',
  [
    ['b', 'a'],
    ('b', 'a'),
    np.array(['b', 'a']),
    np.array(['b', 'a'], object),
    pd.Index(['b', 'a']),
    pd.Series(['b', 'a']),
    {'b': 1, 'a': 2}.keys(),
    iter(['b', 'a']),
  ],
)
def test_client_ids_of_any_sequence(client_ids):
  data = _of_arrays([[0, 1, 0, 1], [0, 1, 0, 1, 0, 1, 0, 1]])
  task = _task(data, num_classes=2, client_ids=client_ids)
  assert [len(client.train['y']) for client in task.clients] == [6, 3]


@pytest.mark.parametrize(
  'client_ids, message',
  [
    (['z'], r"unknown client ids \['z'\]"),
    ([], 'at least one client, found none'),
    (np.array([], str), 'at least one client, found none'),
    ('ab', "a sequence of client ids, found 'ab'"),
    (['a', 'b', 'a'], "the client id 'a' is there twice"),
  ],
)
def test_wrong_client_ids_are_refused(client_ids, message):
  with pytest.raises(errors.UserError, match=message):
    _task(_of_arrays([[0, 1], [0, 1]]), num_classes=2, client_ids=client_ids)


def _fails_in_python(unused_number):
  raise KeyError('no such photograph')


def _generated(unused_client_id):
  def examples():
    yield np.zeros((4, 4, 1), np.uint8), 0
    raise OSError('disk gone')

  return tf.data.Dataset.from_generator(
    examples,
    output_signature=(
      tf.TensorSpec([4, 4, 1], tf.uint8),
      tf.TensorSpec([], tf.int32),
    ),
  )


@pytest.mark.parametrize(
  'build_fn, message',
  [
    (
      _mapped(lambda i: (tf.zeros([4 + i, 4, 1], tf.uint8), i)),
      r'differ in size: \(4, 4, 1\) at first, \(5, 4, 1\) at element 1. Resize',
    ),
    (
      _mapped(lambda i: (tf.io.decode_jpeg(tf.constant(b'no jpeg'), 1), i)),
      'pipeline fails at element 0: .*Unknown image file format',
    ),
    (
      _mapped(
        lambda i: (
          _ZEROS,
          tf.debugging.assert_less(i, tf.constant(2, tf.int64), 'too many')
          or i,
        )
      ),
      None,
    ),
    (
      _mapped(
        lambda i: (
          _ZEROS,
          tf.numpy_function(_fails_in_python, [i], tf.int64, stateful=False),
        )
      ),
      "pipeline fails at element 0: KeyError: 'no such photograph'$",
    ),
    (_generated, 'pipeline fails at element 1: .*disk gone'),
    (_mapped(lambda i: (_ZEROS, i), count=0), 'it has no example.$'),
    (_mapped(lambda i: (_ZEROS[0], tf.zeros([2]))), 'found shapes'),
    (_mapped(lambda i: (_ZEROS[0, 0, 0], i)), r'found shapes \(\) and \(\)'),
    (_mapped(lambda i: {'text': i, 'y': i}), r"found \('text', 'y'\)"),
    (
      _mapped(
        lambda i: (
          tf.numpy_function(
            lambda k: np.zeros([4 + k, 4, 1], 'u1'), [i], tf.uint8
          ),
          i,
        )
      ),
      r'differ in size: \(4, 4, 1\) at first, \(5, 4, 1\) at element 1',
    ),
  ],
)
def test_what_fails_in_a_pipeline_is_quoted_with_the_client(build_fn, message):
  if message is None:

    def build_fn(unused_client_id):
      def checked(i):
        with tf.control_dependencies(
          [tf.debugging.assert_less(i, tf.constant(2, tf.int64), 'too many')]
        ):
          return _ZEROS, tf.identity(i)

      return tf.data.Dataset.range(4).map(checked)

    message = 'pipeline fails at element 2: .*too many'
  with pytest.raises(errors.UserError, match=f"^Client 'a': .*{message}") as e:
    _task(_of(build_fn), num_classes=4)
  assert '\n' not in str(e.value) and '{{' not in str(e.value)


def test_what_fails_while_a_data_set_is_made_is_quoted_with_the_client():
  class Data(tff.simulation.datasets.TestClientData):
    def create_tf_dataset_for_client(self, client_id):
      if client_id == 'b':
        raise KeyError('b.png')
      return super().create_tf_dataset_for_client(client_id)

  data = Data(
    {i: {'x': np.zeros((4, 4, 4, 1), 'u1'), 'y': [0, 1, 0, 1]} for i in 'ab'}
  )
  with pytest.raises(
    errors.UserError, match="^Client 'b': .*cannot be made: KeyError: 'b.png'"
  ):
    _task(data, num_classes=2)


@pytest.mark.parametrize('batch_size', [None, 3])
def test_shapes_that_only_the_data_tell(batch_size):
  def example(number):
    images = np.full((*np.shape(number), 4, 4, 1), 7, np.uint8)
    return images, np.asarray(number % 3, np.int32)

  def build(unused_client_id):
    dataset = tf.data.Dataset.range(8)
    if batch_size:
      dataset = dataset.batch(batch_size)
    return dataset.map(
      lambda i: tf.numpy_function(example, [i], [tf.uint8, tf.int32])
    )

  task = _task(_of(build), num_classes=3)
  assert task.input_spec.shape == (4, 4, 1)
  labels = [*task.clients[1].train['y'], *task.clients[1].test['y']]
  assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2]
  # Within a computation, shapes are needed before there are data.
  with pytest.raises(ValueError, match='image.set_shape'):
    elements.stack(build('a'))
  with pytest.raises(ValueError, match='image.set_shape'):
    elements.input_spec_of(build('a').element_spec)


@pytest.mark.parametrize(
  'dtype', ['u1', 'i1', 'u2', 'u4', 'u8', 'i4', 'i8', 'f4', 'f8']
)
def test_the_dtype_of_labels_makes_no_difference(dtype):
  numbers = np.array([2, 0, 1, 1])
  data = _of_arrays([numbers.astype(dtype)] * 2)
  expected = _task(_of_arrays([numbers] * 2), num_classes=3)
  for options in (dict(num_classes=3), {}):
    task = _task(data, **options)
    assert task.class_names == ('0', '1', '2') and not task.notices
    for one, two in zip(task.clients, expected.clients, strict=True):
      assert one.train['y'].dtype == np.int32
      np.testing.assert_array_equal(one.train['y'], two.train['y'])
  stacked = elements.stack(data.create_tf_dataset_for_client('a'))
  assert stacked['y'].dtype == tf.int32 and [*stacked['y']] == [2, 0, 1, 1]


def test_labels_that_are_no_numbers_from_zero_become_classes():
  task = _task(_of_arrays([[500, 7, 7], [7, 7, 10**12]]), train_fraction=0.5)
  assert task.class_names == ('7', '500', str(10**12))
  assert 'the 3 distinct labels are not 0 to 2' in tasks.report(task)
  for number, client in enumerate(task.clients):
    labels = {*client.train['y'], *client.test['y']}
    assert labels == ({0, 1}, {0, 2})[number]
  texts = _of_arrays([['dog', 'cat', 'dog'], ['cat', 'emu', 'cat']])
  task = _task(texts, train_fraction=0.5)
  assert task.class_names == ('cat', 'dog', 'emu')
  given = _task(texts, num_classes=3, train_fraction=0.5)
  assert given.class_names == task.class_names


@pytest.mark.parametrize(
  'labels, message',
  [
    ([0.5, 1.0, 0.0], "client 'b', t.*: .*found 0.5 at example"),
    ([np.nan, 1.0, 0.0], "client 'b', t.*: .*found nan at example"),
    ([0, 3, 1], r"client 'b', t.*: expected labels in \[0, 3\), found 3"),
    ([0, -1, 1], "client 'b', t.*: .*found -1"),
    # 2 ** 32 is 0 as int32.
    ([0, 2**32, 1], "client 'b', t.*: .*found 4294967296"),
  ],
)
def test_wrong_labels_are_refused_with_the_client(labels, message):
  good = np.array([0, 1, 2], np.asarray(labels).dtype)
  data = _of_arrays([good, labels])
  with pytest.raises(errors.UserError, match=message):
    _task(data, num_classes=3)


@pytest.mark.usefixtures('in_process_context')
@pytest.mark.parametrize('labels', [[0.5], [np.nan], [2**32], [-(2**40)]])
def test_wrong_labels_fail_within_computations(labels):
  @tff.tensorflow.computation
  def stack():
    examples = (np.zeros((1, 4, 4, 1), np.uint8), np.array(labels))
    return elements.stack(tf.data.Dataset.from_tensor_slices(examples))

  with pytest.raises(Exception, match='whole numbers and fit into int32'):
    stack()
  with pytest.raises(ValueError, match='integer labels, found string'):
    elements.stack(
      tf.data.Dataset.from_tensors((np.zeros((4, 4, 1), np.uint8), 'a'))
    )


def test_a_label_may_be_an_array_of_one_number():
  images = np.zeros((6, 4, 4, 1), np.uint8)
  labels = np.arange(6)[:, np.newaxis] % 2
  for dataset in (
    tf.data.Dataset.from_tensor_slices((images, labels)),
    tf.data.Dataset.from_tensor_slices((images, labels)).batch(4),
    tf.data.Dataset.from_tensor_slices((images[..., 0], labels)),
  ):
    stacked = elements.stack(dataset)
    assert stacked['x'].shape == (6, 4, 4, 1)
    assert stacked['y'].numpy().tolist() == [0, 1, 0, 1, 0, 1]
    found, numbers = elements.gather(dataset)
    assert (
      found.shape == images.shape and numbers.ravel().tolist() == [0, 1] * 3
    )


def test_images_are_looked_at_client_by_client():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (4, 4, 4, 1)).astype(np.float32)
  pixels[2] = 5
  report = tasks.report(_task(_of_arrays([[0, 1, 0, 1]] * 2, pixels)))
  assert 'from 0 to 255 as models see them' in report
  assert '2 of 8 images have the same value in every pixel' in report
  pixels[1, 0, 0] = np.nan
  with pytest.raises(
    ValueError, match="client 'a', t.* 1 of . images hold NaN"
  ):
    _task(_of_arrays([[0, 1, 0, 1]] * 2, pixels))
