"""A set of certificates for the connections of a cluster (TLS)."""

from collections.abc import Sequence
import datetime
import ipaddress
import os
from typing import Any

from etils import epy

from tff_fedsa.runs import errors

with epy.lazy_imports():
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes
  from cryptography.hazmat.primitives import serialization
  from cryptography.hazmat.primitives.asymmetric import ec

_AUTHORITY_KEY = 'ca.key'
_AUTHORITY = 'ca.crt'
_CERTIFICATE = 'node.crt'
_KEY = 'node.key'


def environment(directory: str) -> dict[str, str]:
  """Returns the environment variables with which Ray uses a set.

  Args:
    directory: Directory with `ca.crt`, `node.crt` and `node.key`.

  Raises:
    UserError: If a file is missing.
  """
  paths = {
    name: os.path.abspath(os.path.join(directory, name))
    for name in (_AUTHORITY, _CERTIFICATE, _KEY)
  }
  for path in paths.values():
    if not os.path.isfile(path):
      raise errors.UserError(
        f'The certificate {path!r} is missing: `tff-fedsa certificates '
        f'--directory={directory}` makes a set.'
      )
  return {
    'RAY_USE_TLS': '1',
    'RAY_TLS_CA_CERT': paths[_AUTHORITY],
    'RAY_TLS_SERVER_CERT': paths[_CERTIFICATE],
    'RAY_TLS_SERVER_KEY': paths[_KEY],
  }


def all_hosts(hosts: Sequence[str]) -> list[str]:
  """Returns the hosts of a certificate: those given, and this machine."""
  return list(dict.fromkeys(['localhost', '127.0.0.1', *hosts]))


def make(directory: str, hosts: Sequence[str], *, days: int = 365) -> None:
  """Writes a set of certificates. An authority that is there stays.

  Args:
    directory: Created if missing, readable by its owner only.
    hosts: Addresses and names of the machines, besides localhost.
    days: Days for which the certificates are valid.

  Raises:
    UserError: If the package cryptography is missing.
    OSError: If a file can't be written.
  """
  try:
    x509.__name__  # noqa: B018
  except ImportError as error:
    raise errors.UserError(
      'Certificates need the package cryptography: `make setup-ray` (in a '
      'checkout) or `pip install tff_fedsa[ray]` installs it.'
    ) from error
  os.makedirs(directory, mode=0o700, exist_ok=True)
  end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)
  authority_path = os.path.join(directory, _AUTHORITY)
  key_path = os.path.join(directory, _AUTHORITY_KEY)
  if os.path.exists(authority_path) and os.path.exists(key_path):
    with open(key_path, 'rb') as file:
      authority_key = serialization.load_pem_private_key(file.read(), None)
    with open(authority_path, 'rb') as file:
      authority = x509.load_pem_x509_certificate(file.read())
  else:
    authority_key = _new_key()
    authority = _sign('tff_fedsa authority', authority_key, end)
    _write(key_path, _private(authority_key))
    _write(authority_path, _public(authority))
  key = _new_key()
  certificate = _sign(
    'tff_fedsa node',
    key,
    end,
    issuer=authority,
    issuer_key=authority_key,
    hosts=all_hosts(hosts),
  )
  _write(os.path.join(directory, _KEY), _private(key))
  _write(os.path.join(directory, _CERTIFICATE), _public(certificate))


def _new_key() -> Any:
  return ec.generate_private_key(ec.SECP256R1())


def _sign(
  name: str,
  key: Any,
  end: datetime.datetime,
  *,
  issuer: Any = None,
  issuer_key: Any = None,
  hosts: Sequence[str] = (),
) -> Any:
  """Returns a certificate; of an authority if there is no issuer."""
  subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
  # Clocks of machines differ.
  start = min(datetime.datetime.now(datetime.UTC), end) - datetime.timedelta(1)
  builder = (
    x509.CertificateBuilder()
    .subject_name(subject)
    .issuer_name(subject if issuer is None else issuer.subject)
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(start)
    .not_valid_after(end)
    .add_extension(
      x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True
    )
  )
  if hosts:
    builder = builder.add_extension(
      x509.SubjectAlternativeName([_host(host) for host in hosts]),
      critical=False,
    )
  return builder.sign(issuer_key or key, hashes.SHA256())


def _host(host: str) -> Any:
  try:
    return x509.IPAddress(ipaddress.ip_address(host))
  except ValueError:
    return x509.DNSName(host)


def _private(key: Any) -> bytes:
  return key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )


def _public(certificate: Any) -> bytes:
  return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: str, content: bytes) -> None:
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
  with os.fdopen(descriptor, 'wb') as file:
    file.write(content)
