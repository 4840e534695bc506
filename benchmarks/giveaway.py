"""What do prototypes give away? Attacks on what clients send.

  python -m benchmarks.giveaway --dataset=digits
  python -m benchmarks.giveaway --dataset=fashion_mnist

The attacker is a curious server: it sees what each client sends, as the real
process sends it (`giveaway_attacks.transcript`). Three attacks:

  labels      which classes a client has, and how many examples of each
  membership  whether an image is among a client's training images
  inversion   what a prototype looks like as an image

They are tried on FedSA, on FedAvg (labels and membership) and on FedSA with
differential privacy. --output gets a CSV file and a Markdown table of each
attack, curves of membership and a picture of reconstructions. Its folder parts/
keeps what was found for each federation, attack and seed, and what is there is
not repeated, so the program can be stopped at any time. The page
docs/what_prototypes_give_away.md says what the numbers mean.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import os
import pickle
import re
from typing import Any, NamedTuple

from absl import flags
import numpy as np
import pandas

from launch import errors
from launch import runner
from tff_fedsa import files
from tff_fedsa.runs import errors as run_errors

_ATTACKS = ('labels', 'membership', 'inversion')
_ATTACK = flags.DEFINE_enum(
  'attack', 'all', ['all', *_ATTACKS], 'Which attack is tried.'
)
_DATASET = flags.DEFINE_enum(
  'dataset', 'digits', ['digits', 'fashion_mnist', 'mnist'], 'The images.'
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'TFDS directory of the images. Default: $TFDS_DATA_DIR.'
)
_DP = flags.DEFINE_list(
  'dp',
  ['none', 'central:8', 'local:8', 'local:1'],
  'Differential privacy of FedSA: none, or kind:epsilon of all rounds.',
)
_SEEDS = flags.DEFINE_list(
  'seeds', ['0', '1', '2'], 'Seeds of models, anchors and data of clients.'
)
_SIZES = flags.DEFINE_list(
  'sizes', ['2', '10', '50'], 'Training images of each class of a client.'
)
_RUNS = flags.DEFINE_integer(
  'runs',
  17,
  'Attacked clients of a seed (membership). Each is attacked with the others '
  'as shadow runs.',
  lower_bound=8,
)
_OUTPUT = flags.DEFINE_string(
  'output', 'runs/giveaway', 'Directory of tables and figures.'
)
_INVERTED_SIZES = (1, 2, 10)


class _Case(NamedTuple):
  """A federation that is attacked.

  Attributes:
    title: Name in tables.
    method: `fedsa` or `fedavg`.
    dp: Kind of differential privacy.
    epsilon: Epsilon of all rounds together.
    attacks: Attacks that are tried.
    settings: More settings of the experiment.
  """

  title: str
  method: str
  dp: str = 'none'
  epsilon: float | None = None
  attacks: Sequence[str] = _ATTACKS
  settings: Mapping[str, Any] = {}


def main(argv: Sequence[str]) -> None:
  """Tries the attacks, and writes tables and figures."""
  errors.refuse_arguments(argv)
  with errors.reported():
    cases = _cases(_DP.value)
    seeds = [int(seed) for seed in _SEEDS.value]
    sizes = [int(size) for size in _SIZES.value]
    wanted = _ATTACKS if _ATTACK.value == 'all' else (_ATTACK.value,)
    os.makedirs(_OUTPUT.value, exist_ok=True)
    found = _attack(cases, seeds, sizes, wanted)
    for name, table in tables(found).items():
      _write(name, table)
    # TensorFlow is imported now, see `runner`.
    from benchmarks.giveaway_attacks import drawing

    for name, figure in drawing.draw(found).items():
      path = os.path.join(_OUTPUT.value, f'{_DATASET.value}_{name}.png')
      figure.savefig(path, dpi=150)
      print(path)


def _cases(protections: Sequence[str]) -> list[_Case]:
  cases = []
  for protection in protections:
    kind, _, epsilon = protection.partition(':')
    if kind == 'none':
      cases += [
        _Case('FedSA', 'fedsa'),
        _Case(
          'FedSA, weighted by examples',
          'fedsa',
          attacks=('labels',),
          settings={'prototype_weighting': 'examples'},
        ),
        _Case('FedAvg', 'fedavg', attacks=('labels', 'membership')),
      ]
      continue
    try:
      title = f'FedSA, {kind} ε={float(epsilon):g}'
    except ValueError:
      raise run_errors.UserError(
        'Expected --dp to be none or kind:epsilon, e.g. local:8, found '
        f'{protection!r}.'
      ) from None
    if kind == 'central':
      # The server sees records before the noise, whatever epsilon is.
      title = 'FedSA, central, any ε'
    cases.append(_Case(title, 'fedsa', kind, float(epsilon)))
  return cases


class Found(NamedTuple):
  """What attacks found, by the title of the case.

  Attributes:
    labels: (case, attack) -> `labels.Errors` of each seed.
    membership: (case, knowledge, attack, size) -> `scores.Membership`.
    inversion: (case, knowledge, size) -> `inversion.Images` of each seed.
  """

  labels: Mapping[tuple[str, str], list[Any]]
  membership: Mapping[tuple[str, str, str, int], Any]
  inversion: Mapping[tuple[str, str, int], list[Any]]


def _attack(
  cases: Sequence[_Case],
  seeds: Sequence[int],
  sizes: Sequence[int],
  wanted: Sequence[str],
) -> Found:
  """Tries attacks on all cases with all seeds."""
  from benchmarks.giveaway_attacks import scores
  from benchmarks.giveaway_attacks import worlds

  source = worlds.read(_DATASET.value, _DATA_DIR.value)
  found: Any = {name: collections.defaultdict(list) for name in _ATTACKS}
  for case in cases:
    federation: Any = None
    for seed in seeds:
      begun = False
      data = worlds.divide(source, seed)
      for name in case.attacks:
        if name not in wanted:
          continue
        path = _path_of(case, name, seed, sizes)
        if not os.path.exists(path):
          if federation is None:
            federation = worlds.Federation(
              case.method,
              data,
              protection=worlds.Protection(case.dp, case.epsilon),
              seed=seed,
              **case.settings,
            )
          elif not begun:
            federation.begin(seed, data)
          begun = True
          part = dict(_one(name, case, federation, data, sizes, seed))
          files.write_bytes(path, pickle.dumps(part))
          print(f'{case.title}, seed {seed}: {name}', flush=True)
        with open(path, 'rb') as file:
          for key, value in pickle.load(file).items():
            found[name][(case.title, *key)].append(value)
  measured = {}
  for key, pairs in found['membership'].items():
    found_scores, members = (np.concatenate(part) for part in zip(*pairs))
    groups = np.repeat(np.arange(len(members)), members.shape[1])
    measured[key] = scores.measure_membership(
      found_scores.ravel(), members.ravel(), groups
    )
  return Found(found['labels'], measured, found['inversion'])


def _path_of(case: _Case, attack: str, seed: int, sizes: Sequence[int]) -> str:
  """Returns the file of what an attack finds."""
  words = [_DATASET.value, attack, case.title, f'seed {seed}']
  if attack == 'membership':
    words += [f'{_RUNS.value} runs', *map(str, sizes)]
  name = re.sub(r'\W+', '_', ' '.join(words).replace('ε', 'epsilon'))
  folder = os.path.join(_OUTPUT.value, 'parts')
  os.makedirs(folder, exist_ok=True)
  return os.path.join(folder, f'{name}.pickle')


def _one(
  attack: str,
  case: _Case,
  federation: Any,
  data: Any,
  sizes: Sequence[int],
  seed: int,
) -> Iterator[tuple[tuple[Any, ...], Any]]:
  """Yields the key of what an attack finds, without the case, and the value."""
  from benchmarks.giveaway_attacks import inversion
  from benchmarks.giveaway_attacks import labels
  from benchmarks.giveaway_attacks import membership

  if attack == 'labels':
    for name, wrong in labels.attack(federation, data, seed=seed):
      yield (name,), wrong
  elif attack == 'membership':
    for size in sizes:
      # Larger clients say nothing new about differential privacy.
      if case.dp != 'none' and size > min(sizes):
        continue
      runs = membership.run_clients(
        federation, data, size=size, num_runs=_RUNS.value, seed=seed
      )
      for result in membership.attack(
        federation, data, runs, size=size, seed=seed
      ):
        key = result.knowledge, result.attack, size
        yield key, (result.scores, runs.members)
  else:
    for size in _INVERTED_SIZES:
      if case.dp != 'none' and size > min(_INVERTED_SIZES):
        continue
      knowledge = ('known',) if case.dp != 'none' else membership.KNOWLEDGE
      for known, images in inversion.attack(
        federation, data, size=size, seed=seed, knowledge=knowledge
      ):
        yield (known, size), images


def tables(found: Found) -> dict[str, pandas.DataFrame]:
  """Returns a table of each attack that was tried, one row for each number."""
  from benchmarks.giveaway_attacks import inversion

  result = {}
  if found.labels:
    result['labels'] = pandas.DataFrame(
      [
        {
          'sent by': case,
          'attack': attack,
          'presence, balanced accuracy': np.mean([e.presence for e in wrong]),
          'distance of shares': np.mean([e.distance for e in wrong]),
          'deviation over seeds': np.std([e.distance for e in wrong]),
        }
        for (case, attack), wrong in found.labels.items()
      ]
    )
  if found.membership:
    result['membership'] = pandas.DataFrame(
      [
        {
          'sent by': case,
          'model': knowledge,
          'attack': attack,
          'images of a class': size,
          'AUC': measured.area.value,
          'AUC, low': measured.area.low,
          'AUC, high': measured.area.high,
          'TPR at 1 % FPR': measured.at_one_percent.value,
          'TPR, low': measured.at_one_percent.low,
          'TPR, high': measured.at_one_percent.high,
        }
        for (case, knowledge, attack, size), measured in (
          found.membership.items()
        )
      ]
    )
  if found.inversion:
    rows = []
    for (case, knowledge, size), images in found.inversion.items():
      of_seeds = [inversion.quality_of(of_seed) for of_seed in images]
      rows.append(
        {
          'sent by': case,
          'model': knowledge,
          'images of a class': size,
          **{
            name: np.mean([getattr(q, name) for q in of_seeds])
            for name in inversion.Quality._fields
          },
        }
      )
    result['inversion'] = pandas.DataFrame(rows)
  return result


def readable(name: str, table: pandas.DataFrame) -> pandas.DataFrame:
  """Returns a table for readers: text, with fewer rows.

  Args:
    name: Name of the attack.
    table: Table of the attack, see `tables`.
  """
  if name == 'membership':
    rows: dict[Any, dict[str, str]] = {}
    for _, row in table.iterrows():
      key = tuple(row[['sent by', 'model', 'attack']])
      rows.setdefault(key, dict(zip(('sent by', 'model', 'attack'), key)))[
        f'{row["images of a class"]} images of a class'
      ] = (
        f'{row["AUC"]:.3f} [{row["AUC, low"]:.3f}, {row["AUC, high"]:.3f}], '
        f'{100 * row["TPR at 1 % FPR"]:.1f} %'
      )
    return pandas.DataFrame(rows.values()).fillna('')
  if name == 'inversion':
    table = pandas.DataFrame(
      {
        'sent by': table['sent by'],
        'model': table['model'],
        'images of a class': table['images of a class'],
        **{
          title: [
            f'{number:.2f} ({of_mean:.2f})'
            for number, of_mean in zip(table[first], table[second])
          ]
          for title, first, second in (
            ('SSIM', 'similarity', 'of_mean'),
            ('squared error', 'error', 'error_of_mean'),
            ('recognized', 'recognized', 'recognized_of_mean'),
          )
        },
        'chance': table['chance'],
      }
    )
  return table.map(lambda v: f'{v:.2f}' if isinstance(v, float) else str(v))


def _write(name: str, table: pandas.DataFrame) -> None:
  """Writes a table as CSV and as Markdown, and prints it."""
  from tff_fedsa.reporting import rendering

  path = os.path.join(_OUTPUT.value, f'{_DATASET.value}_{name}')
  table.to_csv(f'{path}.csv', index=False)
  text = readable(name, table)
  names = [c for c in text if c in ('sent by', 'model', 'attack')]
  markdown = rendering.to_markdown(text, names)
  with open(f'{path}.md', 'w', encoding='utf-8') as file:
    file.write(f'{markdown}\n')
  print(f'\n{path}\n\n{markdown}\n')


if __name__ == '__main__':
  runner.run(main)
