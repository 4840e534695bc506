"""`--runtime`: what goes with what."""

from absl import flags
import pytest

from flags import run_flags


@pytest.fixture
def parse(define):
  """Returns `parse(*arguments) -> RuntimeFlags`."""
  return define(run_flags.RuntimeFlags)


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
    parse('--runtime=remote', '--workers=host1:80,host2').build()
