"""Checks FedSA on a GPU against the CPU, and measures its speed.

  python -m benchmarks.gpu
  python -m benchmarks.gpu --small
  python -m benchmarks.gpu --sections=devices,parity --json=gpu.json

At most eight minutes on a GPU; `--small`, three minutes on two cores, shows
that all of it works. Each section is a process of its own: one that fails or
takes too long is reported and leaves the others alone, and what it had found is
kept. The sections:

  devices      what clients are computed on, and versions
  first_round  seconds of the first rounds, and kernels that the driver compiled
  placement    clients' operations that are not on their device: none
  parity       golden vectors and three rounds, compared with the CPU
  throughput   images/s: FedSA in process, a plain loop of its steps, Keras fit
  together     images/s of --batch_clients against each client alone
  precision    TF32, deterministic operations, --jit_compile, XLA's
               auto-clustering, float16
  runtimes     a round in process and in TFF's own runtime, which has no GPU
  memory       of host and GPU over 200 rounds

Kernels that the driver compiles at first use (docs/gpu.md) make the first
benchmark on such a GPU slower than the next.
"""

from collections.abc import Iterator, Mapping, Sequence
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app
from absl import flags

_SMALL = flags.DEFINE_bool(
  'small', False, 'As little of everything as shows that it works.'
)
_JSON = flags.DEFINE_string(
  'json', None, 'File for all that was found, written after each section.'
)
_SECTIONS = flags.DEFINE_list(
  'sections',
  [],
  'Only these, or parts of them as they are named in the table '
  '(throughput:resnet18). Default: all.',
)
_DEVICES = flags.DEFINE_list(
  'devices',
  [],
  'Devices of clients; CPU:1 is a logical device. Default: all GPUs, or else '
  'the CPU; with --small CPU:1 where there is no GPU.',
)
_MINUTES = flags.DEFINE_float(
  'minutes', 8.0, 'For all sections; each has its share.', lower_bound=0.0
)

_ROOT = pathlib.Path(__file__).parents[1]
_MODELS = ('fedavg_cnn', 'resnet18', 'mobilenet_v2')
_VARIANTS = (
  'default',
  'jit_compile',
  'float16',
  'xla',
  'tf32_off',
  'deterministic',
)
# In the order of importance, with the seconds of each within eight minutes, if
# kernels are compiled. Parts without time left are skipped.
_PARTS = {
  'devices': 60,
  'first_round:fedavg_cnn': 120,
  'placement': 120,
  'parity': 120,
  **{f'throughput:{model}': 75 for model in _MODELS},
  'together:fedavg_cnn': 60,
  'together:digits_mlp': 60,
  'memory': 75,
  'runtimes': 75,
  **{f'precision:{variant}': 90 for variant in _VARIANTS},
}
_LEFT_OUT_IF_SMALL = (
  'throughput:resnet18',
  'throughput:mobilenet_v2',
  'together:digits_mlp',
  'precision:deterministic',
  'precision:float16',
  'precision:tf32_off',
)


def main(argv: Sequence[str]) -> None:
  """Runs the sections; prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  parts = chosen_parts(_PARTS, _SECTIONS.value)
  if _SMALL.value and not _SECTIONS.value:
    parts = {n: s for n, s in parts.items() if n not in _LEFT_OUT_IF_SMALL}
  # Like Ctrl-C: it also ends the running part.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  end = time.monotonic() + 60 * _MINUTES.value
  report: dict[str, Any] = {
    'command': ' '.join(['python -m benchmarks.gpu', *sys.argv[1:]]),
    'date': datetime.date.today().isoformat(),
    'sections': {},
  }
  print('| section | ok | seconds | found |\n|---|---|---|---|', flush=True)
  for name, seconds in parts.items():
    left = end - time.monotonic()
    if left <= 0:
      found = {'ok': None, 'left_out': 'no time, see --minutes'}
    else:
      found = run_part(name, min(seconds * _MINUTES.value / 8, left))
    report['sections'][name] = found
    if _JSON.value:
      pathlib.Path(_JSON.value).write_text(json.dumps(report, indent=1) + '\n')
    for line in rows(name, found):
      print(line, flush=True)
  failed = [
    n for n, found in report['sections'].items() if found['ok'] is False
  ]
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


def chosen_parts(
  parts: Mapping[str, int], sections: Sequence[str]
) -> dict[str, int]:
  """Returns the parts of sections. Default: all.

  Raises:
    app.UsageError: If a section is unknown.
  """
  chosen: dict[str, int] = {}
  for section in sections or parts:
    found = {
      name: seconds
      for name, seconds in parts.items()
      if section in (name, name.partition(':')[0])
    }
    if not found:
      names = list(dict.fromkeys(name.partition(':')[0] for name in parts))
      raise app.UsageError(
        f'Unknown section {section!r}; known: {", ".join(names)}.'
      )
    chosen |= found
  return chosen


def run_part(name: str, seconds: float) -> dict[str, Any]:
  """Runs a part in a separate process.

  Returns:
    What it has found, `ok`, `seconds`, and `error` if it failed: the end of
    what it has said.
  """
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    output, log = pathlib.Path(folder, 'found'), pathlib.Path(folder, 'log')
    with log.open('w') as said:
      process = subprocess.Popen(
        [
          sys.executable,
          '-m',
          'benchmarks.gpu_sections.program',
          f'--section={name}',
          f'--output={output}',
          f'--small={_SMALL.value}',
          f'--devices={",".join(_DEVICES.value)}',
          f'--deadline={0.7 * seconds}',
        ],
        cwd=_ROOT,
        env={**os.environ, **_environment(name)},
        stdout=said,
        stderr=subprocess.STDOUT,
      )
      error = None
      try:
        if process.wait(seconds):
          error = f'ended with {process.returncode}'
      except subprocess.TimeoutExpired:
        error = f'stopped after {seconds:.0f} seconds'
        process.kill()
        process.wait()
      except BaseException:
        process.kill()
        raise
    found: dict[str, Any] = {'ok': False}
    if output.exists():
      found |= json.loads(output.read_text())
    if error is not None:
      found |= {'ok': False, 'error': error, 'log': log.read_text()[-2000:]}
  return {**found, 'seconds': round(time.monotonic() - started, 1)}


def _environment(name: str) -> dict[str, str]:
  section, _, variant = name.partition(':')
  if section == 'precision' and variant == 'xla':
    # Auto-clustering: TensorFlow finds the graphs that XLA can compile.
    return {'TF_XLA_FLAGS': '--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit'}
  return {}


def rows(name: str, found: Mapping[str, Any]) -> Iterator[str]:
  """Yields the lines of the table for a part."""
  texts = list(
    _speeds(found['rows'])
    if 'throughput' in name and 'rows' in found
    else _texts(found)
  )
  if 'error' in found:
    last = found.get('log', '').strip().splitlines()[-1:]
    texts.append(' '.join([f'FAILED: {found["error"]}', *last]))
  ok = {True: 'yes', False: 'NO', None: ''}[found['ok']]
  seconds = found.get('seconds', 0)
  for text in texts or ['']:
    yield f'| {name} | {ok} | {seconds} | {text} |'
    name = ok = seconds = ''


def _speeds(measured: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  """Yields a line for each batch size and contender of the throughput."""
  lines: dict[tuple[int, str], list[str]] = {}
  for row in measured:
    text = f'{row["images_per_second"]:,.0f}'
    if row['gpu'] is not None:
      text += f' (GPU {row["gpu"]:.0%})'
    lines.setdefault((row['batch_size'], row['what']), []).append(
      f'{row["at_a_time"]} at a time {text}'
    )
  for (batch_size, what), texts in sorted(lines.items()):
    yield f'batch {batch_size}, {what}, images/s: {", ".join(texts)}'


def _texts(found: Mapping[str, Any], prefix: str = '') -> Iterator[str]:
  """Yields `name: value` for each nested dict or list of dicts."""
  plain = {}
  for name, value in found.items():
    if name in ('ok', 'seconds', 'error', 'log'):
      continue
    if isinstance(value, Mapping) and any(
      isinstance(part, Mapping) for part in value.values()
    ):
      yield from _texts(value, f'{prefix}{name}: ')
    elif isinstance(value, Mapping):
      yield f'{prefix}{name}: {_line(value)}'
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
      for row in value:
        yield prefix + _line(row)
    else:
      plain[name] = value
  if plain:
    yield prefix + _line(plain)


def _line(values: Mapping[str, Any]) -> str:
  return ', '.join(
    f'{name} {value:.3g}'
    if isinstance(value, float) and abs(value) < 1
    else f'{name} {value:,.1f}'
    if isinstance(value, float)
    else f'{name} {value}'
    for name, value in values.items()
    if value is not None
  )


if __name__ == '__main__':
  app.run(main)
