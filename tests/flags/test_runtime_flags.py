"""`--runtime`: what goes with what."""

import functools

from absl import flags
import pytest

from flags import generator
from tff_fedsa.execution import runtime


@pytest.fixture
def parse(define):
  """Returns `parse(*arguments) -> SettingsFlags` of the runtime."""
  return define(
    functools.partial(generator.SettingsFlags, runtime.RuntimeConfig)
  )


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--workers=a:1'], '--workers would be ignored: --runtime=in_process'),
    (
      ['--runtime=native', '--workers=a:1'],
      '--workers would be ignored: --runtime=native',
    ),
    (['--runtime=native', '--intra_op_threads=2'], '--intra_op_threads would'),
    (
      ['--runtime=remote', '--workers=a:1', '--intra_op_threads=2'],
      '--intra_op_threads would be ignored: --runtime=remote',
    ),
    (['--runtime=remote'], 'needs --workers=host:port'),
  ],
)
def test_vain_and_missing_flags_are_refused(parse, arguments, message):
  with pytest.raises(flags.IllegalFlagValueError, match=message):
    parse(*arguments).build()


def test_malformed_workers_are_refused(parse):
  with pytest.raises(ValueError, match="'host2'"):
    parse('--runtime=remote', '--workers=host1:80,host2').build().start()
