"""FedAvg: one model for all, the mean of what clients train.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017 (arXiv:1602.05629). The result is that of
`tff.learning.algorithms.build_weighted_fed_avg` with SGD 1.0 at the server.
"""

from collections.abc import Sequence
from typing import Optional

import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.algorithms import local as local_lib
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import functional
from tff_fedsa.server import averaging


def build_fedavg(
  models: Sequence[functional.FunctionalModel],
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  objective: Optional[objective_lib.ClientObjective] = None,
  weighting: str = 'examples',
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedAvg over clients of one architecture.

  The types are those of `fedsa.build_fedsa`, but the server's model has the
  averaged `weights` only. Of its classifiers there is the `head`: that of the
  averaged model, which is every client's.

  Args:
    models: A single one, the architecture of all clients.
    input_spec: Of the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    objective: What clients minimize; the cross-entropy by default.
    weighting: `examples`: a client counts as much as the examples that it
      trained on; `clients`: all count the same.
    model_seed: The first model is the architecture's with it.
    aggregator_factory: See `averaging.build_weight_averaging`.

  Raises:
    ValueError: If there are several architectures, or model and input spec do
      not fit each other.
  """
  return composer.with_averaging(
    local_lib.build_local(
      models,
      input_spec=input_spec,
      optimizer=optimizer,
      local=local,
      objective=objective,
    ),
    averaging.build_weight_averaging(
      models,
      model_seed=model_seed,
      weighting=weighting,
      aggregator_factory=aggregator_factory,
    ),
  )
