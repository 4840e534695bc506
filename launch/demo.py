"""Shows in a minute what clients gain: alone, with anchors, together.

  tff-fedsa demo

20 clients of three architectures train on handwritten digits: alone, with
anchors that never move, with FedSA, and with FedSA and shared weights. Each is
a run of the sweep `demo`. Flags of `tff-fedsa sweep` work here, too:

  tff-fedsa demo --seeds=0,1,2
  tff-fedsa demo --total_rounds=60 --root_output_dir=try

The table and together.png, in the sweep's directory, compare clients' models by
architecture. One seed is a look, not a proof: docs/results.md has ten.
"""

from collections.abc import Sequence
import os
import sys

from absl import flags

from launch import errors
from launch import runner
from launch import sweep

_PICTURE = 'together.png'


def main(argv: Sequence[str]) -> None:
  """Runs the sweep `demo`, and compares its runs."""
  errors.refuse_arguments(argv)
  with errors.reported('interrupted; the same command goes on'):
    dry_run = flags.FLAGS['dry_run'].value
    root, failed = sweep.sweep('demo')
    if not failed and not dry_run:
      compare(root)
  sys.exit(1 if failed else 0)


def compare(root: str) -> None:
  """Prints the table of a sweep, and draws it.

  Args:
    root: Directory of the sweep.
  """
  # Slow to import: not for --help.
  from tff_fedsa.reporting import architectures
  from tff_fedsa.reporting import figures
  from tff_fedsa.reporting import groups
  from tff_fedsa.reporting import rendering
  from tff_fedsa.reporting import runs

  found = groups.group(runs.find([root], {}))
  table, _ = architectures.by_architecture(found)
  path = os.path.join(root, _PICTURE)
  figures.save(
    architectures.draw(table, 'What clients gain from each other'), path
  )
  print(
    f'\n{rendering.to_markdown(architectures.to_text(table), ["method"])}\n'
  )
  print(architectures.EXPLANATION)
  print(f'picture: {path}')


if __name__ == '__main__':
  runner.run(main)
