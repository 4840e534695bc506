"""Settings of the server's aggregator, and the factory that they describe."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Annotated, Any, Optional

from etils import epy

from tff_fedsa import settings

with epy.lazy_imports():
  import tensorflow_federated as tff

  from tff_fedsa.aggregation import robust_means
  from tff_fedsa.maths import robust

AGGREGATORS = (
  'mean',
  'median',
  'trimmed_mean',
  'geometric_median',
  'krum',
  'multi_krum',
  'norm_clipped',
  'anchor_screened',
)
_BY_FRACTION = ('trimmed_mean', 'krum', 'multi_krum')


@dataclasses.dataclass(frozen=True)
class AggregatorConfig(settings.Settings):
  """Aggregator: how the server joins what clients send.

  Attributes:
    aggregator: Aggregator of prototypes (class by class), mean logits and
      averaged weights. mean: the method's own; median: of each coordinate;
      trimmed_mean: of each coordinate, without its extremes; geometric_median;
      krum: the contribution nearest to the others; multi_krum: mean of the
      contributions nearest to the others; norm_clipped: mean of contributions
      whose norms are clipped; anchor_screened: mean of the prototypes that lie
      near the anchor of their class (FedSA). See docs/protection.md.
    aggregator_fraction: Share of the clients with a class that may be hostile,
      in [0, 0.5): cut on each side by trimmed_mean, suspected by krum and
      multi_krum.
    aggregator_clip: Largest norm of a contribution as a multiple of the median
      norm (norm_clipped), > 0.
    aggregator_radius: Largest distance of a prototype from the anchor of its
      class as a multiple of the gap between anchors (anchor_screened), > 0.
  """

  aggregator: Annotated[str, settings.OneOf(AGGREGATORS)] = 'mean'
  aggregator_fraction: Annotated[
    float, settings.AtLeast(0.0), settings.Below(0.5)
  ] = 0.2
  aggregator_clip: Annotated[float, settings.Above(0.0)] = 1.0
  aggregator_radius: Annotated[float, settings.Above(0.0)] = 1.0

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    because = f'`aggregator`={self.aggregator}'
    found = {}
    if self.aggregator not in _BY_FRACTION:
      found['aggregator_fraction'] = because
    if self.aggregator != 'norm_clipped':
      found['aggregator_clip'] = because
    if self.aggregator != 'anchor_screened':
      found['aggregator_radius'] = because
    return found

  def build(
    self,
  ) -> Optional[tff.aggregators.UnweightedAggregationFactory]:
    """Returns the factory, or None for the method's own mean.

    It takes `ClassPrototypes` or a `WeightedValue`; of anchor_screened,
    `ClassPrototypes` only.
    """
    if self.aggregator == 'mean':
      return None
    if self.aggregator == 'norm_clipped':
      return robust_means.NormClippedFactory(self.aggregator_clip)
    if self.aggregator == 'anchor_screened':
      return robust_means.AnchorScreenedFactory(self.aggregator_radius)
    combine_fn: Any = getattr(robust, self.aggregator)
    if self.aggregator in _BY_FRACTION:
      combine_fn = functools.partial(
        combine_fn, fraction=self.aggregator_fraction
      )
    return robust_means.RobustMeanFactory(combine_fn)
