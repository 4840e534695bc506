"""A client's own model and a shared model, trained in the same steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Optional

import tensorflow as tf

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.maths import gradients as gradients_lib
from tff_fedsa.models import functional
from tff_fedsa.models import steps


class ModelPair:
  """Two models that are trained on the same batches, as one model.

  It has the methods of a `FunctionalModel` that `local_training` calls. Its
  flat vector holds the weights of the own model, those of the shared model, and
  further tensors. Features and logits are those of the own model.

  Attributes:
    own: The client's model.
    shared: The shared model.
    feature_dim: D of the own model.
    num_classes: C.
    trainable_specs: Trainable weights of the own model, of the shared model,
      and the further tensors.
    state_specs: States of the own model, then of the shared model.
    group_sizes: Number of `trainable_specs` of each of the three.
  """

  def __init__(
    self,
    own: functional.FunctionalModel,
    shared: functional.FunctionalModel,
    private_specs: Sequence[tf.TensorSpec] = (),
  ):
    """Initializes `ModelPair`.

    Args:
      own: The client's model.
      shared: The shared model, with its own Keras layers (see
        `FunctionalModel.copy`).
      private_specs: Specifications of further trained tensors.
    """
    self.own = own
    self.shared = shared
    self.feature_dim = own.feature_dim
    self.num_classes = own.num_classes
    self._private_specs = list(private_specs)
    groups = (own.trainable_specs, shared.trainable_specs, self._private_specs)
    self.trainable_specs = [spec for group in groups for spec in group]
    self.state_specs = [*own.state_specs, *shared.state_specs]
    self.group_sizes = tuple(len(group) for group in groups)

  @property
  def name(self) -> str:
    """Name of the client's model, for errors."""
    return self.own.name

  @property
  def halves(self) -> tuple[tf.keras.Model, ...]:
    """The traced Keras models of both."""
    return *self.own.halves, *self.shared.halves

  def parts(self, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the flat vectors of the own and the shared model and the rest."""
    cuts = self.own.num_weights, self.own.num_weights + self.shared.num_weights
    return weights[: cuts[0]], weights[cuts[0] : cuts[1]], weights[cuts[1] :]

  def split(
    self, weights: tf.Tensor
  ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns the trainable and the other weights of a flat vector."""
    own, shared, rest = self.parts(weights)
    (own_trainable, own_state), (trainable, state) = (
      self.own.split(own),
      self.shared.split(shared),
    )
    sizes = [spec.shape.num_elements() for spec in self._private_specs]
    private = [
      tf.reshape(part, spec.shape)
      for part, spec in zip(
        tf.split(tf.ensure_shape(rest, [sum(sizes)]), sizes) if sizes else [],
        self._private_specs,
      )
    ]
    return [*own_trainable, *trainable, *private], [*own_state, *state]

  def flatten(
    self, trainable: Sequence[tf.Tensor], state: Sequence[tf.Tensor]
  ) -> tf.Tensor:
    """Returns the flat vector of weights as `split` returns them."""
    own, shared, private = self._grouped(trainable)
    own_state, shared_state = self._state_parts(state)
    return tf.concat(
      [
        self.own.flatten(own, own_state),
        self.shared.flatten(shared, shared_state),
        *(tf.reshape(tensor, [-1]) for tensor in private),
      ],
      axis=0,
    )

  def build_train_step(
    self,
    objective_fn: Callable[..., Mapping[str, tf.Tensor]],
    *,
    batch_size: Optional[int],
    context_specs: Mapping[str, tf.TensorSpec],
    input_spec: input_spec_lib.InputSpec,
  ) -> Callable[..., steps.StepOutput]:
    """Traces one training step of both models up to the gradients.

    This works like `FunctionalModel.build_train_step`, with two differences.
    The context of the objective also has `shared_features`, `shared_logits` and
    `private`, a list of the further tensors. And the sum of the results `loss`
    and `shared` (the shared model's objective) is differentiated. An objective
    decides with `tf.stop_gradient` which model learns from which term.

    Args:
      objective_fn: See above.
      batch_size: Static size of a batch, None if it varies.
      context_specs: Specs of the dict `context`.
      input_spec: Specification of the step's inputs.

    Raises:
      ValueError: See `FunctionalModel.build_train_step`.
    """
    for model in (self.own, self.shared):
      model.check_inputs(input_spec)

    def step(trainable, state, inputs, labels, context, seed):
      trainable = list(trainable)
      own, shared, private = self._grouped(trainable)
      own_state, shared_state = self._state_parts(state)
      # With the own model's seed, it would be alone the same.
      shared_seed = tf.random.experimental.stateless_fold_in(seed, -1)
      with tf.GradientTape() as tape:
        tape.watch(trainable)
        inputs = input_spec.preprocess(inputs, seed)
        with (
          self.own.training_call(own, own_state, inputs, seed) as call,
          self.shared.training_call(
            shared, shared_state, inputs, shared_seed
          ) as other,
        ):
          losses = dict(
            objective_fn(
              call.features,
              call.logits,
              labels,
              call.head_fn,
              {
                **context,
                'seed': steps.objective_seed(seed),
                'shared_features': other.features,
                'shared_logits': other.logits,
                'private': private,
              },
            )
          )
          for penalty in call.penalties:
            losses['loss'] += tf.reduce_sum(penalty)
          for penalty in other.penalties:
            losses['shared'] += tf.reduce_sum(penalty)
          new_state = [*call.state_fn(), *other.state_fn()]
        total = losses['loss'] + losses['shared']
      return steps.StepOutput(
        gradients=gradients_lib.gradients(tape, total, trainable),
        state=new_state,
        features=call.features,
        logits=call.logits,
        losses=losses,
      )

    return steps.trace(
      self.name,
      self.halves,
      step,
      self.trainable_specs,
      self.state_specs,
      tf.TensorSpec([batch_size, *input_spec.shape], input_spec.dtype),
      tf.TensorSpec([batch_size], tf.int32),
      dict(context_specs),
      tf.TensorSpec([2], tf.int32),
    )

  def build_forward(
    self, input_spec: input_spec_lib.InputSpec
  ) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Traces the own model in inference mode, with the pair's weights.

    See `FunctionalModel.build_forward`.
    """
    forward = self.own.build_forward(input_spec)
    return lambda trainable, state, inputs: forward(
      self._grouped(trainable)[0], self._state_parts(state)[0], inputs
    )

  def _grouped(self, trainable):
    first, second, _ = self.group_sizes
    return (
      list(trainable[:first]),
      list(trainable[first : first + second]),
      list(trainable[first + second :]),
    )

  def _state_parts(self, state):
    cut = len(self.own.state_specs)
    return list(state[:cut]), list(state[cut:])
