"""Imports of large modules in a program that starts."""

import gc
import importlib
import sys


def quickly(name: str) -> None:
  """Imports a module without the garbage collector.

  TensorFlow and what imports it make hundreds of thousands of objects that
  stay. The collector would look at them again and again, which takes a third of
  the time in which a program starts. It leaves them out from then on.

  Args:
    name: Full name of the module. Nothing is done if it has been imported.
  """
  if name in sys.modules:
    return
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    importlib.import_module(name)
    gc.freeze()
  finally:
    if was_enabled:
      gc.enable()
