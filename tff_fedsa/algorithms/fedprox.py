"""FedProx: FedAvg with clients that stay near the broadcast model.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys
2020 (arXiv:1812.06127); the step is that of `PerturbedGradientDescent` in
`system/flcore/optimizers/fedoptimizer.py`, TsingZ0/PFLlib@2b077c1. The result
differs from that of `tff.learning.algorithms.build_weighted_fed_prox`. TFF's
proximal term has the opposite sign: it pushes clients away from the first
weights of the round (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Annotated, ClassVar, Optional

from etils import epy
import numpy as np

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import prototypes
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.algorithms import fedavg
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional


@dataclasses.dataclass(frozen=True)
class FedProxConfig(settings.Settings):
  """FedProx: strength of the proximal term, weights of the mean.

  Attributes:
    mu: Weight of the proximal term, >= 0. The loss contains mu / 2 times the
      squared distance from the first weights of the round. The paper tries
      0.001, 0.01, 0.1 and 1. 0 is FedAvg.
    weighting: Weight of a client's model in the mean: its examples (examples,
      the paper), or 1 (clients).
  """

  flag_prefix: ClassVar[str] = 'fedprox_'

  mu: Annotated[float, settings.AtLeast(0.0)] = 0.001
  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'examples'


def build_objective(proximal_weight: float) -> objective_lib.ClientObjective:
  """Returns FedProx's client objective.

    L = L_ce + mu / 2 * |w - w_0|^2

  Here w are the trainable weights, and w_0 are their values at the beginning of
  the round.

  Args:
    proximal_weight: mu, >= 0.

  Raises:
    ValueError: If the weight is negative or not finite.
  """
  if not (np.isfinite(proximal_weight) and proximal_weight >= 0.0):
    raise errors.UserError(
      f'Expected a proximal weight >= 0, found {proximal_weight}.'
    )
  objective = objective_lib.cross_entropy_objective()
  if not proximal_weight:
    return objective
  weight = objective_lib.LossWeight('fedprox_mu', proximal_weight)
  return objective._replace(
    loss_names=(*objective.loss_names, 'proximal'),
    proximal_weight=weight,
    weights=(weight,),
  )


def build_fedprox(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedProxConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedProx, in each architecture.

  See `fedavg.build_fedavg`.

  Args:
    models: One per architecture; a client's state says which is its own.
    config: Hyper-parameters. The default mu is the smallest of the paper.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    model_seed: The first models are the architectures' with it.
    aggregator_factory: See `averaging.build_weight_averaging`.

  Raises:
    ValueError: If models and input spec do not fit each other, or there are
      several architectures and an aggregator factory.
  """
  config = config or FedProxConfig()
  return fedavg.build_fedavg(
    models,
    fedavg.FedAvgConfig(weighting=config.weighting),
    input_spec=input_spec,
    optimizer=optimizer,
    local=local,
    objective=build_objective(config.mu),
    model_seed=model_seed,
    aggregator_factory=aggregator_factory,
  )


METHOD = method.Method(
  name='fedprox',
  title='FedProx',
  config=FedProxConfig,
  build_fn=build_fedprox,
  averages='weights',
  terms={
    'proximal': (
      "half the squared distance from the round's first weights, unweighted"
    )
  },
)
