"""Local: every client trains alone. Federated methods must beat this.

Source: `clientLocal.train`, TsingZ0/HtFLlib@e959261.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.algorithms import method

with epy.lazy_imports():
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


@dataclasses.dataclass(frozen=True)
class LocalConfig(settings.Settings):
  """Local has no hyper-parameters."""


def build_local(
  models: Sequence[functional.FunctionalModel],
  config: Optional[LocalConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  objective: Optional[objective_lib.ClientObjective] = None,
) -> composer.StatefulProcess:
  """Builds the process of clients that exchange nothing.

  The types are those of `fedsa.build_fedsa`, but the server's model is `()`.
  The classifier is the `head`.

  Args:
    models: One model per architecture. A client's state names its architecture.
    config: Has no fields. It exists because the other methods have one.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    objective: Objective of clients; the cross-entropy by default.

  Raises:
    ValueError: If models and input spec do not fit each other.
  """
  del config  # Unused.
  nothing = tff.types.to_type(())
  client_work = client_work_lib.build_client_work(
    models,
    objective or objective_lib.cross_entropy_objective(),
    nothing,
    update_fn=lambda model, result: (),
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  return composer.compose_process(
    lambda: (),
    distribution.build_distributor(nothing),
    client_work,
    _build_empty_aggregation(),
    finalizers.build_finalizer(nothing, nothing, lambda model, update: model),
  )


def _build_empty_aggregation() -> tff.templates.AggregationProcess:
  """Returns an aggregation process for clients that send nothing."""

  @tff.federated_computation
  def initialize_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
    initialize_fn.type_signature.result,
    tff.FederatedType(tff.types.to_type(()), tff.CLIENTS),
  )
  def next_fn(state, unused_value):
    return tff.templates.MeasuredProcessOutput(
      state,
      tff.federated_value((), tff.SERVER),
      tff.federated_value(collections.OrderedDict(), tff.SERVER),
    )

  return tff.templates.AggregationProcess(initialize_fn, next_fn)


METHOD = method.Method(
  name='local', title='Local', config=LocalConfig, build_fn=build_local
)
