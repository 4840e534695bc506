"""What needs no Ray: errors, shares of nodes, messages."""

import importlib.util
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.execution.ray import calls
from tff_fedsa.execution.ray import certificates
from tff_fedsa.execution.ray import cluster
from tff_fedsa.execution.ray import contexts
from tff_fedsa.execution.ray import fleet
from tff_fedsa.execution.ray import kept
from tff_fedsa.execution.ray import messages
from tff_fedsa.execution.ray import sent_values
from tff_fedsa.runs import errors


def test_a_missing_package_is_named(monkeypatch):
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: None if name == 'ray' else find_spec(name, *rest),
  )
  with pytest.raises(errors.UserError, match='make setup-ray'):
    contexts.create_ray_context()


@pytest.fixture
def with_ray(monkeypatch):
  monkeypatch.setattr(cluster, 'require_ray', lambda: None)
  monkeypatch.delenv('RAY_USE_TLS', raising=False)


@pytest.mark.parametrize('address', ['', 'host', 'host:', ':1', 'ray://h:x'])
def test_malformed_addresses_are_named(with_ray, address):
  with pytest.raises(errors.UserError, match='local, auto or HOST:PORT'):
    contexts.create_ray_context(address)


def test_other_machines_need_encryption(with_ray):
  with pytest.raises(errors.UserError, match='neither encrypted.*--insecure'):
    contexts.create_ray_context('192.0.2.77:6379')


def test_missing_certificates_are_named(with_ray, tmp_path):
  with pytest.raises(errors.UserError, match='ca.crt.*tff-fedsa certificates'):
    contexts.create_ray_context(certificates=str(tmp_path))
  for name in ('ca.crt', 'node.crt', 'node.key'):
    (tmp_path / name).touch()
  variables = certificates.environment(str(tmp_path))
  assert variables['RAY_USE_TLS'] == '1'
  assert variables['RAY_TLS_SERVER_KEY'] == str(tmp_path / 'node.key')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'max_concurrent_clients': 0}, 'max_concurrent_clients >= 1'),
    ({'deadline_seconds': 0.5}, 'deadline_seconds >= 1'),
    ({'rounds_per_copy': 0}, 'rounds_per_copy >= 1'),
  ],
)
def test_bad_numbers_are_named(with_ray, options, message):
  with pytest.raises(ValueError, match=message):
    contexts.create_ray_context(**options)


@pytest.mark.slow
def test_nothing_imports_ray_unasked():
  program = (
    'import sys\n'
    'from tff_fedsa import experiment\n'
    'from tff_fedsa.execution import runtime\n'
    'experiment.Experiment(runtime="in_process")\n'
    'assert "ray" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', program], check=True)


@pytest.mark.parametrize(
  'cpus, gpus, expected',
  [
    (0, 0, []),
    (2, 0, [(2, 0)]),
    (8, 0, [(8, 0)]),
    (20, 0, [(7, 0), (7, 0), (6, 0)]),
    (16, 4, [(4, 1)] * 4),
    (1, 2, [(0, 1)] * 2),
  ],
)
def test_a_node_is_shared_by_its_gpus_or_groups_of_cores(cpus, gpus, expected):
  found = [(one.cpus, one.gpus) for one in fleet.shares(cpus, gpus)]
  assert found == expected


def test_values_travel_as_they_are(in_process_context):
  value_type = tff.to_type(
    {
      'a': tff.TensorType(np.float32, [None]),
      'b': (np.str_, tff.SequenceType(np.int32)),
      'c': tff.TensorType(np.bool_, [2]),
    }
  )
  struct = tff.structure.Struct
  three = tf.data.Dataset.range(3).map(lambda x: tf.cast(x, tf.int32))
  value = struct(
    [
      ('a', tf.constant([1.0, float('nan')])),
      (
        'b',
        struct(
          [
            (None, tf.constant(b'ab\0')),
            (None, three),
          ]
        ),
      ),
      ('c', tf.constant([True, False])),
    ]
  )
  types = messages.leaf_types(value_type)
  encoded = [
    messages.encode(leaf, leaf_type)
    for leaf, leaf_type in zip(messages.leaves_of(value), types)
  ]
  back = messages.to_value(map(messages.decode, encoded, types), value_type)
  np.testing.assert_array_equal(back.a, value.a)
  assert back.b[0].numpy() == b'ab\0'
  assert list(back.b[1].as_numpy_iterator()) == [0, 1, 2]
  np.testing.assert_array_equal(back.c, value.c)
  # Only a tensor of unknown size can be large.
  assert messages.large_leaves(value_type) == [0]


def test_equal_small_arrays_are_sent_once():
  first = np.arange(3, dtype=np.float32)
  found = messages.share_equal([first, first.copy(), first.astype(np.int32)])
  assert found[1] is first
  assert found[2] is not first


def test_the_depth_of_a_result_is_that_of_its_copies():
  class _Function:
    pass

  before = kept.Kept(calls.Call(_Function(), [], 0), 'node', 'ref', 8)
  after = kept.Kept(calls.Call(_Function(), [before, 1], 0), 'node', 'ref', 8)
  assert (before.depth, after.depth) == (1, 2)
  copies = kept.Copies()
  copies.add(before, np.ones([2]))
  assert before.call is None
  assert calls.Call(_Function(), [before], 0).depth == 1
  copies.close()


def test_only_repeated_values_stay_in_the_store(monkeypatch):
  put = []
  fake = types.SimpleNamespace(put=lambda leaf: put.append(leaf) or len(put))
  monkeypatch.setattr(sent_values, 'ray', fake)
  store = sent_values.SentValues(10**9)
  data, changed = np.ones([8]), np.zeros([8])
  for number in range(300):
    store.next_computation()
    assert store.put(data).ref == 1
    changed[0] = number
    # An array that was changed in place is sent again.
    assert store.put(changed).ref == number + 2
  # The first is forgotten, the latest is not.
  assert store.put(changed).ref == 301
  changed[0] = 0
  assert store.put(changed).ref == 302
