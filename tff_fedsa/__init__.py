"""FedSA, federated learning through semantic anchors, in TensorFlow Federated.

  import tff_fedsa

  result = tff_fedsa.Experiment(
    task=tff_fedsa.TaskSpec(dataset='digits', num_clients=20, alpha=0.1),
    algorithm='fedsa', family='digits3', feature_dim=64,
  ).run(total_rounds=20)
  result.client(3).predict(images)

These names are imported on first use:

  Experiment                describes a run, and runs it
  load_run                  loads a run from its directory
  presets                   names for `Experiment.from_preset`
  Result, TrainedModel      the result of a run; the model of a client
  TaskSpec                  the data set, and its partition
  FederatedTask             the data of all clients
  ClientExamples            the data of one client
  load_task                 loads the task of a specification
  InputSpec                 how models read stored images
  FunctionalModel           a Keras model as functions of its weights
  KerasClientModel          extractor and head of a client's model
  register_architecture     registers your own architecture by name
  build_family              builds the models of a family
  FedSAConfig, build_fedsa  FedSA's settings, and its process
  SimulationConfig          settings of the round loop
  run_simulation            the round loop itself
  MemoryStore, DiskStore    stores of client states
  set_in_process_context    makes this process TFF's runtime
  to_keras                  a client's model as a Keras model
  data                      own arrays, tables and texts as a task

Everything else is in modules, and may change. `tff_fedsa.composer` draws one
round from top to bottom. docs/python.md is the guide.
"""

import importlib
import os
from typing import Any
import warnings

# TensorFlow reads this when it is imported. Its C++ notes on CPUs, CUDA and
# graphs would bury all other output.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# Name -> module below tff_fedsa, and name there.
_NAMES = {
  'ClientExamples': ('data.tasks', 'ClientExamples'),
  'DiskStore': ('client.client_store', 'DiskStore'),
  'Experiment': ('experiment', 'Experiment'),
  'FedSAConfig': ('algorithms.fedsa', 'FedSAConfig'),
  'FederatedTask': ('data.tasks', 'FederatedTask'),
  'FunctionalModel': ('models.functional', 'FunctionalModel'),
  'InputSpec': ('data.input_spec', 'InputSpec'),
  'KerasClientModel': ('models.functional', 'KerasClientModel'),
  'MemoryStore': ('client.client_store', 'MemoryStore'),
  'Result': ('runs.results', 'Result'),
  'SimulationConfig': ('simulation', 'SimulationConfig'),
  'TaskSpec': ('data.task_spec', 'TaskSpec'),
  'TrainedModel': ('runs.results', 'TrainedModel'),
  'build_family': ('models.families', 'build_family'),
  'build_fedsa': ('algorithms.fedsa', 'build_fedsa'),
  'load_run': ('experiment', 'load_run'),
  'load_task': ('data.tasks', 'load_task'),
  'presets': ('runs.presets', 'names'),
  'register_architecture': ('models.architectures', 'register_architecture'),
  'run_simulation': ('simulation', 'run'),
  'set_in_process_context': (
    'execution.in_process.contexts',
    'set_in_process_context',
  ),
  'to_keras': ('runs.exporting', 'to_keras'),
}

__all__ = [*_NAMES, '__version__', 'data']

# Modules that moved into a room after version 0.1: name -> room.
_MOVED = {
  **dict.fromkeys(
    ('client_state', 'client_store', 'client_work', 'companion'), 'client'
  ),
  **dict.fromkeys(('local_optimizer', 'local_training'), 'client'),
  **dict.fromkeys(('server_model', 'server_training', 'averaging'), 'server'),
  **dict.fromkeys(('distribution', 'finalizers'), 'server'),
  **dict.fromkeys(('losses', 'margins', 'distances', 'finite'), 'maths'),
  **dict.fromkeys(('prototypes', 'anchors', 'low_rank'), 'maths'),
  **dict.fromkeys(('checkpoints', 'metrics', 'exporting'), 'runs'),
  'global_evaluation': 'evaluation',
}


def __getattr__(name: str) -> Any:
  if name == '__version__':
    from importlib import metadata

    value: Any = metadata.version('tff_fedsa')
  elif name in _NAMES:
    module, attribute = _NAMES[name]
    value = getattr(importlib.import_module(f'{__name__}.{module}'), attribute)
  elif name == 'data':
    value = importlib.import_module(f'{__name__}.data')
  elif name in _MOVED:
    place = f'{__name__}.{_MOVED[name]}.{name}'
    warnings.warn(
      f'tff_fedsa.{name} is now {place}', DeprecationWarning, stacklevel=2
    )
    value = importlib.import_module(place)
  else:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  # Python finds the name itself the next time.
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
