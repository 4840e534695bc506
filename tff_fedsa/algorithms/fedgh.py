"""FedGH: the server trains one head on the prototypes of all clients.

Source: Yi et al., "FedGH: Heterogeneous Federated Learning with Generalized
Global Header", ACM MM 2023 (arXiv:2303.13137); reference code
`system/flcore/{clients/clientgh,servers/servergh}.py`, TsingZ0/HtFLlib@e959261.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Annotated, ClassVar, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.algorithms import method
from tff_fedsa.maths import prototypes
from tff_fedsa.server import server_training

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.aggregation import collecting
  from tff_fedsa.aggregation import robust_means
  from tff_fedsa.aggregation import screening
  from tff_fedsa.client import client_work as client_work_lib
  from tff_fedsa.client import local_optimizer
  from tff_fedsa.client import local_training
  from tff_fedsa.client import objective as objective_lib
  from tff_fedsa.data import input_spec as input_spec_lib
  from tff_fedsa.maths import losses
  from tff_fedsa.models import functional
  from tff_fedsa.server import distribution
  from tff_fedsa.server import finalizers
  from tff_fedsa.server import server_model


@dataclasses.dataclass(frozen=True)
class FedGHConfig(settings.Settings):
  """FedGH: how the server trains the head.

  The default learning rate is that of `system/main.py`, TsingZ0/HtFLlib. One
  epoch is the value of `system/total.sh`, lokinko/FedSA@75bf106.

  Attributes:
    server_epochs: The server's passes over the prototypes of a round, >= 1.
    server_learning_rate: Learning rate of the server's SGD on the head, >= 0.
  """

  flag_prefix: ClassVar[str] = 'fedgh_'

  server_epochs: Annotated[int, settings.AtLeast(1)] = 1
  server_learning_rate: Annotated[float, settings.AtLeast(0.0)] = 0.01


def build_finalizer(
  model: functional.FunctionalModel,
  config: server_training.ServerTrainingConfig,
  *,
  seed: int = 0,
) -> tff.learning.templates.FinalizerProcess:
  """Returns the process that trains the head on prototypes.

  See `finalizers.build_training_finalizer`. The model is a
  `server_model.HeadModel`. The update holds the prototypes of all clients. The
  measurement is `server_loss`, the mean cross-entropy of the last epoch.

  Args:
    model: The architecture of the head.
    config: Epochs, batch size and learning rate.
    seed: Seed of the order of prototypes.

  Raises:
    ValueError: See `FunctionalModel.build_head`.
  """
  head_fn = model.build_head()

  def train_fn(known, collected, round_seed):
    head, loss = server_training.train(
      known.head,
      lambda head, vectors, labels: losses.cross_entropy(
        head_fn(list(head), vectors), labels
      ),
      collected,
      config,
      round_seed,
    )
    return server_model.HeadModel(head), collections.OrderedDict(
      server_loss=loss
    )

  aggregator = collecting.CollectingFactory().create(
    prototypes.prototypes_type(model.num_classes, model.feature_dim)
  )
  return finalizers.build_training_finalizer(
    server_model.head_model_type(model.head_specs),
    aggregator.next.type_signature.result.result.member,
    train_fn,
    seed=seed,
  )


def build_fedgh(
  models: Sequence[functional.FunctionalModel],
  config: Optional[FedGHConfig] = None,
  *,
  input_spec: input_spec_lib.InputSpec,
  optimizer: Optional[local_optimizer.LocalOptimizer] = None,
  local: Optional[local_training.LocalTrainingConfig] = None,
  model_seed: int = 0,
  aggregator_factory: Optional[
    tff.aggregators.UnweightedAggregationFactory
  ] = None,
) -> composer.StatefulProcess:
  """Builds the process of FedGH over heterogeneous, stateful clients.

  The types are those of `fedsa.build_fedsa`, but the server's model is a
  `server_model.HeadModel`. Clients begin a round with the server's head. After
  training they compute prototypes in a clean pass and send them. The server
  sees the prototypes of each client. The classifiers are `head` and
  `global_head`. The reference reports `global_head`.

  Args:
    models: One model per architecture, all with the same head. A client's state
      names its architecture.
    config: Hyper-parameters. Default: those of the reference.
    input_spec: How models see the clients' images.
    optimizer: Local optimizer; by default SGD with learning rate 0.01.
    local: Batches and epochs. The server uses the same batch size. `prototypes`
      has no effect.
    model_seed: Seed of the first head (the initial head of `models[0]`) and of
      the server's order of prototypes.
    aggregator_factory: Takes `ClassPrototypes` and returns their mean. The
      server then sees this mean as if one client had sent it. Default: the
      server sees the prototypes of each client.

  Raises:
    ValueError: If models and input spec do not fit each other, or the heads
      of models differ.
  """
  num_classes, feature_dim = client_work_lib.check_models(models, input_spec)
  model_type = server_model.head_model_type(client_work_lib.check_heads(models))
  local = dataclasses.replace(
    local or local_training.LocalTrainingConfig(), prototypes='final'
  )
  config = config or FedGHConfig()
  server_config = server_training.ServerTrainingConfig(
    config.server_epochs, local.batch_size, config.server_learning_rate
  )
  client_work = client_work_lib.build_client_work(
    models,
    objective_lib.cross_entropy_objective(),
    model_type,
    update_fn=client_work_lib.class_prototypes_update_fn(),
    receive_fn=client_work_lib.receive_head,
    optimizer=optimizer or local_optimizer.default_optimizer(),
    input_spec=input_spec,
    config=local,
  )
  initial_model = server_model.initial_head_model(models[0], model_seed)
  return composer.compose_process(
    lambda: initial_model,
    distribution.build_distributor(model_type),
    client_work,
    robust_means.collector(aggregator_factory).create(
      prototypes.prototypes_type(num_classes, feature_dim)
    ),
    build_finalizer(models[0], server_config, seed=model_seed),
    limits=screening.Limits('clients'),
  )


METHOD = method.Method(
  name='fedgh',
  title='FedGH',
  config=FedGHConfig,
  build_fn=build_fedgh,
  sees_clients='Its server trains the head on the prototypes of each client.',
  collects_prototypes=True,
  metrics=server_training.COLUMNS,
)
