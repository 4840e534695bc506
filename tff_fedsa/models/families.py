"""Named mixes of architectures: clients get the members in turn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import math
import re
from typing import Any, Optional

from etils import epy
import numpy as np

from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import architectures
from tff_fedsa.models import digits as _digits
from tff_fedsa.models import fedavg_cnn as _fedavg_cnn
from tff_fedsa.models import googlenet as _googlenet
from tff_fedsa.models import harcnn as _harcnn
from tff_fedsa.models import hcnn as _hcnn
from tff_fedsa.models import heads
from tff_fedsa.models import htfe_text
from tff_fedsa.models import keras_applications as _keras_applications
from tff_fedsa.models import mixed
from tff_fedsa.models import mobilenet_v2 as _mobilenet_v2
from tff_fedsa.models import resnet as _resnet
from tff_fedsa.models import sensor as _sensor
from tff_fedsa.models import tabular as _tabular
from tff_fedsa.models import text as _text
from tff_fedsa.models import vit as _vit
from tff_fedsa.runs import errors

with epy.lazy_imports():
  from tff_fedsa.models import functional
  from tff_fedsa.models import pretrained

# Importing these modules registers their architectures.
del _digits, _fedavg_cnn, _googlenet, _harcnn, _hcnn
del _keras_applications, _mobilenet_v2, _resnet, _sensor, _tabular, _text, _vit

_SMALL_RESNETS = ('resnet4', 'resnet6', 'resnet8', 'resnet10')
_LARGE_RESNETS = ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152')
_HTFE8 = ('fedavg_cnn', 'googlenet', 'mobilenet_v2', *_LARGE_RESNETS)
_HTC4 = ('linear', 'mlp512', 'mlp256', 'mlp128')


def _with_heads(
  members: Sequence[str], head_names: Sequence[str]
) -> tuple[str, ...]:
  """Returns a family: client i has member i mod m and head i mod h."""
  count = math.lcm(len(members), len(head_names))
  return tuple(
    f'{members[i % len(members)]}+{head_names[i % len(head_names)]}'
    for i in range(count)
  )


def _transformers(*heads_and_layers: tuple[int, int]) -> tuple[str, ...]:
  return tuple(htfe_text.transformer_name(h, n) for h, n in heads_and_layers)


_HTFE_TXT_4 = ('txt_fasttext', 'txt_logistic', 'txt_lstm', 'txt_bilstm')
_HTFE_SEN_3 = ('harcnn2', 'harcnn2_stride2', 'harcnn2_stride3')
_DEPTHS = (1, 2, 4, 8, 16)

# The names of the reference (HtFLlib, lokinko/FedSA), and some own names.
_FAMILIES: dict[str, tuple[str, ...]] = {
  'digits3': mixed.ENCODERS['image'],
  'tabular': mixed.ENCODERS['table'],
  'sensor': mixed.ENCODERS['series'],
  'text': mixed.ENCODERS['tokens'],
  'mixed': mixed.NAMES,
  'reference_mlp2': ('mlp_64_64_128', 'mlp_64_128_64'),
  'cnn_resnet8': ('fedavg_cnn', 'resnet8'),
  'cnn_resnet10': ('fedavg_cnn', 'resnet10'),
  'HtFE2': ('fedavg_cnn', 'resnet18'),
  'HtFE3': ('resnet10', 'resnet18', 'resnet34'),
  'HtFE4': ('fedavg_cnn', 'googlenet', 'mobilenet_v2', 'resnet18'),
  'HtFE5': ('fedavg_cnn', 'resnet10', 'resnet18', 'resnet34', 'resnet50'),
  # HtFLlib's HtFE5.
  'HtFE-img-5': (
    'googlenet',
    'mobilenet_v2',
    'resnet18',
    'resnet34',
    'resnet50',
  ),
  'HtFE-txt-2': _HTFE_TXT_4[:2],
  'HtFE-txt-4': _HTFE_TXT_4,
  'HtFE-txt-5-1': _transformers(*((8, n) for n in _DEPTHS)),
  'HtFE-txt-5-2': _transformers(*((n, 4) for n in _DEPTHS)),
  'HtFE-txt-5-3': _transformers(*((n, n) for n in _DEPTHS)),
  'HtFE-txt-6': (
    'txt_fasttext',
    'txt_lstm',
    'txt_bilstm',
    *_transformers((8, 2)),
    'txt_logistic',
    'txt_gru',
  ),
  'HtFE-sen-2': _HTFE_SEN_3[:2],
  'HtFE-sen-3': _HTFE_SEN_3,
  'HtFE-sen-5': (*_HTFE_SEN_3, 'harcnn1', 'harcnn3'),
  'HtFE-sen-8': (
    *_HTFE_SEN_3,
    'harcnn1',
    'harcnn1_stride2',
    'harcnn1_stride3',
    'harcnn3',
    'harcnn3_stride2',
  ),
  'HtFE8': _HTFE8,
  'HtFE9': _SMALL_RESNETS + _LARGE_RESNETS,
  'HtM10': (*_HTFE8, 'vit_b_16', 'vit_b_32'),
  'HtFE8-HtC4': _with_heads(_HTFE8, _HTC4),
  'Res34-HtC4': _with_heads(['resnet34'], _HTC4),
  # The reference's mistake, a ReLU on the logits.
  'HtFE8-HtC4-relu': _with_heads(_HTFE8, [f'{head}_relu' for head in _HTC4]),
  'Res34-HtC4-relu': _with_heads(
    ['resnet34'], [f'{head}_relu' for head in _HTC4]
  ),
  'HCNNs8': (
    'hcnn1',
    'hcnn2',
    'hcnn1_512',
    'hcnn2_512',
    'hcnn1_1024',
    'hcnn2_1024',
    'hcnn1_1024_512',
    'hcnn2_1024_512',
  ),
}


# The default, and what stands for it where inputs are of another kind.
DEFAULT = 'digits3'
_OF_KIND = {
  'table': 'tabular',
  'series': 'sensor',
  'tokens': 'text',
  'parts': 'mixed',
}


def for_kind(family: str, input_spec: input_spec_lib.InputSpec) -> str:
  """Returns a family, the default one by the kind of the inputs.

  Args:
    family: Any; `DEFAULT` stands for `tabular`, `sensor`, `text` or `mixed`
      where the inputs are no images.
    input_spec: How models see the inputs.

  Raises:
    ValueError: If it is the default, and there is none for such inputs.
  """
  if family.lower() != DEFAULT or input_spec.kind == 'image':
    return family
  if input_spec.kind not in _OF_KIND:
    raise errors.UserError(
      f'There is no family for inputs of shape {input_spec.shape} '
      f'({input_spec.dtype}): give own models, or an architecture of your own '
      '(docs/extending.md). If they are pixels in [0, 255], use '
      'x.astype(np.uint8).'
    )
  return _OF_KIND[input_spec.kind]


def names() -> list[str]:
  """Returns the names of all families, as their sources write them."""
  return sorted(_FAMILIES)


def members(family: str | Sequence[str]) -> tuple[str, ...]:
  """Returns the architectures of a family, without their counts.

  Args:
    family: One of `names()` (in upper or lower case), an architecture that
      `architectures.build` knows, several of them separated by commas, or a
      sequence of architectures. ARCHITECTURE*COUNT stands for as many clients
      in turn.

  Raises:
    ValueError: If a name is unknown. The message lists the known names.
  """
  return tuple(name for name, _ in _counted(family))


def turns(family: str | Sequence[str]) -> tuple[int, ...]:
  """Returns the positions in `members(family)` of clients 0, 1, …, in turn.

  Client i gets member `turns[i % len(turns)]`: `fedavg_cnn*3,resnet8` has the
  turns (0, 0, 0, 1).

  Args:
    family: See `members`.

  Raises:
    ValueError: See `members`.
  """
  counts = [count for _, count in _counted(family)]
  return tuple(i for i, count in enumerate(counts) for _ in range(count))


def _counted(family: str | Sequence[str]) -> list[tuple[str, int]]:
  """Returns the architectures of a family and their counts."""
  if isinstance(family, str):
    by_lower_case = {name.lower(): name for name in _FAMILIES}
    if family.lower() in by_lower_case:
      family = _FAMILIES[by_lower_case[family.lower()]]
    else:
      family = [name.strip() for name in family.split(',')]
  counted = []
  for member in family:
    name, star, count = member.partition('*')
    if star and not re.fullmatch(r' *[1-9][0-9]{0,5}', count):
      raise errors.UserError(
        'Expected ARCHITECTURE*COUNT, with a count of clients in [1, 999999], '
        f'found {member!r}.'
      )
    counted.append((name.strip(), int(count) if star else 1))
  unknown = [name for name, _ in counted if not architectures.is_known(name)]
  if unknown or not counted:
    raise errors.UserError(
      f'Unknown family or architecture {", ".join(unknown)!r}; known families: '
      f'{", ".join(names())}; known architectures (one, or several separated '
      f'by commas): {", ".join(architectures.names())}; each also with another '
      f'head, as in resnet34+mlp256: {", ".join(heads.names())}.'
    )
  return counted


def build_family(
  family: str | Sequence[str],
  input_shape: Any,
  num_classes: int,
  feature_dim: int,
  *,
  vocabulary_size: Optional[int | Mapping[str, int]] = None,
  embeddings: Optional[np.ndarray] = None,
  masked: bool | Collection[str] = (),
  pretrained_weights: Optional[Mapping[str, str]] = None,
  standardized: bool = False,
) -> list[functional.FunctionalModel]:
  """Returns the functional models of a family, one per architecture.

  Args:
    family: See `members`.
    input_shape: Shape of one input, `InputSpec.model_shape`.
    num_classes: C.
    feature_dim: D, the same for all members.
    vocabulary_size: See `architectures.build`.
    embeddings: See `architectures.build`.
    masked: See `architectures.build`.
    pretrained_weights: Architecture -> file with initial weights of its feature
      extractor, see `pretrained.load`.
    standardized: See `architectures.build`.

  Raises:
    ValueError: If a name is unknown, or an architecture or a file does not fit.
  """
  files = dict(pretrained_weights or {})
  names_of_members = members(family)
  strangers = sorted(files.keys() - set(names_of_members))
  if strangers:
    raise errors.UserError(
      f'Pretrained weights are given for {strangers}, which are not among the '
      f'architectures {list(names_of_members)}.'
    )

  def load_fn(name):
    if name not in files:
      return None
    return lambda extractor: pretrained.load(extractor, files[name])

  return [
    architectures.build(
      name,
      input_shape,
      num_classes,
      feature_dim,
      vocabulary_size=vocabulary_size,
      embeddings=embeddings,
      masked=masked,
      load_fn=load_fn(name),
      standardized=standardized,
    )
    for name in names_of_members
  ]
