"""Evaluation of averaged models on the data set's own test set.

This is the protocol `global`. `client_evaluation` has the other protocol.
"""

import collections
from collections.abc import Collection, Mapping, Sequence
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa.client import client_work
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.evaluation import classification
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.models import functional
from tff_fedsa.runs import errors

# Examples per shard, and shards per call. Both bound memory.
_SHARD_SIZE = 256
_SHARDS_PER_CALL = 32


def build_global_evaluation(
  models: Sequence[functional.FunctionalModel],
  input_spec: input_spec_lib.InputSpec,
  model_type: tff.Type,
  *,
  metrics: Collection[str] = (),
) -> tff.Computation:
  """Returns the computation that tests the averaged model of each architecture.

  Its type is `(<M@SERVER, {E}@CLIENTS> -> R@SERVER)`, `M` being the server's
  model, `E` stacked examples and `R` for each architecture a dict of the sums
  of the counts and statistics of `client_evaluation.build_evaluation`. The
  values at clients are shards of a test set, so they spread over the devices or
  workers of the runtime.

  Args:
    models: As given to the process.
    input_spec: Specification of the inputs.
    model_type: `StatefulProcess.server_model_type` of the process.
    metrics: Some of `classification.METRICS`.

  Raises:
    ValueError: If the process does not average whole models, or a metric is
      unknown.
  """
  if not tff.structure.has_field(model_type, 'weights'):
    raise errors.UserError(
      'The protocol global tests an averaged model, but this process averages '
      'no weights; see `composer.with_averaging`.'
    )
  tiers = client_evaluation.whole_models(models, model_type)
  examples_type = client_work.examples_type(input_spec)
  count_fns = [
    client_evaluation.build_count_fn([model], input_spec, model_type, metrics)
    for model in models
  ]
  select_known = client_evaluation.build_select_known(model_type)

  @tff.tensorflow.computation(select_known.type_signature.result, examples_type)
  def test_shard(known, examples):
    parts = tf.split(known['weights'], tiers.sizes)
    return collections.OrderedDict(
      (name, count_fn(known, tf.constant(0), weights, examples))
      for name, count_fn, weights in zip(tiers.names, count_fns, parts)
    )

  @tff.federated_computation(
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(examples_type, tff.CLIENTS),
  )
  def evaluate(model, shards):
    known = tff.federated_broadcast(tff.federated_map(select_known, model))
    return tff.federated_sum(tff.federated_map(test_shard, (known, shards)))

  return evaluate


def evaluate_each(
  evaluate: tff.Computation, model: Any, test_sets: Mapping[str, Any]
) -> 'collections.OrderedDict[tuple[str, str], dict[str, Any]]':
  """Tests the averaged model of each architecture on each test set.

  Args:
    evaluate: Result of `build_global_evaluation`.
    model: The server's model.
    test_sets: Test sets by name, e.g. `FederatedTask.global_test`.

  Returns:
    A dict of how many examples each classifier got right, and of statistics, by
    the names of test set and architecture.
  """
  return collections.OrderedDict(
    ((name, architecture), counts)
    for name, examples in test_sets.items()
    for architecture, counts in _evaluate(evaluate, model, examples).items()
  )


def by_name(
  found: Mapping[tuple[str, str], Mapping[str, Any]],
) -> 'collections.OrderedDict[str, dict[str, Any]]':
  """Returns counts by what was tested, as columns and files name it.

  That is the name of the test set; with several architectures that of the
  architecture, behind that of the test set if there are several.

  Args:
    found: Result of `evaluate_each`.
  """
  test_sets = {test_set for test_set, _ in found}
  architectures = {architecture for _, architecture in found}
  named = collections.OrderedDict()
  for (test_set, architecture), counts in found.items():
    parts = [test_set, architecture]
    if len(architectures) == 1:
      parts = [test_set]
    elif len(test_sets) == 1:
      parts = [architecture]
    named['_'.join(parts)] = dict(counts)
  return named


def evaluate_test_sets(
  evaluate: tff.Computation, model: Any, test_sets: Mapping[str, Any]
) -> 'collections.OrderedDict[str, dict[str, Any]]':
  """Returns `by_name` of `evaluate_each`, with the same arguments."""
  return by_name(evaluate_each(evaluate, model, test_sets))


def _evaluate(
  evaluate: tff.Computation, model: Any, examples: Any
) -> dict[str, dict[str, Any]]:
  """Returns counts and statistics by architecture."""
  totals: dict[str, dict[str, Any]] = {}
  step = _SHARD_SIZE * _SHARDS_PER_CALL
  for start in range(0, len(examples['y']), step):
    ends = range(start, min(start + step, len(examples['y'])), _SHARD_SIZE)
    shards = [
      collections.OrderedDict(
        (name, array[begin : begin + _SHARD_SIZE])
        for name, array in examples.items()
      )
      for begin in ends
    ]
    for name, counts in evaluate(model, shards).items():
      total = totals.setdefault(name, {})
      for key, value in counts.items():
        total[key] = total.get(key, 0) + client_evaluation.plain(value)
  return totals


def summarize(
  per_test_set: Mapping[str, Mapping[str, Any]], metrics: Collection[str] = ()
) -> 'collections.OrderedDict[str, float]':
  """Returns accuracies of the averaged models, in [0, 1], and metrics.

  For each classifier in them: `global_test_<classifier>_accuracy`, the mean
  over test sets and architectures; if there are several, also
  `global_test_<classifier>_accuracy_<name>` of each. The same with the name of
  a metric in place of `accuracy`.

  Args:
    per_test_set: Result of `evaluate_test_sets`.
    metrics: Some of `classification.METRICS`.
  """
  first = next(iter(per_test_set.values()))
  summary = collections.OrderedDict()
  for classifier in (n for n in client_evaluation.CLASSIFIERS if n in first):
    by_metric: dict[str, dict[str, float]] = {'accuracy': {}}
    for name, counts in per_test_set.items():
      by_metric['accuracy'][name] = float(
        counts[classifier] / max(counts['num_examples'], 1)
      )
      if metrics:
        statistics = classification.pooled([counts], classifier)
        found = classification.compute(statistics, metrics)
        for metric, value in found.items():
          by_metric.setdefault(metric, {})[name] = value
    for metric, values in by_metric.items():
      column = f'{client_evaluation.GLOBAL_PREFIX}{classifier}_{metric}'
      known = {n: v for n, v in values.items() if not math.isnan(v)}
      if known:
        summary[column] = float(np.mean(list(known.values())))
      if len(per_test_set) > 1:
        summary.update((f'{column}_{name}', v) for name, v in known.items())
  return summary
