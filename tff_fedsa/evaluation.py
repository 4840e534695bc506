"""Federated evaluation: every client, three classifiers, on its own test data.

Source: `clientSA.test_metrics`, lokinko/FedSA@75bf106 (`prototype`); the other
two classifiers are ours.
"""

import collections
from collections.abc import Mapping, Sequence
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedsa import client_state as client_state_lib
from tff_fedsa import client_work
from tff_fedsa import local_training
from tff_fedsa import prototypes
from tff_fedsa import server_model
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import functional

CLASSIFIERS = ('prototype', 'anchor', 'head')


def build_evaluation(
  models: Sequence[functional.FunctionalModel],
  input_spec: input_spec_lib.InputSpec,
) -> tff.Computation:
  """Returns the computation that tests clients on their own examples.

  Its type is `(<M@SERVER, {C}@CLIENTS, {E}@CLIENTS> -> {R}@CLIENTS)`, `M`
  being `server_model.ServerModel`, `C` a `ClientState`, `E` stacked examples
  and `R = <num_examples=int32, prototype=int32, anchor=int32, head=int32>`:
  how many examples each classifier got right.

  - `prototype` (the paper's): the nearest global prototype among those
    present, by mean squared distance of features;
  - `anchor`: the nearest anchor;
  - `head`: the largest logit of the client's own head.

  Args:
    models: As given to the process.
    input_spec: Of the clients' images.

  Raises:
    ValueError: If the models disagree (see `client_work.check_models`).
  """
  num_classes, feature_dim = client_work.check_models(models, input_spec)
  model_type = server_model.server_model_type(num_classes, feature_dim)
  state_type = client_state_lib.client_state_type(num_classes, feature_dim)
  examples_type = client_work.examples_type(input_spec)
  forwards = [model.build_forward(input_spec) for model in models]

  def count_correct(model, forward, known, state, examples):
    trainable, model_state = model.split(state.weights)

    def add(carry, images, labels):
      features, logits = forward(trainable, model_state, images)
      predictions = (
        prototypes.nearest_class(features, known.prototypes, known.present),
        prototypes.nearest_class(features, known.anchors),
        tf.argmax(logits, axis=1, output_type=tf.int32),
      )
      # Not `==`: it compares identities while TFF traces.
      return tuple(
        correct
        + tf.math.count_nonzero(tf.equal(predicted, labels), dtype=tf.int32)
        for correct, predicted in zip(carry, predictions)
      )

    zeros = (tf.constant(0),) * len(CLASSIFIERS)
    return local_training.fold_over_examples(examples, add, zeros)

  @tf.function(autograph=False)
  def evaluate_client(known, state, examples):
    correct = tf.switch_case(
      state.architecture,
      [
        functools.partial(count_correct, model, forward, known, state, examples)
        for model, forward in zip(models, forwards)
      ],
    )
    result = collections.OrderedDict(num_examples=tf.size(examples['y']))
    result.update(zip(CLASSIFIERS, correct))
    return result

  @tff.tensorflow.computation(model_type, state_type, examples_type)
  def evaluate_one(known, state, examples):
    return evaluate_client(known, state, examples)

  @tff.federated_computation(
    tff.FederatedType(model_type, tff.SERVER),
    tff.FederatedType(state_type, tff.CLIENTS),
    tff.FederatedType(examples_type, tff.CLIENTS),
  )
  def evaluate(model, client_states, examples):
    return tff.federated_map(
      evaluate_one, (tff.federated_broadcast(model), client_states, examples)
    )

  return evaluate


def summarize(
  per_client: Sequence[Mapping[str, Any]],
) -> 'collections.OrderedDict[str, float]':
  """Returns accuracies over all clients, in [0, 1].

  For each classifier: `<classifier>_accuracy` (micro: all correct / all
  examples, the paper's number), and over clients `_accuracy_mean`, `_std`,
  `_min`, `_p10` (10th percentile).

  Args:
    per_client: What `build_evaluation` returns.
  """
  num_examples = np.array([int(c['num_examples']) for c in per_client])
  summary = collections.OrderedDict()
  for name in CLASSIFIERS:
    correct = np.array([int(client[name]) for client in per_client])
    accuracies = correct / np.maximum(num_examples, 1)
    prefix = f'{name}_accuracy'
    summary[prefix] = float(correct.sum() / max(num_examples.sum(), 1))
    summary[f'{prefix}_mean'] = float(accuracies.mean())
    summary[f'{prefix}_std'] = float(accuracies.std())
    summary[f'{prefix}_min'] = float(accuracies.min())
    summary[f'{prefix}_p10'] = float(np.percentile(accuracies, 10))
  return summary
