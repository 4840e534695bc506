"""Settings of the clients' models."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import importlib
from typing import Annotated, Optional

from etils import epy
import numpy as np
import psutil

from tff_fedsa import settings
from tff_fedsa.data import input_spec as input_spec_lib
from tff_fedsa.models import architectures
from tff_fedsa.models import families

with epy.lazy_imports():
  from tff_fedsa.models import functional

CLIENT_INITS = ('shared', 'independent')


_MAX_FEATURE_DIM = 1 << 20
# Largest constant in a TensorFlow graph.
_MAX_TABLE_BYTES = (1 << 31) - 1
# Tables in memory: anchors, prototypes, the head, its gradient and momentum,
# and a client's own prototypes.
_TABLES = 6


@dataclasses.dataclass(frozen=True)
class ModelConfig(settings.Settings):
  """The clients' models and their initial weights.

  Attributes:
    family: Architectures of the clients: a family, an architecture, or several
      architectures separated by commas. Client i gets member i mod n.
      fedavg_cnn*3,resnet8: of four clients in turn, three get the first.
      digits3 stands for tabular, sensor, text or mixed if the inputs are no
      images.
      resnet34+mlp256 is an architecture with another head (docs/models.md).
    pretrained_weights: ARCHITECTURE=FILE, …: initial weights of feature
      extractors. FILE is a torchvision state_dict as .npz, or, for keras_*, the
      *_notop.h5 of keras.applications (docs/models.md). Default: random
      weights.
    architecture_modules: Python modules to import first. They register
      architectures of your own (tff_fedsa/models/architectures.py shows how).
    feature_dim: Number D of features, the same for all clients and anchors, in
      [1, 1048576].
    standardize_features: Scale the features of each example to mean 0 and
      variance 1. The reference does not do this.
    model_seed: Seed of the clients' initial weights.
    client_init: Initial weights of clients of one architecture. shared: all
      start from the same weights (the reference); independent: each client has
      its own.
  """

  family: Annotated[
    str,
    settings.Lists('Families', families.names),
    settings.Lists('Architectures', architectures.names),
  ] = families.DEFAULT
  pretrained_weights: Annotated[
    Mapping[str, str], settings.Pairs('=', 'ARCHITECTURE=FILE')
  ] = dataclasses.field(default_factory=dict)
  architecture_modules: tuple[str, ...] = ()
  feature_dim: Annotated[
    int, settings.AtLeast(1), settings.AtMost(_MAX_FEATURE_DIM)
  ] = 512
  standardize_features: bool = False
  model_seed: int = 0
  client_init: Annotated[str, settings.OneOf(CLIENT_INITS)] = 'shared'

  def members(
    self, input_spec: Optional[input_spec_lib.InputSpec] = None
  ) -> tuple[str, ...]:
    """Imports `architecture_modules` and returns the family's architectures.

    Args:
      input_spec: How models see the inputs, if it is known.

    Raises:
      SettingsError: If a module does not exist.
      ValueError: If a name is unknown.
    """
    return families.members(self._family(input_spec))

  def turns(self, input_spec: input_spec_lib.InputSpec) -> tuple[int, ...]:
    """Returns the positions in `members` of clients in turn.

    Args:
      input_spec: How models see the inputs.

    Raises:
      SettingsError, ValueError: See `members`.
    """
    return families.turns(self._family(input_spec))

  def _family(self, input_spec: Optional[input_spec_lib.InputSpec]) -> str:
    for name in self.architecture_modules:
      try:
        importlib.import_module(name)
      except ModuleNotFoundError as error:
        raise settings.SettingsError(
          f'`architecture_modules`: there is no module {error.name!r} on the '
          'path (PYTHONPATH, or the folder you are in).'
        ) from error
    if input_spec is None:
      return self.family
    return families.for_kind(self.family, input_spec)

  def build(
    self,
    input_spec: input_spec_lib.InputSpec,
    num_classes: int,
    *,
    embeddings: Optional[np.ndarray] = None,
  ) -> list[functional.FunctionalModel]:
    """Returns one `FunctionalModel` per architecture of the family.

    Args:
      input_spec: How models see the inputs.
      num_classes: C.
      embeddings: See `architectures.build`.

    Raises:
      SettingsError: If a table [num_classes, feature_dim] is too large.
      ValueError: If a name is unknown, or an architecture does not fit.
    """
    table_bytes = 4 * num_classes * self.feature_dim
    available = psutil.virtual_memory().available
    if table_bytes > min(_MAX_TABLE_BYTES, available // _TABLES):
      raise settings.SettingsError(
        f'`feature_dim`={self.feature_dim} with {num_classes} classes makes '
        f'anchors and prototypes of {table_bytes / 1e9:.1f} GB each, and a '
        f'round needs {_TABLES} of them; {available / 1e9:.1f} GB of memory '
        'are free, and 2 GB are the limit of one. Take fewer features.'
      )
    return families.build_family(
      self.members(input_spec),
      input_spec.model_shape,
      num_classes,
      self.feature_dim,
      vocabulary_size=input_spec.vocabulary_size,
      embeddings=embeddings,
      masked=input_spec.masked,
      pretrained_weights=self.pretrained_weights,
      standardized=self.standardize_features,
    )
