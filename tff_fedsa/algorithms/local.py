"""Local: every client trains alone. What a federated method has to beat.

Source: `clientLocal.train`, TsingZ0/HtFLlib@e959261 (as in lokinko/FedSA).
"""

import collections
from collections.abc import Sequence
from typing import Optional

import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.client import client_work as client_work_lib
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import functional
from tff_fedsa.server import distribution
from tff_fedsa.server import finalizers

_NOTHING = tff.types.to_type(())


def build_local(
  models: Sequence[functional.FunctionalModel],
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  objective: Optional[objective_lib.ClientObjective] = None,
) -> composer.StatefulProcess:
  """Builds the process of clients that exchange nothing.

  The types are those of `fedsa.build_fedsa`, but the server's model is `()`.
  Of its classifiers there is the `head`.

  Args:
    models: One per architecture; a client's state says which is its own.
    input_spec: Of the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    objective: What clients minimize; the cross-entropy by default.

  Raises:
    ValueError: If models and input spec do not fit each other.
  """
  client_work = client_work_lib.build_client_work(
    models,
    objective or objective_lib.cross_entropy_objective(),
    _NOTHING,
    update_fn=lambda model, result: (),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  return composer.compose_process(
    lambda: (),
    distribution.build_distributor(_NOTHING),
    client_work,
    _build_empty_aggregation(),
    finalizers.build_finalizer(_NOTHING, _NOTHING, lambda model, update: model),
  )


def _build_empty_aggregation() -> tff.templates.AggregationProcess:
  """Returns the process that aggregates nothing to nothing."""

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(_NOTHING, tff.CLIENTS),
  )
  def next_fn(state, unused_value):
    return tff.templates.MeasuredProcessOutput(
      state,
      tff.federated_value((), tff.SERVER),
      tff.federated_value(collections.OrderedDict(), tff.SERVER),
    )

  return tff.templates.AggregationProcess(initialize_fn, next_fn)
