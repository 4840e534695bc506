"""Makes certificates for the encrypted connections of a Ray cluster.

  tff-fedsa certificates --directory=my_cluster --hosts=10.0.0.5,10.0.0.6

The directory gets four files. `ca.crt`, `node.crt` and `node.key` belong on
every machine of the cluster: `--certificates` of `tff-fedsa train`, and the
environment variables that this command prints for `ray start`, name them.
`ca.key` signs certificates: keep it where you ran this command.

--hosts names every machine as the others reach it. The same command with more
hosts makes a new `node.crt` for them; the authority stays, so machines with the
former one still connect. Whoever has `node.key` can run any program on every
machine of the cluster (docs/clusters.md).
"""

from collections.abc import Sequence
import shlex
import sys

from absl import flags

from launch import errors
from launch import runner

_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Directory of the certificates; created if missing.'
)
_HOSTS = flags.DEFINE_list(
  'hosts',
  [],
  'Addresses and names of the machines of the cluster, besides localhost.',
)
_DAYS = flags.DEFINE_integer(
  'days', 365, 'Days for which the certificates are valid.', lower_bound=1
)


def main(argv: Sequence[str]) -> None:
  """Writes the files."""
  errors.refuse_arguments(argv)
  if not _DIRECTORY.value:
    sys.exit('error: --directory is missing: where the certificates belong.')
  with errors.reported():
    make_set(_DIRECTORY.value, _HOSTS.value, days=_DAYS.value)


def make_set(directory: str, hosts: Sequence[str], *, days: int) -> None:
  """Writes the files, and prints what uses them.

  Args:
    directory: Created if missing.
    hosts: Addresses and names of the machines, besides localhost.
    days: Days for which the certificates are valid.
  """
  from tff_fedsa.execution.ray import certificates

  certificates.make(directory, hosts, days=days)
  print(
    f'{directory}: certificates for '
    f'{", ".join(certificates.all_hosts(hosts))}, valid for {days} days. '
    'Before `ray start`, on every machine:'
  )
  for name, value in certificates.environment(directory).items():
    print(f'  export {name}={shlex.quote(value)}')


if __name__ == '__main__':
  runner.run(main)
