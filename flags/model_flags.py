"""Flags of the client models."""

import importlib
import typing

from absl import flags

if typing.TYPE_CHECKING:
  from tff_fedsa.data import tasks
  from tff_fedsa.models import functional

flags.disclaim_key_flags()


class ModelFlags:
  """Defines the flags of models; `build(task)` returns them, functional."""

  def __init__(self):
    self._family = flags.DEFINE_string(
      'family',
      'digits3',
      'Architectures of the clients; client i gets member i mod n. A family '
      '(digits3, reference_mlp2, cnn_resnet8, cnn_resnet10), an architecture '
      '(digits_mlp, digits_cnn, digits_cnn_bn, fedavg_cnn, resnet8, resnet10, '
      'mlp_64_64_128, mlp_64_128_64), or several separated by commas.',
    )
    self._modules = flags.DEFINE_list(
      'architecture_modules',
      [],
      'Python modules to import first, which register architectures of your '
      'own (tff_fedsa/models/architectures.py shows how).',
    )
    self._feature_dim = flags.DEFINE_integer(
      'feature_dim',
      512,
      'D, features of every client model, and entries of an anchor.',
      lower_bound=1,
    )
    self._model_seed = flags.DEFINE_integer(
      'model_seed', 0, 'Initial weights of clients follow from it.'
    )
    self._client_init = flags.DEFINE_enum(
      'client_init',
      'shared',
      ['shared', 'independent'],
      'Whether clients of one architecture start from the same weights (the '
      'reference) or each from its own.',
    )

  def build(
    self, task: 'tasks.FederatedTask'
  ) -> 'list[functional.FunctionalModel]':
    """Returns one `FunctionalModel` per architecture of the family.

    Args:
      task: The `FederatedTask` whose images the models get.

    Raises:
      ValueError: If a name is unknown, or an architecture does not fit.
    """
    from tff_fedsa.models import families  # Imports TensorFlow.

    for name in self._modules.value:
      try:
        importlib.import_module(name)
      except ModuleNotFoundError as error:
        raise ValueError(
          f'--{self._modules.name}: there is no module {error.name!r} on the '
          'path (PYTHONPATH, or the folder you are in).'
        ) from error
    return families.build_family(
      self._family.value,
      task.input_spec.model_shape,
      task.num_classes,
      self._feature_dim.value,
    )

  @property
  def model_seed(self) -> int:
    return self._model_seed.value

  @property
  def client_init(self) -> str:
    return self._client_init.value
