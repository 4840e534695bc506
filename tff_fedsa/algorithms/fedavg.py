"""FedAvg: the server averages the clients' models.

Clients of several architectures have one model per architecture (tier).

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017 (arXiv:1602.05629). The result equals that of
`tff.learning.algorithms.build_weighted_fed_avg` with SGD and a learning rate of
1.0 at the server.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Annotated, ClassVar, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import prototypes

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.algorithms import local as local_lib
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional
  from tff_fedsa.server import averaging


@dataclasses.dataclass(frozen=True)
class FedAvgConfig(settings.Settings):
  """FedAvg: how models are averaged.

  Attributes:
    weighting: Weight of a client's model in the mean: its examples (examples,
      the paper), or 1 (clients).
  """

  flag_prefix: ClassVar[str] = 'fedavg_'

  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'examples'


def build_fedavg(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedAvgConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  objective: Optional[objective_lib.ClientObjective] = None,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedAvg, in each architecture.

  The types are those of `fedsa.build_fedsa`, but the server's model has the
  averaged `weights` only. Its classifier is the `head` of the averaged
  model of an architecture, which is that of every client of it.

  Args:
    models: One per architecture; a client's state says which is its own.
    config: Hyper-parameters; the paper's by default.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    objective: Objective of clients; the cross-entropy by default.
    model_seed: The first models are the architectures' with it.
    aggregator_factory: See `averaging.build_weight_averaging`.

  Raises:
    ValueError: If models and input spec do not fit each other, or there are
      several architectures and an aggregator factory.
  """
  with composer.deferred():
    alone = local_lib.build_local(
      models,
      input_spec=input_spec,
      optimizer=optimizer,
      local=local,
      objective=objective,
    )
  return composer.with_averaging(
    alone,
    averaging.build_weight_averaging(
      models,
      model_seed=model_seed,
      weighting=(config or FedAvgConfig()).weighting,
      aggregator_factory=aggregator_factory,
    ),
  )


METHOD = method.Method(
  name='fedavg',
  title='FedAvg',
  config=FedAvgConfig,
  build_fn=build_fedavg,
  averages='weights',
)
