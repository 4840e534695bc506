"""Rows of a run: names that are documented, bytes and memory."""

import collections
import pathlib
import types

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_fedsa.runs import metrics

_DOCUMENT = pathlib.Path(__file__).parents[2] / 'docs/metrics.md'


def test_training_columns():
  work = collections.OrderedDict(
    loss=np.float32(2), contrastive=np.float32(1), gap_local=np.float32(3)
  )
  assert metrics.training_columns({'client_work': work}) == {
    'loss': 2.0,
    'loss_contrastive': 1.0,
    'gap_local': 3.0,
  }


def test_columns_of_training_at_the_server():
  measurements = {
    'client_work': {'loss': np.float32(2), 'distillation': np.float32(1)},
    'finalizer': collections.OrderedDict(server_loss=np.float32(3)),
  }
  assert metrics.training_columns(measurements) == {
    'loss': 2.0,
    'loss_distillation': 1.0,
    'server_loss': 3.0,
  }


def test_bytes_by_hand():
  value_type = tff.types.to_type(
    (tff.TensorType(np.float32, [10, 4]), tff.TensorType(np.int64, []))
  )
  assert metrics.bytes_of_type(value_type) == 10 * 4 * 4 + 8
  process = types.SimpleNamespace(
    broadcast_type=value_type, update_type=tff.TensorType(np.float32, [3])
  )
  assert metrics.communication_columns(process) == {
    'bytes_down_per_client': 168 + 4,
    'bytes_up_per_client': 12,
  }
  # What a method measured itself, and averaged weights.
  measured = {'bytes_up_per_client': 5.5}
  process.averages_weights = False
  assert metrics.communication_columns(process, measured) == {
    'bytes_down_per_client': 168 + 4,
    'bytes_up_per_client': 5.5,
  }
  weights_type = tff.TensorType(np.float32, [100])
  process.update_type = tff.types.to_type((process.update_type, weights_type))
  process.averages_weights = True
  assert metrics.communication_columns(process, measured) == {
    'bytes_down_per_client': 168 + 4,
    'bytes_up_per_client': 5.5 + 400,
  }
  # With several architectures the length of shared weights is measured.
  unknown_type = tff.TensorType(np.float32, [None])
  process.update_type = tff.types.to_type(
    (process.update_type[0], unknown_type)
  )
  measured['averager_mean_size'] = 12.5
  assert metrics.communication_columns(process, measured) == {
    'bytes_down_per_client': 168 + 4,
    'bytes_up_per_client': 5.5 + 50,
  }
  with pytest.raises(ValueError, match='no fixed size'):
    metrics.bytes_of_type(tff.TensorType(np.float32, [None]))


def test_what_an_aggregator_measures_becomes_columns():
  parts = {
    'client_work': {'loss': np.float32(2.0), 'hidden': np.float32(1.0)},
    'aggregator': collections.OrderedDict(
      classes_present=np.int32(3),
      vectors=collections.OrderedDict(
        clipping_norm=np.float32(0.5), tables=np.zeros([2]), nothing=()
      ),
      weights=collections.OrderedDict(),
    ),
    'averager': collections.OrderedDict(value=(), noise=np.float32(0.25)),
  }
  assert metrics.training_columns(parts) == {
    'loss': 2.0,
    'loss_hidden': 1.0,
    'aggregator_vectors_clipping_norm': 0.5,
    'averager_noise': 0.25,
  }


def test_memory_is_measured():
  before = metrics.memory_columns()
  held = np.ones(30_000_000)  # 240 MB
  after = metrics.memory_columns()
  assert 200 < after['memory_python_mb'] - before['memory_python_mb'] < 300
  assert after['memory_peak_mb'] >= after['memory_python_mb'] - 1
  del held


def test_every_column_is_documented():
  text = _DOCUMENT.read_text()
  columns = {
    **metrics.COLUMNS,
    **metrics.GLOBAL_COLUMNS,
    **metrics.FIELD_COLUMNS,
    **metrics.PRIVACY_COLUMNS,
    **metrics.SECURE_COLUMNS,
    **metrics.SHARING_COLUMNS,
    **metrics.VALIDATION_COLUMNS,
    **metrics.ATTACK_COLUMNS,
    **metrics.NEWCOMER_COLUMNS,
    **metrics.METRIC_COLUMNS,
  }
  for name, description in columns.items():
    assert f'| `{name}` | {description} |' in text, name
