"""Runs attacks against aggregators, and prints tables of accuracy.

  python -m benchmarks.protection

trains FedSA on handwritten digits, 20 clients of three architectures, dirichlet
0.5, with each attack and each aggregator, three seeds. A fifth of the clients
attacks. A seed is that of initial models, anchors and draws, and it decides
which data each client has, so attackers have other data with each seed. All
runs are in one process and share what no seed changes.

Results go to --output, a line of JSON each. Runs that are there already are not
repeated, so the program can be stopped at any time. The tables are over all
runs of that file.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import statistics
from typing import Any

from absl import flags
import numpy as np

from benchmarks import shared_traces
from launch import errors
from launch import runner
from tff_fedsa.aggregation import aggregator_config
from tff_fedsa.client import attack_config

_NONE = 'none'
_SEEDS = flags.DEFINE_list(
  'seeds', ['0', '1', '2'], 'Seeds of models, anchors and data of clients.'
)
_ATTACKS = flags.DEFINE_list(
  'attacks', [_NONE, *attack_config.SCALES], 'Attacks, and none.'
)
_AGGREGATORS = flags.DEFINE_list(
  'aggregators', list(aggregator_config.AGGREGATORS), 'Aggregators.'
)
_PRESET = flags.DEFINE_string('preset', 'fedsa.digits', 'Data and models.')
_ALPHA = flags.DEFINE_float('alpha', 0.5, 'Of the dirichlet partition.')
_ALGORITHM = flags.DEFINE_string('algorithm', 'fedsa', 'The method.')
_ROUNDS = flags.DEFINE_integer('total_rounds', 15, 'Rounds.', lower_bound=1)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'Directory of the data set, where it needs one.'
)
_OUTPUT = flags.DEFINE_string(
  'output', 'runs/protection.jsonl', 'File of the results.'
)
_KEYS = ('preset', 'algorithm', 'total_rounds', 'attack', 'aggregator', 'seed')


def main(argv: Sequence[str]) -> None:
  """Runs what is missing, and prints the tables."""
  errors.refuse_arguments(argv)
  with errors.reported():
    setting = (_PRESET.value, _ALGORITHM.value, _ROUNDS.value)
    known = _read()
    done = {tuple(row[key] for key in _KEYS) for row in known}
    os.makedirs(os.path.dirname(_OUTPUT.value) or '.', exist_ok=True)
    with open(_OUTPUT.value, 'a', encoding='utf-8') as file:
      for attack in _ATTACKS.value:
        for aggregator in _AGGREGATORS.value:
          keys = {
            seed: (*setting, attack, aggregator, seed)
            for seed in map(int, _SEEDS.value)
          }
          missing = [seed for seed, key in keys.items() if key not in done]
          for seed, found in _train(attack, aggregator, missing):
            row = {**dict(zip(_KEYS, keys[seed])), **found}
            file.write(f'{json.dumps(row)}\n')
            file.flush()
            known.append(row)
    rows = [
      row for row in known if tuple(row[key] for key in _KEYS[:3]) == setting
    ]
    for name in dict.fromkeys(n for row in rows for n in row if n not in _KEYS):
      print(f'\n{name}, seeds {sorted({row["seed"] for row in rows})}\n')
      print(_table([row for row in rows if name in row], name))


# What no attack and no aggregator changes.
_shared: dict[str, Any] = {}


def _train(
  attack: str, aggregator: str, seeds: Sequence[int]
) -> Iterator[tuple[int, Mapping[str, float]]]:
  """Yields seeds, and accuracies and rates of success after the last round."""
  if not seeds:
    return
  # TensorFlow is imported now, see `runner`.
  from tff_fedsa import experiment as experiment_lib
  from tff_fedsa.data import testing
  from tff_fedsa.execution import current

  settings: dict[str, Any] = {'algorithm': _ALGORITHM.value}
  if _DATA_DIR.value:
    settings['data_dir'] = _DATA_DIR.value
  plain = experiment_lib.Experiment.from_preset(
    _PRESET.value,
    alpha=_ALPHA.value,
    total_rounds=_ROUNDS.value,
    rounds_per_evaluation=_ROUNDS.value,
    max_concurrent_clients=1,
    intra_op_threads=1,
    **settings,
  )
  current.start(plain.runtime)
  base = plain.replace(aggregator=aggregator)
  if attack != _NONE:
    base = base.replace(attack=attack)
  for name in ('models', 'optimizer', 'evaluate'):
    if name not in _shared:
      _shared[name] = getattr(plain, name)
    base.__dict__[name] = _shared[name]
  of_seed = {'model_seed', 'sampling_seed', 'anchor_seed'}
  for seed in seeds:
    seeded = base.replace(
      **dict.fromkeys(of_seed - set(base.ignored_flags()), seed)
    )
    shared_traces.share_traces(base, seeded)
    order = np.random.default_rng(seed).permutation(plain.task.num_clients)
    clients = tuple(plain.task.clients[i] for i in order)
    seeded.__dict__['task'] = testing.without_tests(
      dataclasses.replace(plain.task, clients=clients),
      seeded.attack.attackers(len(clients)),
    )
    rows = seeded.run(progress=False).rows
    yield (
      seed,
      {
        name: value
        for name, value in rows[-1].items()
        if name.endswith('_accuracy') or name.startswith('attack_success')
      },
    )


def _read() -> list[dict[str, Any]]:
  if not os.path.exists(_OUTPUT.value):
    return []
  with open(_OUTPUT.value, encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def _table(rows: Sequence[dict[str, Any]], name: str) -> str:
  """Returns means over seeds in percent, attacks by aggregators.

  A cell of fewer seeds than others has their number.
  """
  attacks = list(dict.fromkeys(row['attack'] for row in rows))
  aggregators = list(dict.fromkeys(row['aggregator'] for row in rows))
  most = len({row['seed'] for row in rows})
  lines = [f'| attack | {" | ".join(aggregators)} |']
  lines.append(f'|---|{"---|" * len(aggregators)}')
  for attack in attacks:
    cells = []
    for aggregator in aggregators:
      found = [
        100 * row[name]
        for row in rows
        if (row['attack'], row['aggregator']) == (attack, aggregator)
      ]
      cell = f'{statistics.mean(found):.1f}' if found else ''
      if found and len(found) < most:
        cell += f' ({len(found)})'
      cells.append(cell)
    lines.append(f'| {attack} | {" | ".join(cells)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  runner.run(main)
