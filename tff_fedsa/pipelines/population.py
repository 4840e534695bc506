"""The clients of a pipeline by id, with examples and states."""

from collections.abc import Callable, Sequence
import io
import re
from typing import Any, Optional
import zipfile

from tff_fedsa import tff_compat
from tff_fedsa.client import client_state
from tff_fedsa.client import client_store
from tff_fedsa.data import tasks
from tff_fedsa.runs import errors

_MEMBER = re.compile(r'client_(\d+)\.npz')


class ClientStates(tff_compat.Serializable):
  """The client states of a server state.

  Until the next round, this is a reference to the store and costs nothing.
  `tff.program.FileProgramStateManager` saves it as bytes, with the states of
  all clients that have trained.

  Attributes:
    store: Store of the states, or None after the next round.
  """

  def __init__(
    self,
    store: Optional[client_store.ClientStateStore] = None,
    archive: Optional[bytes] = None,
  ):
    self.store = store
    self._archive = archive

  def to_bytes(self) -> bytes:
    """Returns the states as an archive.

    Raises:
      RuntimeError: If the store already holds states of a later round.
    """
    if self._archive is not None:
      return self._archive
    if self.store is None:
      raise RuntimeError(_GONE)
    return _pack(self.store)

  @classmethod
  def from_bytes(cls, buffer: bytes) -> 'ClientStates':
    return cls(archive=bytes(buffer))

  def frozen(self) -> 'ClientStates':
    """Returns the states as bytes, independent of later rounds."""
    return ClientStates(archive=self.to_bytes())


_GONE = (
  'These client states are of an earlier round: the store holds the latest '
  'only. Save a state before the next round starts, or keep '
  '`client_states.frozen()`.'
)


class Population:
  """Clients by id. Ids are strings, as in TFF's pipelines.

  Attributes:
    client_ids: Ids in the order of the store: client `client_ids[i]` has the
      state `store.get(i)`.
    store: The states of the latest round.
    train_fn: `fn(client_id) -> examples`, the stacked training examples of a
      client.
    test_fn: The same for evaluation.
  """

  def __init__(
    self,
    client_ids: Sequence[str],
    store: client_store.ClientStateStore,
    *,
    train_fn: Callable[[str], Any] = lambda client_id: client_id,
    test_fn: Callable[[str], Any] = lambda client_id: client_id,
  ):
    """Initializes `Population`.

    Args:
      client_ids: Strings, each once.
      store: Store of the clients' states.
      train_fn: Returns a client's examples. Default: the id itself, for
        processes in which clients build their data sets
        (`dataset_computations`).
      test_fn: See `train_fn`.

    Raises:
      ValueError: If there is no client, or an id occurs twice.
    """
    self._indices = {client_id: i for i, client_id in enumerate(client_ids)}
    if not client_ids or len(self._indices) != len(client_ids):
      raise errors.UserError(
        f'Expected client ids, each once, found {len(client_ids)} of which '
        f'{len(self._indices)} differ.'
      )
    self.client_ids = list(client_ids)
    self.store = store
    self.train_fn = train_fn
    self.test_fn = test_fn
    self._states_type = _type_for(self)
    self._current = self._states_type(store)

  def states(self, client_ids: Sequence[str]) -> list[client_state.ClientState]:
    """Returns the states of these clients.

    Raises:
      ValueError: If an id is unknown or occurs twice.
    """
    unknown = [i for i in client_ids if i not in self._indices]
    if unknown:
      raise errors.UserError(
        f'Unknown client ids {unknown[:5]}; ids are strings such as '
        f'{self.client_ids[0]!r}.'
      )
    if len(set(client_ids)) < len(client_ids):
      raise errors.UserError(
        f'A client takes part once in a round, found {list(client_ids)}. '
        'Sample without replacement.'
      )
    return [self.store.get(self._indices[i]) for i in client_ids]

  def put(
    self,
    client_ids: Sequence[str],
    states: Sequence[client_state.ClientState],
  ) -> None:
    """Replaces the states of these clients. `client_states` then changes."""
    self._renew(self._states_type())
    for client_id, state in zip(client_ids, states, strict=True):
      self.store.put(self._indices[client_id], state)

  def client_states(self) -> ClientStates:
    """Returns the current states."""
    return self._current

  def restore(self, client_states: ClientStates) -> None:
    """Goes back to saved states. Does nothing if they are current.

    Raises:
      RuntimeError: If the states belong to an earlier round and were not saved.
    """
    if client_states is not self._current:
      archive = client_states.to_bytes()
      self._renew(client_states)
      _unpack(archive, self.store)

  def reset(self) -> None:
    """Forgets all states. Every client then has its initial state."""
    self._renew(self._states_type())
    self.store.clear()

  def _renew(self, client_states: ClientStates) -> None:
    self._current.store = None
    self._current = client_states
    client_states.store = self.store


def _type_for(population: Population) -> type[ClientStates]:
  """Returns the type of the client states of a population.

  TFF loads a program state by the type of `initialize`'s result. This type puts
  loaded states into the population's store at once, so the store is never
  empty.
  """

  class PopulationStates(ClientStates):
    @classmethod
    def from_bytes(cls, buffer: bytes) -> ClientStates:
      states = cls(archive=bytes(buffer))
      population.restore(states)
      return states

  return PopulationStates


def from_task(
  task: tasks.FederatedTask, store: client_store.ClientStateStore
) -> Population:
  """Returns the clients of a task. Their ids are '0', '1', ….

  Args:
    task: Its clients' arrays.
    store: Store of the clients' states.
  """
  return Population(
    [str(i) for i in range(task.num_clients)],
    store,
    train_fn=lambda client_id: task.clients[int(client_id)].train,
    test_fn=lambda client_id: task.clients[int(client_id)].test,
  )


def _pack(store: client_store.ClientStateStore) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for client_id in store.client_ids():
      archive.writestr(
        f'client_{client_id:06d}.npz', client_store.encode(store.get(client_id))
      )
  return buffer.getvalue()


def _unpack(content: bytes, store: client_store.ClientStateStore) -> None:
  store.clear()
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    for name in archive.namelist():
      member = _MEMBER.fullmatch(name)
      assert member is not None, name
      store.put(int(member[1]), client_store.decode(archive.read(name)))
