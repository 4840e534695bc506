"""Settings of simulated attacks."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Optional

import numpy as np

from tff_fedsa import settings

# Attack -> its scale where none is given.
SCALES = {
  'sign_flip': 10.0,
  'scale': 10.0,
  'gaussian': 10.0,
  'same_value': 100.0,
  'label_flip': 1.0,
  'alie': 1.0,
  'ipm': 10.0,
  'mimic': 1.0,
  'targeted': 5.0,
}
_WITHOUT_SCALE = ('label_flip', 'mimic')


@dataclasses.dataclass(frozen=True)
class AttackConfig(settings.Settings):
  """Attack: clients that lie, in simulation. Metrics are of the others.

  Attributes:
    attack: What attackers send in place of their vectors v. sign_flip: -s v;
      scale: s v; gaussian: noise s times as large as v; same_value: s in each
      coordinate; alie: the mean of honest clients, moved by s z standard
      deviations; ipm: -s times the mean of honest clients; mimic: what the
      first honest client sends; targeted: prototypes of one class, moved to
      those of another. label_flip: they train on wrong labels. s is
      `attack_scale`. See docs/protection.md. Default: nobody lies.
    attack_fraction: Share of all clients that attack, rounded down, in [0, 1).
    attack_scale: s, >= 0. Default: 10 (sign_flip, scale, gaussian, ipm), 100
      (same_value), 5 (targeted) or 1.
    attack_seed: Seed of the choice of attackers and of their noise, >= 0.
    attack_source: Class whose prototypes are moved (targeted), >= 0.
    attack_target: Class to whose prototypes they are moved (targeted), >= 0.
  """

  attack: Annotated[Optional[str], settings.OneOf(tuple(SCALES))] = None
  attack_fraction: Annotated[
    float, settings.AtLeast(0.0), settings.Below(1.0)
  ] = 0.2
  attack_scale: Annotated[Optional[float], settings.AtLeast(0.0)] = None
  attack_seed: Annotated[int, settings.AtLeast(0)] = 0
  attack_source: Annotated[int, settings.AtLeast(0)] = 0
  attack_target: Annotated[int, settings.AtLeast(0)] = 1

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    if self.attack is None:
      return dict.fromkeys(
        (
          'attack_fraction',
          'attack_scale',
          'attack_seed',
          'attack_source',
          'attack_target',
        ),
        'there is no `attack`',
      )
    because = f'`attack`={self.attack}'
    found = {}
    if self.attack in _WITHOUT_SCALE:
      found['attack_scale'] = because
    if self.attack != 'targeted':
      found |= dict.fromkeys(('attack_source', 'attack_target'), because)
    return found

  @property
  def scale(self) -> float:
    """The attack's scale, its default where none is given."""
    assert self.attack is not None
    if self.attack_scale is None:
      return SCALES[self.attack]
    return self.attack_scale

  def attackers(self, num_clients: int) -> tuple[int, ...]:
    """Returns the ids of the clients that attack, in order.

    Args:
      num_clients: Clients of the task.
    """
    if self.attack is None:
      return ()
    order = np.random.default_rng(self.attack_seed).permutation(num_clients)
    count = int(self.attack_fraction * num_clients + 1e-9)
    return tuple(sorted(order[:count].tolist()))

  def check(self, num_clients: int, num_classes: int) -> None:
    """Checks whether there are attackers, and the classes they attack.

    Args:
      num_clients: Clients of the task.
      num_classes: C.

    Raises:
      SettingsError: If nobody would attack, or there are no such two classes.
    """
    if self.attack is None:
      return
    if not self.attackers(num_clients):
      raise settings.SettingsError(
        f'`attack_fraction`={self.attack_fraction} of {num_clients} clients is '
        'less than one attacker. Take a larger one.'
      )
    if self.attack != 'targeted':
      return
    named = (self.attack_source, self.attack_target)
    if max(named) >= num_classes or named[0] == named[1]:
      raise settings.SettingsError(
        'Expected `attack_source` and `attack_target` to be two of the classes '
        f'0 to {num_classes - 1}, found {named[0]} and {named[1]}.'
      )
