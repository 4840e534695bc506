"""Settings of the storage of client states between rounds."""

from collections.abc import Mapping
import dataclasses
from typing import Annotated

from tff_fedsa import settings


@dataclasses.dataclass(frozen=True)
class StoreConfig(settings.Settings):
  """Storage of client states between rounds.

  Attributes:
    client_states: Storage of client states between rounds. memory; disk: in the
      run directory, so states may exceed memory; auto: memory if the states of
      all clients take at most `client_states_memory_gb`, else disk. Results are
      the same.
    client_states_memory_gb: Largest size of client states in memory with
      `client_states`=auto, in gigabytes (10^9 bytes), >= 0.
  """

  client_states: Annotated[
    str, settings.OneOf(('auto', 'memory', 'disk')), settings.Free()
  ] = 'auto'
  client_states_memory_gb: Annotated[
    float, settings.AtLeast(0.0), settings.Free()
  ] = 4.0

  def without_effect(self) -> Mapping[str, str]:
    """Returns the fields that the other fields make pointless."""
    if self.client_states == 'auto':
      return {}
    because = f'`client_states`={self.client_states}'
    return {'client_states_memory_gb': because}

  def keeps_on_disk(self, num_bytes: int) -> bool:
    """Returns whether client states are stored on disk between rounds.

    Args:
      num_bytes: Size of the states of all clients.
    """
    if self.client_states != 'auto':
      return self.client_states == 'disk'
    return num_bytes > 1e9 * self.client_states_memory_gb
