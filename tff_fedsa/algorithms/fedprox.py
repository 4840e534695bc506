"""FedProx: FedAvg whose clients stay near the model they began with.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys
2020 (arXiv:1812.06127); step as in `system/flcore/optimizers/fedoptimizer.py`
(`PerturbedGradientDescent`), TsingZ0/PFLlib@2b077c1. The result is that of
`tff.learning.algorithms.build_weighted_fed_prox` with SGD 1.0 at the server.
"""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow_federated as tff

from tff_fedsa import composer
from tff_fedsa.algorithms import fedavg
from tff_fedsa.client import local_optimizer
from tff_fedsa.client import local_training
from tff_fedsa.client import objective as objective_lib
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import functional


def build_objective(proximal_weight: float) -> objective_lib.ClientObjective:
  """Returns FedProx's client objective.

    L = L_ce + mu / 2 * |w - w_0|^2

  for the trainable weights w, w_0 being those that the round began with.

  Args:
    proximal_weight: mu, >= 0.

  Raises:
    ValueError: If it is negative or not finite.
  """
  if not (np.isfinite(proximal_weight) and proximal_weight >= 0.0):
    raise ValueError(
      f'Expected a proximal weight >= 0, found {proximal_weight}.'
    )
  objective = objective_lib.cross_entropy_objective()
  if not proximal_weight:
    return objective
  return objective._replace(
    loss_names=(*objective.loss_names, 'proximal'),
    proximal_weight=proximal_weight,
  )


def build_fedprox(
  models: Sequence[functional.FunctionalModel],
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  proximal_weight: float = 0.001,
  weighting: str = 'examples',
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedProx over clients of one architecture.

  See `fedavg.build_fedavg`.

  Args:
    models: A single one, the architecture of all clients.
    input_spec: Of the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    proximal_weight: mu. The paper chooses it from 0.001, 0.01, 0.1 and 1 for
      each data set; the default is the mildest of these. With 0 it is FedAvg.
    weighting: See `fedavg.build_fedavg`.
    model_seed: The first model is the architecture's with it.
    aggregator_factory: See `averaging.build_weight_averaging`.

  Raises:
    ValueError: If there are several architectures, model and input spec do not
      fit each other, or mu is negative.
  """
  return fedavg.build_fedavg(
    models,
    input_spec=input_spec,
    optimizer=optimizer,
    local=local,
    objective=build_objective(proximal_weight),
    weighting=weighting,
    model_seed=model_seed,
    aggregator_factory=aggregator_factory,
  )
