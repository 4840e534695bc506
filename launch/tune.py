"""Tunes every method alike: the same number of trials, chosen on validation.

  tff-fedsa tune --sweep=tune_digits

The sweep file has a table [search] of flags to draw (see
tff_fedsa/sweeps/sweep_file.py) and sets `validation_fraction`. Each variant is
run with `trials` draws. The report compares the trials that are best on
validation examples, and lists what was chosen. Flags of `tff-fedsa sweep` and
`tff-fedsa report` work here, too. The same command goes on with an interrupted
search.
"""

from collections.abc import Sequence
import sys

from absl import flags

from launch import errors
from launch import report
from launch import runner
from launch import sweep
from tff_fedsa.runs import presets
from tff_fedsa.sweeps import sweep_file
from tff_fedsa.sweeps import values


def main(argv: Sequence[str]) -> None:
  """Runs the trials, and reports on the best."""
  errors.refuse_arguments(argv)
  name = flags.FLAGS['sweep'].value
  if name is None:
    sys.exit('error: --sweep=FILE is missing, a sweep file with [search].')
  with errors.reported('interrupted; the same command goes on'):
    searched = sweep_file.read(presets.find_sweep(name)).searched
    if not searched:
      raise values.SweepError(
        f'{name}: expected a table [search] of flags to draw, found none. '
        '`tff-fedsa sweep` runs what the file lists.'
      )
    # Planning the runs parses other flags, and loses these values.
    dry_run = flags.FLAGS['dry_run'].value
    given = {
      flag.name: flag.value
      for flag in flags.FLAGS.flags_by_module_dict()[report.__name__]
    }
    root, failed = sweep.sweep(name)
    if not failed and not dry_run:
      for flag, value in given.items():
        flags.FLAGS[flag].value = value
      flags.FLAGS['choose'].value = list(searched)
      flags.FLAGS['statistic'].value = 'best'
      report.report([root])
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  runner.run(main)
