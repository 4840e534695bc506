"""Fixtures of tests that parse flags."""

import pathlib

from absl import flags
import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def define(monkeypatch):
  """Returns `define(holder_fn, *always) -> parse`, on flags of its own.

  `parse(*arguments)` returns the holder of the flags that `holder_fn` defines;
  each call starts from defaults, and from the arguments `always`.
  """
  monkeypatch.chdir(_ROOT)
  before = set(flags.FLAGS)

  def own():
    return set(flags.FLAGS) - before

  def define_flags(holder_fn, *always):
    holder = holder_fn()

    def parse(*arguments):
      for name in own():
        flags.FLAGS[name].unparse()
      flags.FLAGS(['program', *always, *arguments])
      return holder

    return parse

  yield define_flags
  flags.FLAGS.unparse_flags()
  for name in own():
    delattr(flags.FLAGS, name)
