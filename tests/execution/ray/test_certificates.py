"""Only those with a valid certificate of the authority connect."""

import contextlib
import datetime
import os
import stat
import subprocess
import sys

import grpc
import pytest

from launch import certificates as launcher
from tff_fedsa.execution.ray import certificates

pytestmark = pytest.mark.slow

_NODE = """
import sys
from tff_fedsa.execution import imports
imports.quickly('tensorflow_federated')
from tff_fedsa.execution.ray import contexts
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

contexts.set_ray_context('local', certificates=sys.argv[1])

@tff.tensorflow.computation(np.int32)
def one_more(x):
  return tf.bitcast(x + 1, tf.int32)

@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def at_clients(values):
  return tff.federated_map(one_more, values)

assert at_clients([1, 2]) == [2, 3]
import ray
(node,) = ray.nodes()
address = node['NodeManagerAddress']
print('ports', ray.get_runtime_context().gcs_address.rpartition(':')[2],
      node['NodeManagerPort'], node['ObjectManagerPort'], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('certificates') / 'good'
  certificates.make(str(path), [])
  return path


@pytest.fixture(scope='module')
def ports(directory):
  """Ports of a node that uses the certificates."""
  process = subprocess.Popen(
    [sys.executable, '-c', _NODE, str(directory)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    line = next((x for x in process.stdout if x.startswith('ports')), None)
    assert line is not None, process.stderr.read()
    yield [int(port) for port in line.split()[1:]]
  finally:
    process.stdin.close()
    process.wait(timeout=60)


def _read(path):
  return path.read_bytes()


def _answer(port, credentials):
  """Returns how a port answers a request that no server knows.

  A connection that is refused fails the request at once. The time limit is
  never reached, so it may be long.
  """
  address = f'127.0.0.1:{port}'
  if credentials is None:
    channel = grpc.insecure_channel(address)
  else:
    channel = grpc.secure_channel(address, credentials)
  # With TLS 1.3 a client learns of its refusal only with its first request.
  with contextlib.closing(channel), pytest.raises(grpc.RpcError) as error:
    channel.unary_unary('/none/none')(b'', timeout=120)
  return error.value.code()


def _credentials(authority, own=None):
  own = own and (_read(own / 'node.key'), _read(own / 'node.crt'))
  return grpc.ssl_channel_credentials(
    _read(authority / 'ca.crt'), *(own or (None, None))
  )


def test_who_connects(directory, ports, tmp_path):
  certificates.make(str(tmp_path / 'other'), [])
  expired = tmp_path / 'expired'
  expired.mkdir()
  for name in ('ca.crt', 'ca.key'):
    (expired / name).write_bytes(_read(directory / name))
  certificates.make(str(expired), [], days=-1)
  for port in ports:
    known = _answer(port, _credentials(directory, directory))
    assert known == grpc.StatusCode.UNIMPLEMENTED
    for refused in (
      None,
      _credentials(directory),
      _credentials(directory, tmp_path / 'other'),
      _credentials(directory, expired),
      # The node is not one of that authority's.
      _credentials(tmp_path / 'other', directory),
    ):
      assert _answer(port, refused) == grpc.StatusCode.UNAVAILABLE


def test_the_command(tmp_path, capsys):
  from cryptography import x509

  path = tmp_path / 'set'
  launcher.make_set(str(path), ['10.0.0.5', 'node.example'], days=30)
  printed = capsys.readouterr().out
  for name in ('RAY_USE_TLS=1', 'RAY_TLS_SERVER_KEY=', str(path / 'node.key')):
    assert name in printed
  for name in ('ca.key', 'node.key'):
    assert stat.S_IMODE(os.stat(path / name).st_mode) == 0o600
  authority = _read(path / 'ca.crt')
  found = x509.load_pem_x509_certificate(_read(path / 'node.crt'))
  names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
  assert names.value.get_values_for_type(x509.DNSName) == [
    'localhost',
    'node.example',
  ]
  assert [
    str(one) for one in names.value.get_values_for_type(x509.IPAddress)
  ] == ['127.0.0.1', '10.0.0.5']
  left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
  assert 29 < left.total_seconds() / 86400 <= 30
  # More hosts, the same authority.
  launcher.make_set(str(path), ['10.0.0.6'], days=30)
  assert _read(path / 'ca.crt') == authority
