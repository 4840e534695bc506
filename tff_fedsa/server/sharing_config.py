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
    share_mixing: Share of the averaged weights in those with which a client
      begins a round, in (0, 1]; the rest is its own. 1: averaged weights only
      (FedAvg, FedPer). It is FedALA (Zhang et al., AAAI 2023,
      arXiv:2212.01197) with one weight for all in place of learned ones.
  """

  share_weights: Annotated[str, settings.OneOf(('none', *tiers.PARTS))] = 'none'
  share_statistics: bool = True
  share_mixing: Annotated[float, settings.Above(0.0), settings.AtMost(1.0)] = (
    1.0
  )

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    if self.share_weights != 'none':
      return {}
    return dict.fromkeys(
      ('share_statistics', 'share_mixing'), '`share_weights`=none'
    )
