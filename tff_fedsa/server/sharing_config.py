"""Settings of what clients of one architecture share of their weights."""

from collections.abc import Mapping
import dataclasses
from typing import Annotated

from tff_fedsa import settings

PARTS = ('none', 'extractor', 'model')


@dataclasses.dataclass(frozen=True)
class SharingConfig(settings.Settings):
  """Tiers: clients of one architecture begin a round with a mean of weights.

  Attributes:
    share_weights: Weights that the server averages over the participants of
      each architecture (tier), by examples. none: weights stay with clients,
      unless the method or the `protocol` averages them; extractor: heads stay
      with clients; model: the whole model. Every method can have it.
    share_statistics: Whether weights that no gradient changes (BatchNorm's
      statistics) are shared as well.
  """

  share_weights: Annotated[str, settings.OneOf(PARTS)] = 'none'
  share_statistics: bool = True

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    if self.share_weights != 'none':
      return {}
    return {'share_statistics': '`share_weights`=none'}
