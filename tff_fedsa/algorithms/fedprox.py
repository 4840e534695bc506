"""FedProx: FedAvg whose clients stay near the model they began with.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys
2020 (arXiv:1812.06127); step as in `system/flcore/optimizers/fedoptimizer.py`
(`PerturbedGradientDescent`), TsingZ0/PFLlib@2b077c1. The result is not
that of `tff.learning.algorithms.build_weighted_fed_prox`, whose proximal term
has the opposite sign: it pushes clients away from the weights that the round
began with (docs/methods.md).
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
  """FedProx: how strongly clients are held, and how models are averaged.

  Attributes:
    mu: Half of it times the squared distance from the weights that the round
      began with is part of the loss, >= 0. The paper chooses it from 0.001,
      0.01, 0.1 and 1; with 0 it is FedAvg.
    weighting: Weight of a client's model in the mean: its examples (examples,
      the paper), or 1 (clients).
  """

  flag_prefix: ClassVar[str] = 'fedprox_'

  mu: Annotated[float, settings.AtLeast(0.0)] = 0.001
  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'examples'


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
    raise errors.UserError(
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
    config: Hyper-parameters; the default mu is the mildest of the paper's.
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
      "half its squared distance from the round's first weights, unweighted"
    )
  },
)
