"""Distributor, finalizer and server model."""

import numpy as np
import pytest
import tensorflow as tf

from tests import golden
from tff_fedsa.maths import hyper_prototypes
from tff_fedsa.maths import prototypes
from tff_fedsa.maths import virtual_features
from tff_fedsa.server import distribution
from tff_fedsa.server import finalizers
from tff_fedsa.server import server_model

pytestmark = pytest.mark.usefixtures('in_process_context')

_MODEL = '<anchors=float32[3,2],prototypes=float32[3,2],present=bool[3]>'


def test_distributor_sends_the_anchors_only():
  process = distribution.build_anchor_distributor(3, 2)
  assert process.next.type_signature.compact_representation() == (
    f'(<state=<>@SERVER,model={_MODEL}@SERVER> -> <state=<>@SERVER,'
    'result=float32[3,2]@CLIENTS,measurements=<>@SERVER>)'
  )


def test_finalizer_type():
  process = finalizers.build_anchor_finalizer(3, 2)
  update = '<vectors=float32[3,2],weights=float32[3]>'
  assert process.next.type_signature.compact_representation() == (
    f'(<state=<>@SERVER,model={_MODEL}@SERVER,update={update}@SERVER> -> '
    f'<state=<>@SERVER,result={_MODEL}@SERVER,'
    'measurements=<server_nonfinite=int32>@SERVER>)'
  )


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize(
  'options', [{}, {'evidence': 1.0, 'orthogonality': 0.5}]
)
def test_an_aggregate_that_is_not_finite_changes_nothing(value, options):
  process = finalizers.build_anchor_finalizer(3, 4, **options)
  anchors = np.arange(12, dtype=np.float32).reshape(3, 4)
  model = server_model.initial_server_model(anchors)
  vectors = np.ones([3, 4], np.float32)
  vectors[1, 0] = value
  update = prototypes.ClassPrototypes(vectors, np.ones([3], np.float32))
  output = process.next(process.initialize(), model, update)
  np.testing.assert_array_equal(output.result.anchors, anchors)
  assert not output.result.present.any()
  assert output.measurements['server_nonfinite'] == 1
  update = prototypes.ClassPrototypes(
    np.ones([3, 4], np.float32), np.ones([3], np.float32)
  )
  output = process.next(process.initialize(), model, update)
  assert output.result.present.all()
  assert output.measurements['server_nonfinite'] == 0


@pytest.mark.parametrize('size', ['c10d16', 'c10d512'])
def test_finalizer_equals_the_reference(size):
  arrays = golden.load('5_server')
  vectors = arrays[f'{size}_global_protos']
  sent = ~np.isnan(vectors[:, 0])
  update = prototypes.ClassPrototypes(
    np.nan_to_num(vectors), sent.astype(np.float32)
  )
  process = finalizers.build_anchor_finalizer(*vectors.shape)
  state = process.initialize()
  model = server_model.initial_server_model(arrays[f'{size}_anchors_before'])
  for num_updates in (1, 2, 3):
    output = process.next(state, model, update)
    state, model = output.state, output.result
    if num_updates in (1, 3):
      golden.assert_close(
        model.anchors, arrays[f'{size}_anchors_after{num_updates}']
      )
  golden.assert_close(model.prototypes[sent], vectors[sent])
  np.testing.assert_array_equal(model.present, sent)


@pytest.mark.parametrize('keep_missing', [True, False])
def test_missing_classes(keep_missing):
  process = finalizers.build_anchor_finalizer(
    2, 1, decay=0.5, keep_missing=keep_missing
  )
  model = server_model.ServerModel(
    anchors=np.array([[2.0], [4.0]], np.float32),
    prototypes=np.array([[0.0], [7.0]], np.float32),
    present=np.array([False, True]),
  )
  update = prototypes.ClassPrototypes(
    np.array([[6.0], [0.0]], np.float32), np.array([1.0, 0.0], np.float32)
  )
  result = process.next(process.initialize(), model, update).result
  # 0.5·2 + 0.5·6 = 4; the anchor of the class nobody sent stays.
  assert result.anchors.tolist() == [[4.0], [4.0]]
  assert result.present.tolist() == [True, keep_missing]
  assert result.prototypes[0] == [6.0]
  if keep_missing:
    assert result.prototypes[1] == [7.0]


def test_evidence_and_orthogonality():
  rng = np.random.default_rng(0)
  before, vectors = rng.standard_normal((2, 3, 4)).astype(np.float32)
  weights = np.array([2.0, 0.0, 6.0], np.float32)
  update = prototypes.ClassPrototypes(vectors, weights)
  model = server_model.initial_server_model(before)

  def anchors_after(**options):
    process = finalizers.build_anchor_finalizer(3, 4, decay=0.5, **options)
    return process.next(process.initialize(), model, update).result.anchors

  rates = 0.5 * (weights / (weights + 2.0))[:, np.newaxis]
  moved = before + rates * (vectors - before)
  np.testing.assert_allclose(anchors_after(evidence=2.0), moved, atol=1e-6)
  np.testing.assert_array_equal(anchors_after(evidence=2.0)[1], before[1])
  found = anchors_after(evidence=2.0, orthogonality=1.0)
  # Orthogonal, and as long as before.
  norms = np.sum(moved**2, axis=1)
  np.testing.assert_allclose(found @ found.T, np.diag(norms), atol=1e-5)
  # 0 is off.
  np.testing.assert_array_equal(
    anchors_after(evidence=0.0, orthogonality=0.0), anchors_after()
  )
  # The server that also learns squares moves anchors in the same way.
  model = server_model.with_squares(model)
  update = update._replace(vectors=np.concatenate([vectors, vectors**2], 1))
  np.testing.assert_array_equal(
    anchors_after(evidence=2.0, orthogonality=1.0, with_squares=True), found
  )


def test_matching_follows_the_moving_average():
  rng = np.random.default_rng(0)
  before, vectors = rng.standard_normal((2, 4, 8)).astype(np.float32)
  weights = np.array([2.0, 0.0, 6.0, 1.0], np.float32)
  update = prototypes.ClassPrototypes(
    np.concatenate([vectors, vectors**2 + 0.5], axis=1), weights
  )
  model = server_model.with_squares(server_model.initial_server_model(before))

  def anchors_after(**options):
    process = finalizers.build_anchor_finalizer(
      4, 8, decay=0.5, with_squares=True, **options
    )
    return process.next(process.initialize(), model, update).result.anchors

  moved = anchors_after()
  sent = weights[:, np.newaxis] > 0
  known = np.where(sent, vectors, 0.0)
  drawn = virtual_features.draw(
    tf.constant(known),
    tf.where(sent, tf.fill([4, 8], 0.5), 0.0),
    64,
    [0, 0],
  )
  expected = hyper_prototypes.matched(
    tf.constant(moved),
    hyper_prototypes.gradient_directions(drawn, tf.constant(before)),
    tf.constant(before),
    tf.constant(weights > 0),
    num_steps=5,
    learning_rate=0.2,
  )
  found = anchors_after(matching=5, matching_rate=0.2)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert np.abs(found - moved)[weights > 0].max() > 1e-3
  np.testing.assert_array_equal(found[1], before[1])
  np.testing.assert_array_equal(anchors_after(matching=0), moved)
  # Anchors are turned after that.
  apart = anchors_after(matching=5, matching_rate=0.2, orthogonality=1.0)
  np.testing.assert_allclose(
    apart @ apart.T, np.diag(np.sum(found**2, axis=1)), atol=1e-4
  )


@pytest.mark.parametrize('keep_missing', [True, False])
def test_squares_follow_the_prototypes(keep_missing):
  process = finalizers.build_anchor_finalizer(
    2, 1, decay=0.5, keep_missing=keep_missing, with_squares=True
  )
  model = server_model.StatisticsModel(
    anchors=np.array([[2.0], [4.0]], np.float32),
    prototypes=np.array([[0.0], [7.0]], np.float32),
    present=np.array([False, True]),
    squares=np.array([[0.0], [50.0]], np.float32),
  )
  # Relative to these a client's message is compressed or noisy.
  assert server_model.reference_of(model).numpy().tolist() == [[2, 4], [4, 16]]
  update = prototypes.ClassPrototypes(
    np.array([[6.0, 37.0], [0.0, 0.0]], np.float32),
    np.array([1.0, 0.0], np.float32),
  )
  result = process.next(process.initialize(), model, update).result
  assert result.anchors.tolist() == [[4.0], [4.0]]
  assert result.present.tolist() == [True, keep_missing]
  kept = ([7.0], [50.0]) if keep_missing else ([0.0], [0.0])
  assert result.prototypes.tolist() == [[6.0], kept[0]]
  assert result.squares.tolist() == [[37.0], kept[1]]


def test_bad_values_are_named():
  with pytest.raises(ValueError, match=r'decay in \[0, 1\], found 1.5'):
    finalizers.build_anchor_finalizer(2, 1, decay=1.5)
  with pytest.raises(ValueError, match='evidence >= 0, found -1'):
    finalizers.build_anchor_finalizer(2, 1, evidence=-1.0)
  with pytest.raises(ValueError, match=r'in \[0, 1\], found -0.1'):
    finalizers.build_anchor_finalizer(2, 2, orthogonality=-0.1)
  with pytest.raises(ValueError, match='num_classes=2 and feature_dim=1'):
    finalizers.build_anchor_finalizer(2, 1, orthogonality=0.1)
  with pytest.raises(ValueError, match='found matching=1 and with_squares=F'):
    finalizers.build_anchor_finalizer(2, 1, matching=1)
  with pytest.raises(ValueError, match='found matching=-1'):
    finalizers.build_anchor_finalizer(2, 1, matching=-1)
  with pytest.raises(ValueError, match='matching_rate > 0, found 0.0'):
    finalizers.build_anchor_finalizer(
      2, 1, matching=1, matching_rate=0.0, with_squares=True
    )
  with pytest.raises(ValueError, match='finite anchors'):
    server_model.initial_server_model(np.array([[np.nan, 1.0]]))
  with pytest.raises(ValueError, match=r'found int64\[2\]'):
    server_model.initial_server_model(np.array([1, 2]))
