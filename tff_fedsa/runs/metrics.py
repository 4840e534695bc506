"""The rows of a run's history: columns and units."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import os
import types
from typing import Any, Optional

from etils import epy
import numpy as np
import psutil

from tff_fedsa.algorithms import registry
from tff_fedsa.evaluation import classification
from tff_fedsa.evaluation import client_evaluation
from tff_fedsa.evaluation import newcomers
from tff_fedsa.runs import errors

with epy.lazy_imports():
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_fedsa import composer
  from tff_fedsa.field import outcomes
  from tff_fedsa.privacy import accounting

Row = dict[str, Any]

_CLASSIFIER_COLUMNS = {
  'accuracy': 'all correct / all test examples (micro average), in [0, 1]',
  'accuracy_mean': 'mean over clients, in [0, 1]',
  'accuracy_std': 'standard deviation over clients',
  'accuracy_min': 'worst client, in [0, 1]',
  'accuracy_p10': '10th percentile over clients, in [0, 1]',
}

_ROUND = {'round': 'rounds done when the row was taken; 0 is before training'}

# Columns of all methods. Training columns describe the row's own round.
_OF_ALL = {
  'loss': 'client objective, mean over trained examples, nats',
  'loss_cross_entropy': 'cross-entropy term, unweighted, nats',
  'examples': 'training examples visited in the round, all epochs',
  'clients_sampled': 'clients that took part in the round',
  'clients_trained': 'of these, clients that made a step and stayed finite',
  'clients_nonfinite': 'of these, clients excluded because they diverged',
  'clients_rejected': (
    'of `clients_sampled`, clients that the server turned away: no honest '
    'client can have sent what they sent'
  ),
  'clients_rejected_nonfinite': 'of these, clients that sent NaN or infinity',
  'clients_rejected_large': 'of these, clients that sent a value beyond 1e8',
  'clients_rejected_weight': (
    'of these, clients that sent a weight or a count that no client can have'
  ),
  'clients_rejected_metrics': (
    'of these, clients whose update is possible, but not their losses or counts'
  ),
  'server_nonfinite': (
    '1 if the aggregate of the round, or the model that the server trained '
    'with it, was not finite and was left out; else 0, or empty if the server '
    'does not train'
  ),
  'bytes_down_per_client': 'bytes that a client received in the round',
  'bytes_up_per_client': 'bytes that a client sent in the round, mean',
  'seconds_training': 'wall-clock seconds of the round without evaluation',
  'seconds_evaluation': 'wall-clock seconds of the evaluation',
  'memory_python_mb': 'resident memory of Python, MB (10^6 bytes)',
  'memory_children_mb': 'resident memory of its child processes, MB',
  'memory_peak_mb': 'peak resident memory of Python so far, MB',
}

# Means over clients that are no terms of their objective.
_GAUGES = ('gap_local',)


def _training_columns() -> dict[str, str]:
  """Returns columns, losses first: name -> meaning and unit."""
  methods = [registry.get(name) for name in registry.NAMES]
  losses = [name for name in _OF_ALL if name.startswith('loss')]
  found = [(name, _OF_ALL[name]) for name in losses]
  for method in methods:
    found += [(f'loss_{name}', said) for name, said in method.terms.items()]
  for method in methods:
    found += method.metrics.items()
  found += _OF_ALL.items()
  meanings: dict[str, list[str]] = {}
  for column, meaning in found:
    known = meanings.setdefault(column, [])
    if meaning not in known:
      known.append(meaning)
  return {name: '; or '.join(said) for name, said in meanings.items()}


# Column of metrics.csv -> what it holds and its unit, protocol `personal`.
COLUMNS: dict[str, str] = {
  **_ROUND,
  **{
    f'{classifier}_{name}': f'{described}; {how}'
    for classifier, how in (
      ('prototype', 'nearest global prototype (the paper)'),
      ('anchor', 'nearest anchor'),
      ('head', "the client's own classifier head"),
      ('global_head', "the server's head on the client's features"),
    )
    for name, described in _CLASSIFIER_COLUMNS.items()
  },
  **_training_columns(),
}

# The same of protocol `global`. Where there are several test sets (domains),
# a column with `_<name>` behind for each.
GLOBAL_COLUMNS: dict[str, str] = {
  **_ROUND,
  **{
    f'{client_evaluation.GLOBAL_PREFIX}{classifier}_accuracy': (
      'averaged model on the global test set, or mean over domains and '
      'architectures, in [0, 1]; '
      f'{how}'
    )
    for classifier, how in (
      ('prototype', 'nearest global prototype'),
      ('anchor', 'nearest anchor'),
      ('head', 'its own classifier head'),
      ('global_head', "the server's head on its features"),
    )
  },
  **_training_columns(),
}

# Further columns of runs that use the settings of `field.FieldConfig`.
FIELD_COLUMNS: dict[str, str] = {
  'clients_available': 'clients that could be drawn',
  'clients_returned': 'clients whose update counts, of `clients_sampled`',
  'clients_dropped': 'clients that dropped out, of `clients_sampled`',
  'clients_late': (
    'clients that returned after the deadline, or after enough others, of '
    '`clients_sampled`'
  ),
  'clients_partial': (
    'clients that trained on less than all their examples, of '
    '`clients_returned`'
  ),
  'simulated_seconds_round': 'simulated seconds that the round took',
  'simulated_seconds': 'simulated seconds since the beginning, all rounds',
}

# Further columns of runs with differential privacy.
PRIVACY_COLUMNS: dict[str, str] = {
  'dp_epsilon': (
    'epsilon that the rounds so far have spent, with the delta of --dp_delta; '
    'of the simulated deployment if there is a --dp_cohort'
  ),
  'aggregator_clip_norm': (
    'clipping norm of the next round; with --dp_clip_quantile only'
  ),
}

# Further columns of runs with `--secure`.
_CLIPPED = (
  'clients with a value above the bound of the secure sum, plus clients with '
  'one below; these values are clipped'
)
SECURE_COLUMNS: dict[str, str] = {
  'aggregator_vectors_clipped': f'class means or logits: {_CLIPPED}',
  'aggregator_value_clipped': f'other updates: {_CLIPPED}',
  'averager_value_clipped': f'averaged weights: {_CLIPPED}',
  'metrics_clipped': f'losses and other metrics: {_CLIPPED}',
}

# Further columns of runs whose clients hold out validation examples.
VALIDATION_COLUMNS: dict[str, str] = {
  client_evaluation.validation_column(name): (
    f'the accuracy of `{name}` on validation examples, all correct / all, in '
    '[0, 1]'
  )
  for name in client_evaluation.CLASSIFIERS
}

# Further columns of runs with `--held_out_clients`.
NEWCOMER_COLUMNS: dict[str, str] = {
  f'{prefix}{classifier}_accuracy': f'{described}, in [0, 1]; {how}'
  for prefix, described in (
    (
      newcomers.JOINED,
      'clients that never train, as they join: all correct / all test examples',
    ),
    (newcomers.TRAINED, 'the same after one round of training of their own'),
  )
  for classifier, how in (
    ('prototype', 'nearest global prototype'),
    ('anchor', 'nearest anchor'),
    ('head', "the client's own classifier head"),
    ('global_head', "the server's head on the client's features"),
    ('received_head', 'the head that the client receives'),
  )
}

# Further columns of runs with `--metrics`, for each classifier.
METRIC_COLUMNS: dict[str, str] = {
  f'<classifier>_{name}': meaning
  for metric, described in classification.MEANINGS.items()
  for name, meaning in {
    'recall': [('recall_<class>', described)],
    'auroc': [
      ('auroc', described),
      ('auroc_error', 'the most by which the bins can change it'),
    ],
  }.get(metric, [(metric, described)])
}

# Further columns of runs whose clients share weights of their architecture.
SHARING_COLUMNS: dict[str, str] = {
  **{
    f'received_head_{name}': f'{described}; the head of the model with which '
    'the client begins the next round'
    for name, described in _CLASSIFIER_COLUMNS.items()
  },
  'averager_mean_size': (
    'weights that a client shared, mean over the participants of the round; '
    'with several architectures only'
  ),
}

# Further columns of runs with a targeted attack.
ATTACK_COLUMNS: dict[str, str] = {
  f'attack_success_{classifier}': (
    "share of honest clients' test examples of the target class that are "
    f'taken for the moved class, in [0, 1]; {how}'
  )
  for classifier, how in (
    ('prototype', 'nearest global prototype'),
    ('anchor', 'nearest anchor'),
    ('head', "the client's own classifier head"),
    ('global_head', "the server's head on the client's features"),
  )
}

# They differ between two equal runs.
VOLATILE_COLUMNS = (
  'seconds_training',
  'seconds_evaluation',
  'memory_python_mb',
  'memory_children_mb',
  'memory_peak_mb',
)


def training_columns(measurements: Mapping[str, Any]) -> Row:
  """Returns a round's columns from the measurements of a composed process.

  The objective's terms become `loss` and `loss_<term>`; everything else that
  the client work measures keeps its name, and so does what the finalizer does.
  Means over clients are left out if training diverged at all of them, or if the
  server turned them away.
  What an aggregation measures (clipping, noise) becomes `aggregator_<path>`,
  or `averager_<path>` where weights are averaged, or `metrics_<path>` where
  metrics are secure sums; structures and arrays are left out.

  Args:
    measurements: Measurements of a process of `composer.compose_process`.
  """
  work = measurements['client_work']
  diverged = diverged_everywhere(measurements)
  terms = {'loss', 'cross_entropy'}
  terms |= {term for method in registry.methods() for term in method.terms}
  columns = collections.OrderedDict()
  for name, value in work.items():
    if diverged and (name in terms or name in _GAUGES):
      continue
    column = f'loss_{name}' if name in terms and name != 'loss' else name
    columns[column] = np.asarray(value).item()
  for name, value in dict(measurements.get('screening') or {}).items():
    if np.ndim(value) == 0:
      columns[name] = np.asarray(value).item()
  finalizer = dict(measurements.get('finalizer') or {})
  for name, value in finalizer.items():
    columns[name] = np.asarray(value).item()
  if 'server_loss' not in finalizer and not columns.get('server_nonfinite'):
    columns.pop('server_nonfinite', None)
  for part in ('aggregator', 'averager', 'metrics'):
    columns.update(_scalars(part, measurements.get(part)))
  # The column of this name is the server's, with the classes that it keeps.
  columns.pop('aggregator_classes_present', None)
  return columns


def field_columns(outcome: outcomes.Outcome, simulated_seconds: float) -> Row:
  """Returns the columns about the clients of a round.

  Args:
    outcome: Outcome of the round.
    simulated_seconds: Simulated time of all rounds so far, this one included.
  """
  return {
    'clients_available': outcome.available,
    'clients_returned': len(outcome.returned),
    'clients_dropped': len(outcome.dropped),
    'clients_late': len(outcome.late),
    'clients_partial': len(outcome.partial),
    'simulated_seconds_round': outcome.seconds,
    'simulated_seconds': simulated_seconds,
  }


def attack_columns(counts: Sequence[Mapping[str, int]]) -> Row:
  """Returns the rates of success of a targeted attack.

  Args:
    counts: One entry per honest client that has the target class. It counts
      the test examples that each classifier took for the moved class.
  """
  summary = client_evaluation.summarize(counts)
  return {
    f'attack_success_{name}': summary[f'{name}_accuracy']
    for name in client_evaluation.CLASSIFIERS
    if f'{name}_accuracy' in summary
  }


def privacy_columns(
  server_state: composer.ServerState, account: accounting.Account
) -> Row:
  """Returns the columns about the privacy of all rounds so far.

  Args:
    server_state: State of the server; it counts the rounds.
    account: Account of the run.
  """
  return {'dp_epsilon': account.epsilon(int(server_state.round_num))}


def diverged_everywhere(measurements: Mapping[str, Any]) -> bool:
  """Returns whether no client that trained in a round counts.

  Training diverged at these clients, or the server turned them away.

  Args:
    measurements: Measurements of a process of `composer.compose_process`.
  """
  work = measurements['client_work']
  excluded = work.get('clients_nonfinite', 0)
  excluded += (measurements.get('screening') or {}).get('clients_rejected', 0)
  return (
    np.asarray(work.get('clients_trained', 1)).item() == 0
    and np.asarray(excluded).item() > 0
  )


def _scalars(path: str, measured: Any) -> Row:
  """Returns the numbers of a structure of measurements, named by their path."""
  if hasattr(measured, '_asdict'):
    measured = measured._asdict()
  if isinstance(measured, Mapping):
    parts = [_scalars(f'{path}_{name}', m) for name, m in measured.items()]
    return {name: value for part in parts for name, value in part.items()}
  if measured is None or isinstance(measured, tuple | list):
    return {}
  value = np.asarray(measured)
  is_number = value.ndim == 0 and np.issubdtype(value.dtype, np.number)
  return {path: value.item()} if is_number else {}


def communication_columns(
  process: composer.StatefulProcess,
  measured: Mapping[str, Any] = types.MappingProxyType({}),
) -> Row:
  """Returns the bytes that a client receives and sends in a round.

  Read off the types of what the process broadcasts and aggregates; client
  states stay with clients and do not count.

  Args:
    process: Process made by `composer.compose_process`.
    measured: Columns of the round (see `training_columns`). A method that
      compresses measures these itself; only averaged weights are added.
  """
  # The round number goes down, too.
  sent = (
    ('bytes_down_per_client', process.broadcast_type, 4),
    ('bytes_up_per_client', process.update_type, 0),
  )
  columns: Row = {}
  size = measured.get('averager_mean_size')
  for name, value_type, more in sent:
    if name not in measured:
      columns[name] = bytes_of_type(value_type, size) + more
    elif process.averages_weights:
      columns[name] = measured[name] + bytes_of_type(value_type[1], size)
    else:
      columns[name] = measured[name]
  return columns


def bytes_of_type(
  value_type: tff.Type, size: Optional[float] = None
) -> int | float:
  """Returns the size of the values of a type.

  Args:
    value_type: Type with static shapes.
    size: Length of vectors of unknown length, the mean where they differ.

  Raises:
    ValueError: If a shape is neither static nor one of such vectors.
  """
  total: int | float = 0
  for leaf in tff.structure.flatten(value_type):
    shape = tf.TensorShape(leaf.shape)
    if size is not None and shape.rank == 1 and shape[0] is None:
      total += size * np.dtype(leaf.dtype).itemsize
      continue
    if not shape.is_fully_defined():
      raise errors.UserError(f'Values of {leaf} have no fixed size.')
    total += shape.num_elements() * np.dtype(leaf.dtype).itemsize
  return total


def memory_columns() -> Row:
  """Returns the resident memory of this process and of its children."""
  this = psutil.Process()
  children = 0
  for child in this.children(recursive=True):
    try:
      children += child.memory_info().rss
    except psutil.NoSuchProcess:
      pass
  resident = this.memory_info().rss
  return {
    'memory_python_mb': resident / 1e6,
    'memory_children_mb': children / 1e6,
    'memory_peak_mb': max(_peak_resident(), resident) / 1e6,
  }


def _peak_resident() -> int:
  if os.name != 'posix':
    return 0
  import resource  # Not on every system.

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
