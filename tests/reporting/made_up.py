"""Run directories with numbers made up for the tests."""

import csv
import json

import numpy as np

from tff_fedsa.runs import directory

DEFAULTS = {
  'algorithm': 'fedsa',
  'alpha': '0.1',
  'anchor_seed': '0',
  'dataset': 'digits',
  'lambda_reg': '10.0',
  'model_seed': '0',
  'num_clients': '4',
  'partition': 'dirichlet',
  'partition_seed': '0',
  'sampling_seed': '0',
  'test_set': 'split',
  'total_rounds': '3',
}


def write(
  path,
  accuracies,
  *,
  classifiers=('prototype', 'head'),
  correct=(10, 9, 8, 1),
  bytes_up=600,
  nonfinite=0,
  finished=True,
  partition=(0, 1, 2),
  test_sets=None,
  simulated=None,
  returned=None,
  **flags,
):
  """Writes what launch.train leaves; `accuracies` are of rounds 0, 1, …

  `test_sets`: an averaged model's; how much more it is on each of them.
  `simulated`: simulated seconds of a round. `returned`: clients of a round.
  """
  path.mkdir(parents=True)
  directory.keep_flags(
    directory.RunDirectory(str(path)),
    {**DEFAULTS, **flags},
    defaults={},
    free=(),
  )
  rows = []
  for round_num, accuracy in enumerate(accuracies):
    row = {'round': round_num}
    for name in classifiers:
      row[f'{name}_accuracy'] = accuracy
      if test_sets is None:
        for statistic in ('std', 'min', 'p10'):
          row[f'{name}_accuracy_{statistic}'] = 0.0
      else:
        for test_set, more in test_sets.items():
          row[f'{name}_accuracy_{test_set}'] = accuracy + more
    row |= {
      'bytes_up_per_client': bytes_up if round_num else '',
      'bytes_down_per_client': 400 if round_num else '',
      'clients_sampled': 4 if round_num else '',
      'clients_nonfinite': nonfinite if round_num else '',
      'seconds_training': 0.5 if round_num else '',
    }
    if simulated is not None:
      row['simulated_seconds'] = round_num * simulated if round_num else ''
    if returned is not None:
      row['clients_returned'] = returned if round_num else ''
    rows.append(row)
  with open(path / 'metrics.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  np.savez(path / 'partition.npz', train_0=np.array(partition))
  if finished:
    (path / 'summary.json').write_text(
      json.dumps({'rounds': len(accuracies) - 1})
    )
    with open(path / 'per_client.csv', 'w', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(['client', 'architecture', 'num_examples', *classifiers])
      for client, count in enumerate(correct):
        writer.writerow([client, 'm', 10, *[count] * len(classifiers)])


def write_repeats(root, name, accuracies, **options):
  """Writes seeds 0, 1, … that end with these accuracies."""
  for seed, last in enumerate(accuracies):
    write(
      root / name / f'seed_{seed}',
      [0.1, 0.6, 0.5, last],
      model_seed=str(seed),
      sampling_seed=str(seed),
      **options,
    )
