"""Refuses connections to a port that a program opens on all addresses.

TFF's worker always listens on all addresses of its machine. But a connection
goes to the listener with the most specific address. So this module listens on
every address that must stay closed, and refuses connections there.
"""

from collections.abc import Collection
import ipaddress
import selectors
import socket
from typing import Any

import psutil


def machine_addresses() -> set[str]:
  """Returns the current IP addresses of this machine, without loopback."""
  found = {
    address.address
    for addresses in psutil.net_if_addrs().values()
    for address in addresses
    if address.family in (socket.AF_INET, socket.AF_INET6)
  }
  return {a for a in found if not ipaddress.ip_address(a).is_loopback}


def require_free(port: int) -> None:
  """Raises if a program listens on a port, which gRPC would share silently.

  Raises:
    OSError: If the port cannot be used.
  """
  everywhere: dict[str, Any] = {}
  if socket.has_dualstack_ipv6():
    everywhere = {'family': socket.AF_INET6, 'dualstack_ipv6': True}
  socket.create_server(('', port), **everywhere).close()


class PortGuard:
  """Refuses connections on all addresses except loopback and allowed ones."""

  def __init__(self, port: int, allowed: Collection[str] = ()):
    """Opens the port, before the program does.

    Raises:
      OSError: If the port is in use.
    """
    self._port = port
    self._allowed = set(allowed)
    self._listeners: dict[str, socket.socket] = {}
    self._selector = selectors.DefaultSelector()
    self._update()

  def turn_away(self, seconds: float) -> None:
    """Refuses connections for some time. Call it repeatedly.

    A new address of the machine is open until the next call.
    """
    self._update()
    for key, _ in self._selector.select(seconds):
      try:
        key.data.accept()[0].close()
      except OSError:
        pass  # The peer has gone.

  def close(self) -> None:
    """Closes the port."""
    for address in list(self._listeners):
      self._forget(address)
    self._selector.close()

  def _update(self) -> None:
    addresses = machine_addresses() - self._allowed
    for address in self._listeners.keys() - addresses:
      self._forget(address)
    for address in addresses - self._listeners.keys():
      family, *_, where = socket.getaddrinfo(address, self._port)[0]
      listener = socket.socket(family, socket.SOCK_STREAM)
      # gRPC sets it, too. Otherwise only one of the two could listen.
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
      listener.bind(where)
      listener.listen()
      listener.setblocking(False)
      self._selector.register(listener, selectors.EVENT_READ, listener)
      self._listeners[address] = listener

  def _forget(self, address: str) -> None:
    listener = self._listeners.pop(address)
    self._selector.unregister(listener)
    listener.close()
