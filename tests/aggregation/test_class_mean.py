"""The class-mean aggregation: types, golden file 5, masks, inner sums."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import golden
from tff_fedsa.aggregation import class_mean
from tff_fedsa.maths import prototypes

pytestmark = pytest.mark.usefixtures('in_process_context')


def _aggregate(values, factory=None):
  num_classes, feature_dim = np.shape(values[0].vectors)
  process = (factory or class_mean.ClassMeanFactory()).create(
    prototypes.prototypes_type(num_classes, feature_dim)
  )
  return process.next(process.initialize(), values)


def _value(vectors, weights):
  return prototypes.ClassPrototypes(
    np.asarray(vectors, np.float32), np.asarray(weights, np.float32)
  )


def test_type_properties():
  process = class_mean.ClassMeanFactory().create(
    prototypes.prototypes_type(3, 2)
  )
  value = '<vectors=float32[3,2],weights=float32[3]>'
  state = '<vectors=<>,weights=<>>'
  assert process.next.type_signature.compact_representation() == (
    f'(<state={state}@SERVER,value={{{value}}}@CLIENTS> -> '
    f'<state={state}@SERVER,result={value}@SERVER,'
    'measurements=<classes_present=int32,vectors=<>,weights=<>>@SERVER>)'
  )


@pytest.mark.parametrize('size', ['c10d16', 'c10d512'])
@pytest.mark.parametrize(
  'clients, expected',
  [((0, 1, 2, 3), 'global_protos'), ((1, 3), 'global_protos_sel13')],
)
def test_mean_over_clients_equals_the_reference(size, clients, expected):
  arrays = golden.load('5_server')
  values = []
  for client in clients:
    vectors = arrays[f'{size}_client{client}_protos']  # NaN: class missing
    values.append(_value(vectors, ~np.isnan(vectors[:, 0])))
  output = _aggregate(values)
  expected = arrays[f'{size}_{expected}']
  sent = ~np.isnan(expected[:, 0])
  golden.assert_close(output.result.vectors[sent], expected[sent])
  np.testing.assert_array_equal(output.result.weights > 0, sent)
  assert not output.result.vectors[~sent].any()
  assert output.measurements['classes_present'] == sent.sum()


def test_mean_over_examples_by_hand():
  output = _aggregate(
    [
      _value([[1.0], [10.0], [np.nan]], [1.0, 2.0, 0.0]),
      _value([[4.0], [np.inf], [np.nan]], [3.0, 0.0, 0.0]),
    ]
  )
  # (1·1 + 3·4) / 4 = 3.25; one client only; nobody.
  assert output.result.vectors.tolist() == [[3.25], [10.0], [0.0]]
  assert output.result.weights.tolist() == [4.0, 2.0, 0.0]
  assert output.measurements['classes_present'] == 2


def test_inner_sums_are_used():
  factory = class_mean.ClassMeanFactory(
    vectors_sum_factory=tff.aggregators.clipping_factory(
      1.0, tff.aggregators.SumFactory()
    )
  )
  # The second client's [3, 4] of norm 5 is clipped to [0.6, 0.8].
  output = _aggregate(
    [_value([[0.0, 1.0]], [1.0]), _value([[3.0, 4.0]], [1.0])], factory
  )
  np.testing.assert_allclose(output.result.vectors, [[0.3, 0.9]], rtol=1e-6)


def test_wrong_parts_are_named():
  with pytest.raises(TypeError, match='weights_sum_factory'):
    class_mean.ClassMeanFactory(
      weights_sum_factory=tff.aggregators.MeanFactory()
    )
  other = tff.types.to_type(collections.OrderedDict(a=np.float32))
  with pytest.raises(TypeError, match='ClassPrototypes'):
    class_mean.ClassMeanFactory().create(other)
