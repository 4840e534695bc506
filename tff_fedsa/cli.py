"""The command `tff-fedsa`: finds the launchers, and runs `launch`.

In a checkout, launchers and presets stand beside this package. A wheel has them
inside the package, in `bundled/`, because `launch` and `flags` are too general
as names of installed packages.
"""

import os
import runpy
import sys


def main() -> None:
  """Runs `python -m launch` with the arguments of the program."""
  folder = _folder()
  # For this program, and for the programs that it starts.
  sys.path.insert(0, folder)
  before = os.environ.get('PYTHONPATH')
  os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [folder, before]))
  runpy.run_module('launch', run_name='__main__', alter_sys=True)


def _folder() -> str:
  """Returns the folder that holds `launch` and `flags`."""
  package = os.path.dirname(os.path.abspath(__file__))
  for folder in (os.path.join(package, 'bundled'), os.path.dirname(package)):
    if os.path.exists(os.path.join(folder, 'launch', '__main__.py')):
      return folder
  sys.exit(
    f'error: the launchers are missing in {package!r}. Install tff_fedsa again.'
  )
