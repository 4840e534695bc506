"""Whatever flags are combined, launch.train works or says one line."""

import random
import sys
import time

from absl import flags
import pytest

from tests import programs

_SEED, _COMBINATIONS = 16, 100
_SECONDS = 300.0  # What takes longer hangs.

_TINY = {
  'max_examples': '200',
  'num_clients': '3',
  'family': 'digits_mlp',
  'feature_dim': '4',
  'total_rounds': '1',
  'progress': 'false',
}
# Values of flags whose large values are work, not mistakes; others get any.
_POOLS = {
  'total_rounds': ('0', '1', '2', '-1', 'nan', '1.5'),
  'feature_dim': ('0', '1', '3', '100000000', 'inf'),
  'num_clients': ('0', '1', '2', '5', '100000000', '-3'),
  'max_examples': ('0', '5', '40', '300', '-1'),
  'client_epochs_per_round': ('0', '1', '2', '-1', 'nan'),
  'dataset': ('digits', 'nothing', 'npz', 'image_folder', 'cifar10'),
  'family': ('digits_mlp', 'digits3', 'nothing', ''),
  'runtime': ('in_process', 'remote', 'nothing'),
  # Some machines hand out memory that they do not have.
  'fedgen_noise_dim': ('0', '1', '64', '-1', 'nan'),
  'fedgen_hidden_dim': ('0', '1', '64', '-1', 'nan'),
  'experiment_name': ('a', 'a/b', '..', 'a\nb', 'x' * 300, ''),
}
# What they would do is not to be done here: other places, other machines, and
# settings of TensorFlow that would stay for the tests that follow.
_LEFT_ALONE = {
  'algorithm',
  'architecture_modules',
  'cache_dir',
  'data_cache_dir',
  'data_dir',
  'deterministic_ops',
  'download',
  'intra_op_threads',
  'jit_compile',
  'max_concurrent_clients',
  'mixed_precision',
  'partition_file',
  'root_output_dir',
  'tf32',
  'workers',
}
_EXTREMES = ('nan', 'inf', '-inf', '1e30', '1000000000', '-1', '0', 'x', '')


def _value(name, rng):
  """Returns a value of a flag, more often than not one that may do."""
  flag = flags.FLAGS[name]
  choices = getattr(flag.parser, 'enum_values', None)
  if rng.random() < 0.25:
    return rng.choice(_POOLS.get(name, _EXTREMES))
  if name in _POOLS:
    return rng.choice(_POOLS[name])
  if flag.boolean:
    return rng.choice(('true', 'false'))
  if choices:
    return rng.choice(choices)
  if isinstance(flag.default, int):
    return str(rng.choice((flag.default + 1, flag.default * 2, 1)))
  if isinstance(flag.default, float):
    return str(rng.choice((flag.default / 2, flag.default * 2, 0.5, 1.0)))
  return rng.choice(('1', '2', '0.5'))


def _combination(rng, any_algorithm):
  methods = sorted(flags.FLAGS['algorithm'].parser.enum_values)
  method = rng.choice(methods) if any_algorithm else 'fedsa'
  chosen = {**_TINY, 'algorithm': method}
  others = tuple(f'{one}_' for one in methods if one != method)
  free = [
    name
    for name in sorted(_train()._EXPERIMENT.values())
    # Flags of other methods are refused, which needs few attempts.
    if name not in _LEFT_ALONE
    and (not name.startswith(others) or rng.random() < 0.1)
  ]
  for name in rng.sample(free, rng.randint(1, 3)):
    chosen[name] = _value(name, rng)
  return chosen


def _train():
  return sys.modules['launch.train']


@pytest.fixture
def train():
  """launch.train, with flags of its own."""
  module = programs.load('launch.train')
  before = set(flags.FLAGS)
  old = module._EXPERIMENT

  def renew():
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
    module._EXPERIMENT = module.experiment.ExperimentFlags()

  renew()
  yield module, renew
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)
  module._EXPERIMENT = old


def _attempt(train, arguments):
  """Returns what the program says last, or '' if it works."""
  try:
    flags.FLAGS(['launch.train', *arguments])
    train.main(['launch.train'])
  except flags.Error as error:
    # What `app.run` does of it.
    return f'error: {error}'
  except SystemExit as ended:
    return '' if ended.code in (None, 0) else str(ended.code)
  return ''


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures('in_process_context')
def test_any_combination_of_flags_works_or_gives_a_line(train, tmp_path):
  module, renew = train
  rng = random.Random(_SEED)
  worked, wrong = 0, []
  for number in range(_COMBINATIONS):
    renew()
    chosen = _combination(rng, any_algorithm=number % 3 == 0)
    arguments = [f'--{name}={value}' for name, value in chosen.items()]
    arguments.append(f'--root_output_dir={tmp_path / str(number)}')
    started = time.monotonic()
    try:
      said = _attempt(module, arguments)
    except Exception as error:
      wrong.append(f'{arguments}: {type(error).__name__}: {error}'[:600])
      continue
    if said and not said.startswith('error: '):
      wrong.append(f'{arguments}: said {said!r}')
    if time.monotonic() - started > _SECONDS:
      wrong.append(f'{arguments}: took {time.monotonic() - started:.0f} s')
    worked += not said
  assert not wrong, '\n'.join(wrong)
  # Neither all nor none of them.
  assert _COMBINATIONS // 10 < worked < _COMBINATIONS * 9 // 10
