"""Flags of the client models."""

import importlib
import typing

from absl import flags

from flags import holders

if typing.TYPE_CHECKING:
  from tff_fedsa.data import tasks
  from tff_fedsa.models import functional

flags.disclaim_key_flags()

# Listed here, since importing them takes seconds, for --help to be quick.
FAMILIES = (
  'digits3',
  'reference_mlp2',
  'cnn_resnet8',
  'cnn_resnet10',
  'HtFE2',
  'HtFE3',
  'HtFE4',
  'HtFE5',
  'HtFE-img-5',
  'HtFE8',
  'HtFE9',
  'HtM10',
  'HtFE8-HtC4',
  'HtFE8-HtC4-relu',
  'Res34-HtC4',
  'Res34-HtC4-relu',
  'HCNNs8',
)
_RESNETS = (
  *(f'resnet{n}' for n in (4, 6, 8, 10, 18, 34, 50, 101, 152)),
  'resnet10_3x3',
)
ARCHITECTURES = (
  'digits_mlp',
  'digits_cnn',
  'digits_cnn_bn',
  'mlp_64_64_128',
  'mlp_64_128_64',
  'fedavg_cnn',
  *_RESNETS,
  *(f'{name}_gn' for name in _RESNETS),
  'googlenet',
  'mobilenet_v2',
  'vit_b_16',
  'vit_b_32',
  *(f'hcnn{n}{w}' for w in ('', '_512', '_1024', '_1024_512') for n in (1, 2)),
  *(f'keras_{n}' for n in ('mobilenet_v2', 'resnet50', 'resnet101')),
  'keras_resnet152',
)


class ModelFlags:
  """Defines the flags of models; `build(task)` returns them, functional."""

  def __init__(self):
    self._family = flags.DEFINE_string(
      'family',
      'digits3',
      'Architectures of the clients; client i gets member i mod n. A family ('
      f'{", ".join(FAMILIES)}), an architecture ({", ".join(ARCHITECTURES)}), '
      'or several separated by commas. An architecture may have another head '
      'than its own: resnet34+mlp256 (docs/models.md).',
    )
    self._pretrained_weights = flags.DEFINE_list(
      'pretrained_weights',
      [],
      'ARCHITECTURE=FILE, …: where feature extractors start. A torchvision '
      'state_dict as .npz, or, for keras_*, the *_notop.h5 of '
      'keras.applications (docs/models.md). Default: weights are drawn.',
    )
    flags.register_validator(
      self._pretrained_weights,
      lambda pairs: all('=' in pair.strip('=') for pair in pairs),
      message='expected ARCHITECTURE=FILE, several separated by commas',
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
    self._standardize_features = flags.DEFINE_boolean(
      'standardize_features',
      False,
      "Give each example's features mean 0 and variance 1, after the last "
      'layer of any architecture. The reference does not.',
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

    self.check()
    return families.build_family(
      self._family.value,
      task.input_spec.model_shape,
      task.num_classes,
      self._feature_dim.value,
      pretrained_weights=dict(
        pair.split('=', 1) for pair in self._pretrained_weights.value
      ),
      standardized=self._standardize_features.value,
    )

  def check(self) -> None:
    """Imports the modules of architectures, and looks for the family.

    Raises:
      ValueError: If a name is unknown.
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
    families.members(self._family.value)

  @property
  def model_seed(self) -> int:
    return self._model_seed.value

  def refuse_client_init(self) -> None:
    """Refuses `--client_init` where the server averages weights.

    Raises:
      flags.IllegalFlagValueError: If it was set.
    """
    holders.refuse_vain(
      [self._client_init], 'all clients begin with the averaged model'
    )

  @property
  def client_init(self) -> str:
    return self._client_init.value
