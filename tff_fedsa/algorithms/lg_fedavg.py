"""LG-FedAvg: local representations, one head for all.

Source: Liang et al., "Think Locally, Act Globally: Federated Learning with
Local and Global Representations", 2020 (arXiv:2001.01523); reference code
`system/flcore/{clients/clientlg,servers/serverlg}.py`, TsingZ0/HtFLlib@e959261.
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
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import screening
  from tff_fedsa.aggregation import weighted_mean
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model


@dataclasses.dataclass(frozen=True)
class LGFedAvgConfig(settings.Settings):
  """LG-FedAvg: how heads are averaged.

  Attributes:
    weighting: Weight of a client's head in the mean: its examples (examples,
      the reference), or 1 (clients).
  """

  flag_prefix: ClassVar[str] = 'lg_fedavg_'

  weighting: Annotated[str, settings.OneOf(prototypes.WEIGHTINGS)] = 'examples'


def build_lg_fedavg(
  models: Sequence[functional.FunctionalModel],
  config: Optional[LGFedAvgConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of LG-FedAvg over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `server_model.HeadModel`. Clients begin a round with the server's head and
  send their trained heads back. The classifiers are `head` and `global_head`.
  The reference reports `global_head`: the averaged head on the client's
  features.

  Args:
    models: One model per architecture, all with the same head. A client's state
      names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs.
    model_seed: Seed of the first head, the initial head of `models[0]`.
    aggregator_factory: Takes a `weighted_mean.WeightedValue` and returns the
      mean; by default `weighted_mean.WeightedMeanFactory()`.

  Raises:
    ValueError: If models and input spec do not fit each other, or the heads
      of models differ.
  """
  client_work_lib.check_models(models, input_spec)
  model_type = server_model.head_model_type(client_work_lib.check_heads(models))
  weighting = (config or LGFedAvgConfig()).weighting

  def update_fn(model, result):
    return weighted_mean.WeightedValue(
      tuple(model.head_of(result.weights)),
      prototypes.upload_weights(result.num_examples, weighting),
    )

  client_work = client_work_lib.build_client_work(
    models,
    objective_lib.cross_entropy_objective(),
    model_type,
    update_fn=update_fn,
    receive_fn=client_work_lib.receive_head,
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local or local_training.LocalTrainingConfig(),
  )
  aggregator = (
    aggregator_factory or weighted_mean.WeightedMeanFactory()
  ).create(client_work.type_signature.result.update)

  def finalize_fn(model, mean):
    # If no client sent a head, the server's head stays.
    return tf.nest.map_structure(
      lambda new, old: tf.where(mean.weight > 0, new, old),
      server_model.HeadModel(mean.value),
      model,
    )

  initial_model = server_model.initial_head_model(models[0], model_seed)
  return composer.compose_process(
    lambda: initial_model,
    distribution.build_distributor(model_type),
    client_work,
    aggregator,
    finalizers.build_finalizer(
      model_type, client_work.type_signature.result.update, finalize_fn
    ),
    limits=screening.Limits(weighting),
  )


METHOD = method.Method(
  name='lg_fedavg',
  title='LG-FedAvg',
  config=LGFedAvgConfig,
  build_fn=build_lg_fedavg,
)
