"""Settings of the field: availability, dropout and speed of clients."""

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Optional

from tff_fedsa import settings

AVAILABILITIES = ('random', 'diurnal')
DEVICE_SPEEDS = ('constant', 'lognormal')


@dataclasses.dataclass(frozen=True)
class FieldConfig(settings.Settings):
  """Availability, dropout and speed of clients; by default all return.

  Attributes:
    availability: Which clients are available. random: each client in each round
      with probability `availability_mean`; diurnal: as random, but each
      client's probability rises and falls as a sine over `rounds_per_day`; or a
      CSV file with the columns client,from,to: the client (0, 1, …) is
      available in these rounds (both included; an empty cell has no end). See
      docs/field.md. Default: all clients are always available.
    availability_mean: Probability that a client is available, mean over a day,
      in (0, 1].
    rounds_per_day: Rounds after which the diurnal pattern repeats, >= 2.
    time_zones: Share of a day over which clients' days are shifted against each
      other, in [0, 1]. Each client's shift is drawn uniformly. 0: one time
      zone; 1: all around the world.
    dropout: Probability that a drawn client drops out of the round, in [0, 1).
      The client keeps its state from before the round, and its update is lost.
    device_speed: Speed of clients' training, in simulated time. constant: all
      the same; lognormal: drawn for each client; or a CSV file with the columns
      client,examples_per_second. Default: constant, and no simulated time is
      reported unless another setting of the field is used.
    device_speed_median: Training examples per simulated second of the median
      client, > 0.
    device_speed_spread: Standard deviation of the logarithm of clients' speeds
      (lognormal), >= 0. 1: a sixth of the clients are slower than 37 % of the
      median.
    device_speed_jitter: Standard deviation of the logarithm of a client's speed
      from round to round, >= 0.
    round_deadline: Simulated seconds that the server waits in a round, > 0. A
      slower client is late, and its update is lost. Default: the server waits
      for all.
    partial_work: Whether a slow client trains on as many of its examples as it
      can by the deadline and returns (FedProx: a variable amount of local
      work). Each round draws these examples anew.
    over_selection: Drawn clients as a factor of --clients_per_round, rounded
      up, >= 1. The first --clients_per_round that return count.
    field_seed: Seed of availability, dropout, device speeds and the examples of
      partial work, >= 0.
  """

  availability: Optional[str] = None
  availability_mean: Annotated[
    float, settings.Above(0.0), settings.AtMost(1.0)
  ] = 0.5
  rounds_per_day: Annotated[int, settings.AtLeast(2)] = 24
  time_zones: Annotated[float, settings.AtLeast(0.0), settings.AtMost(1.0)] = (
    0.5
  )
  dropout: Annotated[float, settings.AtLeast(0.0), settings.Below(1.0)] = 0.0
  device_speed: Optional[str] = None
  device_speed_median: Annotated[float, settings.Above(0.0)] = 100.0
  device_speed_spread: Annotated[float, settings.AtLeast(0.0)] = 1.0
  device_speed_jitter: Annotated[float, settings.AtLeast(0.0)] = 0.0
  round_deadline: Annotated[Optional[float], settings.Above(0.0)] = None
  partial_work: bool = False
  over_selection: Annotated[float, settings.AtLeast(1.0)] = 1.0
  field_seed: Annotated[int, settings.AtLeast(0)] = 0

  @property
  def is_used(self) -> bool:
    """True if any setting differs from its default."""
    return self != FieldConfig()

  @property
  def files(self) -> Mapping[str, str]:
    """Settings that name a file: setting -> path."""
    given = {
      'availability': (self.availability, AVAILABILITIES),
      'device_speed': (self.device_speed, DEVICE_SPEEDS),
    }
    return {
      name: value
      for name, (value, names) in given.items()
      if value is not None and value not in names
    }

  def without_effect(self) -> Mapping[str, str]:
    found: dict[str, str] = {}
    if self.availability not in AVAILABILITIES:
      because = '`availability` is neither random nor diurnal'
      found['availability_mean'] = because
    if self.availability != 'diurnal':
      because = '`availability` is not diurnal'
      found |= dict.fromkeys(('rounds_per_day', 'time_zones'), because)
    if self.device_speed not in (None, *DEVICE_SPEEDS):
      found['device_speed_median'] = '`device_speed` is a file'
    if self.device_speed != 'lognormal':
      found['device_speed_spread'] = '`device_speed` is not lognormal'
    if self.round_deadline is None:
      found['partial_work'] = 'there is no `round_deadline`'
    is_random = (
      self.availability in AVAILABILITIES
      or self.device_speed == 'lognormal'
      or self.dropout
      or self.device_speed_jitter
      or self.partial_work
    )
    if not is_random:
      found['field_seed'] = 'nothing is drawn at random'
    return found
