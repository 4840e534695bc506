"""Settings of the weights that clients of one architecture share."""

from collections.abc import Mapping
import dataclasses
from typing import Annotated

from tff_fedsa import settings
from tff_fedsa.models import tiers


@dataclasses.dataclass(frozen=True)
class SharingConfig(settings.Settings):
  """Tiers: clients of one architecture begin a round with averaged weights.

  Attributes:
    share_weights: Weights that the server averages over the participants of
      each architecture (tier), by examples, with any method. none: no weights,
      unless the method or the `protocol` averages them; extractor: all weights
      except heads; model: all weights.
    share_statistics: Whether clients also share weights without gradients
      (BatchNorm's statistics).
  """

  share_weights: Annotated[str, settings.OneOf(('none', *tiers.PARTS))] = 'none'
  share_statistics: bool = True

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    if self.share_weights != 'none':
      return {}
    return {'share_statistics': '`share_weights`=none'}
