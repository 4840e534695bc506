"""Federated evaluation: every client, on its own test data.

This is the protocol `personal`. `global_evaluation` has the other protocol.

Source: `clientSA.test_metrics`, lokinko/FedSA@75bf106, for `prototype`. The
other classifiers are ours.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import functools
import itertools
import math
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.evaluation import classification

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa.client import client_state as client_state_lib
  from tff_fedsa.client import client_work
  from tff_fedsa.client import local_steps
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import prototypes
  from tff_fedsa.models import functional
  from tff_fedsa.models import tiers as tiers_lib
  from tff_fedsa.runs import errors
  from tff_fedsa.server import server_model


CLASSIFIERS = ('prototype', 'anchor', 'head', 'global_head', 'received_head')

# Prefix of columns of an averaged model on the data set's own test set. The
# names differ, so that no table mixes the two protocols.
GLOBAL_PREFIX = 'global_test_'
GLOBAL_CLASSIFIERS = tuple(GLOBAL_PREFIX + name for name in CLASSIFIERS)
ALL_CLASSIFIERS = (*CLASSIFIERS, *GLOBAL_CLASSIFIERS)

# Accuracy of a classifier on examples that clients hold out of training.
VALIDATION_PREFIX = 'validation_'

# The first of these classifiers that a method has is its main classifier.
_MAIN = ('prototype', 'global_head', 'head', f'{GLOBAL_PREFIX}head')


def classifiers_of(model_type: tff.Type) -> tuple[str, ...]:
  """Returns the classifiers of a method, in the order of `CLASSIFIERS`.

  Args:
    model_type: Unplaced type of the server's model, see `server_model`. Clients
      have heads in every method.
  """
  fields = {
    'prototype': 'prototypes',
    'anchor': 'anchors',
    'global_head': 'head',
  }
  return tuple(
    name
    for name in CLASSIFIERS
    if name == 'head'
    or name in fields
    and tff.structure.has_field(model_type, fields[name])
  )


def main_classifier(names: Collection[str]) -> str:
  """Returns the main classifier of a method, which stands for it in figures.

  Args:
    names: The method's classifiers. Other names are ignored.
  """
  return next(name for name in _MAIN if name in names)


def build_evaluation(
  models: Sequence[functional.FunctionalModel],
  input_spec: input_spec_lib.InputSpec,
  model_type: Optional[tff.Type] = None,
  *,
  tiers: Optional[tiers_lib.Tiers] = None,
  metrics: Collection[str] = (),
) -> tff.Computation:
  """Returns the computation that tests clients on their own examples.

  Its type is `(<M@SERVER, {C}@CLIENTS, {E}@CLIENTS> -> {R}@CLIENTS)`, where `M`
  is the server's model, `C` a `ClientState`, `E` stacked examples and `R` e.g.
  `<num_examples=int32, prototype=int32, anchor=int32, head=int32>`: the number
  of correct examples of each classifier of the method (`classifiers_of`):

  - `prototype` (the paper): the nearest present global prototype, by mean
    squared distance of features;
  - `anchor`: the nearest anchor;
  - `head`: the largest logit of the client's own head;
  - `global_head`: that of the server's head on the client's features;
  - `received_head`, with `tiers` only: the head of the model with which the
    client begins the next round.

  Where the server averages weights, the tested model of a client is the
  averaged one of its architecture (FedAvg); with `tiers` it is the client's
  own, as local training left it.

  With `metrics`, `R` has also the sums `<classifier>_<statistic>` of
  `classification.zeros`, from which the metrics are computed.

  Args:
    models: As given to the process.
    input_spec: Specification of the clients' inputs.
    model_type: `StatefulProcess.server_model_type` of the process. Default:
      FedSA's.
    tiers: `StatefulProcess.tiers` of a process whose clients keep models of
      their own.
    metrics: Some of `classification.METRICS`.

  Raises:
    ValueError: If a metric is unknown, the models disagree (see
      `client_work.check_models`), or clients share a part of their weights and
      `tiers` is left out.
  """
  num_classes, feature_dim = client_work.check_models(models, input_spec)
  if model_type is None:
    model_type = server_model.server_model_type(num_classes, feature_dim)
  state_type = client_state_lib.client_state_type(num_classes, feature_dim)
  examples_type = client_work.examples_type(input_spec)
  count_correct = build_count_fn(models, input_spec, model_type, metrics)
  select_known = build_select_known(model_type)
  averaged = None
  if tiers is not None:
    count_heads = build_count_fn(
      models, input_spec, tff.types.to_type(()), metrics
    )
  elif tff.structure.has_field(model_type, 'weights'):
    averaged = whole_models(models, model_type)

  @tff.tensorflow.computation(
    select_known.type_signature.result, state_type, examples_type
  )
  def evaluate_one(known, state, examples):
    weights = state.weights
    if averaged is not None:
      weights = averaged.received(state, known['weights'])
    counts = count_correct(known, state.architecture, weights, examples)
    if tiers is not None:
      received = tiers.received(state, known['weights'])
      of_heads = count_heads(known, state.architecture, received, examples)
      counts.update(
        (f'received_{name}', value)
        for name, value in of_heads.items()
        if name.startswith('head')
      )
    return counts

  @tff.federated_computation(
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(state_type, tff.CLIENTS),
    tff.FederatedType(examples_type, tff.CLIENTS),
  )
  def evaluate(model, client_states, examples):
    known = tff.federated_broadcast(tff.federated_map(select_known, model))
    return tff.federated_map(evaluate_one, (known, client_states, examples))

  return evaluate


def whole_models(
  models: Sequence[functional.FunctionalModel], model_type: tff.Type
) -> tiers_lib.Tiers:
  """Returns the tiers of a server that averages all weights of clients.

  Args:
    models: As given to the process.
    model_type: Unplaced type of the server's model, with `weights`.

  Raises:
    ValueError: If the server averages a part of the weights.
  """
  tiers = tiers_lib.Tiers(models)
  found = tuple(model_type.weights.shape)
  if found != (tiers.num_weights,):
    raise errors.UserError(
      f'Expected averaged weights of whole models, {tiers.num_weights} '
      f'numbers, found {found}: clients share a part of their weights. Test '
      'their own models (`tiers`).'
    )
  return tiers


def build_select_known(model_type: tff.Type) -> tff.Computation:
  """Returns the computation that selects the classifiers' part of a model.

  Args:
    model_type: Unplaced type of the server's model.
  """

  @tff.tensorflow.computation(model_type)
  def select_known(model):
    return collections.OrderedDict(
      (field, getattr(model, field))
      for field in ('anchors', 'prototypes', 'present', 'head', 'weights')
      if hasattr(model, field)
    )

  return select_known


def build_count_fn(
  models: Sequence[functional.FunctionalModel],
  input_spec: input_spec_lib.InputSpec,
  model_type: tff.Type,
  metrics: Collection[str] = (),
) -> Callable[..., Mapping[str, tf.Tensor]]:
  """Returns `fn(known, architecture, weights, examples) -> counts`.

  Call the result while tracing. `known` is a result of `build_select_known`.
  The counts are `num_examples`, the correct examples of each classifier, and
  `<classifier>_<statistic>` of the statistics that `metrics` need.

  Args:
    models: As given to the process.
    input_spec: Specification of the inputs.
    model_type: Unplaced type of the server's model.
    metrics: Some of `classification.METRICS`.

  Raises:
    ValueError: If a metric is unknown.
  """
  classification.check(metrics)
  statistics = classification.statistics_of(metrics)
  num_classes = models[0].num_classes
  names = classifiers_of(model_type)
  forwards = [model.build_forward(input_spec) for model in models]
  if 'global_head' in names:
    client_work.check_heads(models)
    global_head = models[0].build_head()

  def count_correct(model, forward, known, weights, examples):
    trainable, model_state = model.split(weights)

    def add(carry, inputs, labels):
      features, logits = forward(trainable, model_state, inputs)
      predict_fns = {
        'prototype': lambda: prototypes.nearest_class(
          features, known['prototypes'], known['present']
        ),
        'anchor': lambda: prototypes.nearest_class(features, known['anchors']),
        'head': lambda: _largest(logits),
        'global_head': lambda: _largest(
          global_head(list(known['head']), features)
        ),
      }
      score_fns = {
        'prototype': lambda: -prototypes.mean_squared_distances(
          features, known['prototypes'], known['present']
        ),
        'anchor': lambda: -prototypes.mean_squared_distances(
          features, known['anchors']
        ),
        'head': lambda: logits,
        'global_head': lambda: global_head(list(known['head']), features),
      }
      correct, sums = carry
      predictions = {name: predict_fns[name]() for name in names}
      # Not `==`, which compares identities while TFF traces.
      correct = tuple(
        before
        + tf.math.count_nonzero(
          tf.equal(predictions[name], labels), dtype=tf.int32
        )
        for before, name in zip(correct, names)
      )
      if statistics:
        sums = tuple(
          tf.nest.map_structure(
            tf.add,
            before,
            classification.of_batch(
              statistics, score_fns[name](), predictions[name], labels
            ),
          )
          for before, name in zip(sums, names)
        )
      return correct, sums

    zeros = (tf.constant(0),) * len(names)
    no_sums = tuple(
      classification.zeros(statistics, num_classes)
      for _ in (names if statistics else ())
    )
    return local_steps.fold_over_examples(examples, add, (zeros, no_sums))

  @tf.function(autograph=False)
  def count(known, architecture, weights, examples):
    correct, sums = tf.switch_case(
      architecture,
      [
        functools.partial(
          count_correct, model, forward, known, weights, examples
        )
        for model, forward in zip(models, forwards)
      ],
    )
    result = collections.OrderedDict(num_examples=tf.size(examples['y']))
    result.update(zip(names, correct))
    for name, of_classifier in zip(names, sums):
      result.update(
        (f'{name}_{statistic}', value)
        for statistic, value in of_classifier.items()
      )
    return result

  return count


def _largest(logits):
  return tf.argmax(logits, axis=1, output_type=tf.int32)


def evaluate_clients(
  evaluate: tff.Computation,
  model: Any,
  clients: Iterable[tuple[client_state_lib.ClientState, Any]],
  *,
  clients_per_call: int = 100,
) -> list[dict[str, Any]]:
  """Evaluates clients in groups, so that memory stays bounded.

  Args:
    evaluate: Result of `build_evaluation`.
    model: The server's model.
    clients: State and test examples of each client. The iterable is read
      lazily.
    clients_per_call: Number of clients in memory at a time.

  Returns:
    One dict per client: the number of correct examples of each classifier, and
    arrays of statistics if `evaluate` has metrics.
  """
  results: list[dict[str, Any]] = []
  remaining = iter(clients)
  while part := list(itertools.islice(remaining, clients_per_call)):
    states, examples = zip(*part)
    results += [
      {name: plain(value) for name, value in output.items()}
      for output in evaluate(model, list(states), list(examples))
    ]
  return results


def plain(value: Any) -> Any:
  """Returns a count as int, anything else as an array."""
  array = np.asarray(value)
  is_count = not array.shape and np.issubdtype(array.dtype, np.integer)
  return int(array) if is_count else array


def statistics_of_all(
  per_client: Sequence[Mapping[str, Any]], metrics: Collection[str]
) -> dict[str, dict[str, np.ndarray]]:
  """Returns sums over all clients, by classifier and statistic.

  Args:
    per_client: Result of `evaluate_clients`, or counts of test sets.
    metrics: Some of `classification.METRICS`; without any there are no sums.
  """
  return {
    name: classification.pooled(per_client, name)
    for name in CLASSIFIERS
    if metrics and name in per_client[0]
  }


def without_statistics(
  per_client: Sequence[Mapping[str, Any]], metrics: Collection[str]
) -> list[dict[str, Any]]:
  """Returns counts and metrics of each client, without arrays.

  Args:
    per_client: Result of `evaluate_clients`, or counts of test sets.
    metrics: Some of `classification.METRICS`. NaN metrics stand for nothing to
      compute them from. `recall` is NaN for classes that a client lacks.
  """
  if not metrics or not per_client:
    return [dict(one) for one in per_client]
  names = [name for name in CLASSIFIERS if name in per_client[0]]
  # Clients have different classes.
  columns = ['num_examples', *names]
  for name in names:
    of_all = classification.pooled(per_client, name)
    columns += [f'{name}_{m}' for m in classification.compute(of_all, metrics)]
  rows = []
  for one in per_client:
    row: dict[str, Any] = {c: one.get(c, math.nan) for c in columns}
    for name in names:
      own = classification.pooled([one], name)
      for metric, value in classification.compute(own, metrics).items():
        row[f'{name}_{metric}'] = value
    rows.append(row)
  return rows


def classifiers_in(row: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the classifiers whose accuracy a row holds, of either protocol."""
  return tuple(n for n in ALL_CLASSIFIERS if f'{n}_accuracy' in row)


def validation_column(classifier: str) -> str:
  """Returns the column of a classifier's accuracy on validation examples.

  Args:
    classifier: One of `ALL_CLASSIFIERS`.
  """
  name = classifier.removeprefix(GLOBAL_PREFIX)
  return f'{VALIDATION_PREFIX}{name}_accuracy'


def summarize(
  per_client: Sequence[Mapping[str, Any]], metrics: Collection[str] = ()
) -> collections.OrderedDict[str, float]:
  """Returns accuracies over all clients, in [0, 1], and metrics.

  For each classifier there is `<classifier>_accuracy` (micro average: all
  correct / all examples, the paper's number) and, over clients,
  `_accuracy_mean`, `_std`, `_min` and `_p10` (10th percentile). Metrics are of
  the examples of all clients together: `<classifier>_<metric>`. Those without
  anything to compute them from are left out.

  Args:
    per_client: Result of the computation of `build_evaluation`. Clients
      without examples do not count.
    metrics: Some of `classification.METRICS`; `build_evaluation` had them.
  """
  per_client = [c for c in per_client if c['num_examples']] or per_client
  num_examples = np.array([int(c['num_examples']) for c in per_client])
  summary = collections.OrderedDict()
  for name in (n for n in CLASSIFIERS if n in per_client[0]):
    correct = np.array([int(client[name]) for client in per_client])
    accuracies = correct / np.maximum(num_examples, 1)
    prefix = f'{name}_accuracy'
    summary[prefix] = float(correct.sum() / max(num_examples.sum(), 1))
    summary[f'{prefix}_mean'] = float(accuracies.mean())
    summary[f'{prefix}_std'] = float(accuracies.std())
    summary[f'{prefix}_min'] = float(accuracies.min())
    summary[f'{prefix}_p10'] = float(np.percentile(accuracies, 10))
    if metrics:
      found = classification.compute(
        classification.pooled(per_client, name), metrics
      )
      summary.update(
        (f'{name}_{metric}', value)
        for metric, value in found.items()
        if not math.isnan(value)
      )
  return summary
