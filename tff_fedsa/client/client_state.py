"""A client's state between rounds: one TFF type for every architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple, Optional

from etils import epy
import numpy as np

from tff_fedsa.models import model_config
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa.client import local_optimizer
  from tff_fedsa.models import functional


class ClientState(NamedTuple):
  """The state of one client.

  Weights are one flat vector. The architecture defines its layout (see
  `models.functional`). So clients of different architectures have the same type
  and take part in the same federated computation.

  Attributes:
    architecture: int32 scalar, index of the model in the process.
    weights: float32[?], trainable weights, then BatchNorm statistics etc.
    optimizer: float32[?], state of the local optimizer. Empty if it is reset in
      every round.
    prototypes: float32[num_classes, feature_dim], the client's own prototypes
      of its latest round. Zeros for absent classes.
    counts: float32[num_classes], examples behind each prototype. Zeros before
      the first round.
    seed: int32[2], base of the client's batch order and dropout.
    private: float32[?], further tensors that a method keeps at the client,
      flat. The method defines the layout. Empty before the first round, and in
      most methods.
  """

  architecture: Any
  weights: Any
  optimizer: Any
  prototypes: Any
  counts: Any
  seed: Any
  private: Any = np.zeros([0], np.float32)


def client_state_type(num_classes: int, feature_dim: int) -> tff.Type:
  """Returns the (unplaced) TFF type of a `ClientState`."""
  return tff.types.to_type(
    ClientState(
      architecture=tff.TensorType(np.int32),
      weights=tff.TensorType(np.float32, (None,)),
      optimizer=tff.TensorType(np.float32, (None,)),
      prototypes=tff.TensorType(np.float32, (num_classes, feature_dim)),
      counts=tff.TensorType(np.float32, (num_classes,)),
      seed=tff.TensorType(np.int32, (2,)),
      private=tff.TensorType(np.float32, (None,)),
    )
  )


def new_client_state(
  model: functional.FunctionalModel,
  architecture: int,
  weights: np.ndarray,
  *,
  client_id: int,
  seed: int = 0,
  optimizer: Optional[
    local_optimizer.LocalOptimizer | local_optimizer.ChosenOptimizer
  ] = None,
) -> ClientState:
  """Returns the state of a client that has not trained yet.

  Args:
    model: The client's model.
    architecture: Its index among the models of the process.
    weights: float32[model.num_weights], initial weights.
    client_id: Number of the client. The batch order depends on it.
    seed: Sampling seed, base of batch order and dropout.
    optimizer: The local optimizer if its state is kept between rounds.

  Raises:
    ValueError: If `weights` is not a flat vector of the model's size.
  """
  weights = np.asarray(weights, np.float32)
  if weights.shape != (model.num_weights,):
    raise errors.UserError(
      f'Client {client_id}: expected weights of shape '
      f'({model.num_weights},) for the architecture {model.name!r}, found '
      f'{weights.shape}.'
    )
  shape = (model.num_classes, model.feature_dim)
  return ClientState(
    architecture=np.int32(architecture),
    weights=weights,
    optimizer=(
      np.zeros([0], np.float32)
      if optimizer is None
      else optimizer.initial_vector(model.trainable_specs)
    ),
    prototypes=np.zeros(shape, np.float32),
    counts=np.zeros(shape[:1], np.float32),
    seed=np.array([seed, client_id], np.int32),
  )


def build_initial_state_fn(
  models: Sequence[functional.FunctionalModel],
  *,
  turns: Sequence[int] = (),
  model_seed: int = 0,
  sampling_seed: int = 0,
  client_init: str = 'shared',
  optimizer: Optional[
    local_optimizer.LocalOptimizer | local_optimizer.ChosenOptimizer
  ] = None,
) -> Callable[[int], ClientState]:
  """Returns `fn(client_id) -> ClientState`, the state before the first round.

  Client `i` gets the architecture `turns[i mod len(turns)]`.

  Args:
    models: The models of the process.
    turns: Positions of the clients' models, in turn. Default: one after the
      other.
    model_seed: Seed of initial weights.
    sampling_seed: Seed of batch order and dropout.
    client_init: `shared` (reference): all clients of one architecture start
      from the same weights. `independent`: each client has its own initial
      weights.
    optimizer: The local optimizer if its state is kept between rounds.

  Raises:
    ValueError: If `client_init` is unknown, or there is no model.
  """
  if client_init not in model_config.CLIENT_INITS:
    raise errors.UserError(
      f'Unknown client_init {client_init!r}; known: '
      f'{", ".join(model_config.CLIENT_INITS)}.'
    )
  if not models:
    raise errors.UserError('Expected at least one model, found none.')

  turns = turns or range(len(models))

  @functools.cache
  def shared_weights(architecture: int) -> np.ndarray:
    return models[architecture].initial_weights(model_seed)

  def initial_state_fn(client_id: int) -> ClientState:
    architecture = turns[client_id % len(turns)]
    if client_init == 'shared':
      weights = shared_weights(architecture)
    else:
      own_seed = np.random.SeedSequence([model_seed, client_id])
      weights = models[architecture].initial_weights(
        int(own_seed.generate_state(1)[0] >> 1)
      )
    return new_client_state(
      models[architecture],
      architecture,
      weights,
      client_id=client_id,
      seed=sampling_seed,
      optimizer=optimizer,
    )

  return initial_state_fn
