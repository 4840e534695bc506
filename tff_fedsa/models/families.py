"""Named mixes of architectures: client i gets member i mod n."""

from collections.abc import Sequence

from tff_fedsa.models import architectures
from tff_fedsa.models import digits as _digits
from tff_fedsa.models import fedavg_cnn as _fedavg_cnn
from tff_fedsa.models import functional
from tff_fedsa.models import resnet as _resnet

# Importing a module registers its architectures.
del _digits, _fedavg_cnn, _resnet

_FAMILIES: dict[str, tuple[str, ...]] = {
  'digits3': ('digits_mlp', 'digits_cnn', 'digits_cnn_bn'),
  'reference_mlp2': ('mlp_64_64_128', 'mlp_64_128_64'),
  'cnn_resnet8': ('fedavg_cnn', 'resnet8'),
  'cnn_resnet10': ('fedavg_cnn', 'resnet10'),
}


def names() -> list[str]:
  """Returns the names of all families."""
  return sorted(_FAMILIES)


def members(family: str | Sequence[str]) -> tuple[str, ...]:
  """Returns the architectures of a family.

  Args:
    family: One of `names()`, a registered architecture, several of them
      separated by commas, or a sequence of architectures.

  Raises:
    ValueError: If a name is unknown; the known ones are listed.
  """
  if isinstance(family, str):
    if family in _FAMILIES:
      return _FAMILIES[family]
    family = [name.strip() for name in family.split(',')]
  unknown = [name for name in family if name not in architectures.names()]
  if unknown or not family:
    raise ValueError(
      f'Unknown family or architecture {", ".join(unknown)!r}; known families: '
      f'{", ".join(names())}; known architectures (one, or several separated '
      f'by commas): {", ".join(architectures.names())}.'
    )
  return tuple(family)


def build_family(
  family: str | Sequence[str],
  input_shape: tuple[int, int, int],
  num_classes: int,
  feature_dim: int,
) -> list[functional.FunctionalModel]:
  """Returns the functional models of a family, one per architecture.

  Args:
    family: See `members`.
    input_shape: (height, width, channels), `InputSpec.model_shape`.
    num_classes: C.
    feature_dim: D, the same for all members.

  Raises:
    ValueError: If a name is unknown or an architecture does not fit.
  """
  return [
    architectures.build(name, input_shape, num_classes, feature_dim)
    for name in members(family)
  ]
