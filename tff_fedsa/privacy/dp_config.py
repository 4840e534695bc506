"""Settings of differential privacy, and the account that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Optional

from etils import epy

from tff_fedsa import settings
from tff_fedsa.field import field_config
from tff_fedsa.privacy import accounting

with epy.lazy_imports():
  from tff_fedsa.privacy import private_process

KINDS = ('none', 'central', 'distributed', 'local')


@dataclasses.dataclass(frozen=True)
class DpConfig(settings.Settings):
  """Differential privacy of clients (methods that average by class).

  Attributes:
    dp: Differential privacy of what the server publishes, for whole clients.
      central: the server adds noise to the sum of a round, and clients trust
      it; distributed: each client adds a share of that noise, and the server
      learns the secure sum only (needs --secure); local: each client adds all
      the noise that it needs to what it sends. The metrics of training (losses,
      counts) are withheld. See docs/privacy.md.
    dp_epsilon: Epsilon that all rounds may spend together, > 0. It decides the
      noise for --total_rounds, unless `dp_noise_multiplier` is given: then it
      is a limit, and a run that would exceed it does not begin.
    dp_delta: Delta of (epsilon, delta), in (0, 1). It should be well below 1 /
      number of clients.
    dp_noise_multiplier: Standard deviation of the noise as a multiple of
      `dp_clip_norm`, >= 0. The column dp_epsilon tells what it costs. 0 clips
      without noise, and epsilon is infinite.
    dp_clip_norm: L2 norm to which a client's record of a round is clipped, > 0:
      its prototypes relative to the anchors (FedSA) or to the last global
      prototypes, and the classes that it has. Default: sqrt(classes x
      features) / 2.
    dp_clip_quantile: Share of the records that are not clipped, in (0, 1)
      (central). The clipping norm then begins with `dp_clip_norm` and adapts
      from round to round. Default: it is fixed.
    dp_cohort: Clients per round of a larger deployment that the run simulates,
      >= 1 (central, distributed). The noise on the mean is that of such a
      cohort, and epsilon is that of the deployment, not of the simulated
      clients. Default: --clients_per_round.
    dp_population: Clients of that deployment, >= `dp_cohort`. Default: the
      clients of the run.
    dp_bits: Bits of a coordinate of the sum (distributed), in [10, 26].
    dp_seed: Seed of the noise, >= 0.
  """

  dp: Annotated[str, settings.OneOf(KINDS)] = 'none'
  dp_epsilon: Annotated[Optional[float], settings.Above(0.0)] = None
  dp_delta: Annotated[float, settings.Above(0.0), settings.Below(1.0)] = 1e-5
  dp_noise_multiplier: Annotated[Optional[float], settings.AtLeast(0.0)] = None
  dp_clip_norm: Annotated[Optional[float], settings.Above(0.0)] = None
  dp_clip_quantile: Annotated[
    Optional[float], settings.Above(0.0), settings.Below(1.0)
  ] = None
  dp_cohort: Annotated[Optional[int], settings.AtLeast(1)] = None
  dp_population: Annotated[Optional[int], settings.AtLeast(1)] = None
  dp_bits: Annotated[int, settings.AtLeast(10), settings.AtMost(26)] = 24
  dp_seed: Annotated[int, settings.AtLeast(0)] = 0

  def __post_init__(self):
    super().__post_init__()
    if not self.is_used:
      return
    if self.dp_epsilon is None and self.dp_noise_multiplier is None:
      raise settings.SettingsError(
        f'`dp`={self.dp} needs `dp_epsilon`, from which the noise follows, or '
        '`dp_noise_multiplier`, from which epsilon follows.'
      )
    if (self.dp_cohort is None) != (self.dp_population is None):
      raise settings.SettingsError(
        'A simulated deployment needs both `dp_cohort` and `dp_population`.'
      )
    if self.dp_cohort is not None:
      if self.dp == 'local':
        raise settings.SettingsError(
          '`dp_cohort` needs `dp`=central or distributed: with local noise '
          'each client has its own, whatever the cohort.'
        )
      if self.dp_cohort > (self.dp_population or 0):
        raise settings.SettingsError(
          f'Expected `dp_cohort` <= `dp_population`={self.dp_population}, '
          f'found {self.dp_cohort}.'
        )

  @property
  def is_used(self) -> bool:
    """True if there is any differential privacy."""
    return self.dp != 'none'

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    if self.is_used:
      of_kinds = {'dp_bits': 'distributed', 'dp_clip_quantile': 'central'}
      return {
        name: f'`dp`={self.dp}'
        for name, kind in of_kinds.items()
        if kind != self.dp
      }
    names = [s.name for s in settings.fields_of(type(self)) if s.name != 'dp']
    return dict.fromkeys(names, '`dp`=none')

  def account(
    self,
    *,
    num_clients: int,
    participants: int,
    total_rounds: int,
    field: field_config.FieldConfig,
  ) -> Optional[accounting.Account]:
    """Returns the account of a run, None without differential privacy.

    The chance not to be drawn counts only if the server draws uniformly from
    all clients and does not see who sent what: not with `local`, and not with
    the field's `availability`. Dropout does not matter to `central`: the noise
    is that of all drawn clients.

    Args:
      num_clients: Clients of the run.
      participants: Clients drawn for a round.
      total_rounds: Planned rounds.
      field: Which clients take part.

    Raises:
      SettingsError: If the rounds would exceed `dp_epsilon`.
      UserError: If no noise is enough.
    """
    if not self.is_used:
      return None
    population = self.dp_population or num_clients
    cohort = self.dp_cohort or participants
    if self.dp == 'local' or field.availability is not None:
      cohort = population
    sampling = accounting.Sampling(population, cohort)
    noise_multiplier = self.dp_noise_multiplier
    if noise_multiplier is None:
      assert self.dp_epsilon is not None  # See `__post_init__`.
      noise_multiplier = accounting.calibrate(
        float(self.dp_epsilon), self.dp_delta, total_rounds, sampling
      )
    account = accounting.Account(
      float(noise_multiplier), self.dp_delta, sampling
    )
    spent = account.epsilon(total_rounds)
    if self.dp_epsilon is not None and spent > self.dp_epsilon:
      most = account.rounds_within(self.dp_epsilon, total_rounds)
      raise settings.SettingsError(
        f'{total_rounds} rounds would spend epsilon={spent:.4g}, more than '
        f'`dp_epsilon`={self.dp_epsilon:g}: it pays for {most} rounds. Give '
        'fewer --total_rounds, a larger `dp_noise_multiplier`, or neither, and '
        'the noise follows from `dp_epsilon`.'
      )
    return account

  def mechanism(
    self,
    account: accounting.Account,
    participants: int,
    *,
    secure: bool = False,
  ) -> private_process.Mechanism:
    """Returns the mechanism of a round.

    Args:
      account: Result of `account`.
      participants: Clients drawn for a round.
      secure: Whether records are summed by secure sums.
    """
    scale = participants / (self.dp_cohort or participants)
    return private_process.Mechanism(
      kind=self.dp,
      clip_norm=self.dp_clip_norm,
      noise_multiplier=account.noise_multiplier * scale,
      participants=participants,
      seed=self.dp_seed,
      secure=secure,
      bits=self.dp_bits,
      clip_quantile=self.dp_clip_quantile,
    )
