"""Computations that tests share.

To build and compile a process takes seconds, and many tests describe the same
one by its settings.
"""

import functools

from tff_fedsa import experiment as experiment_lib
from tff_fedsa.execution.in_process import contexts as contexts_lib

_built = {}
_contexts = {}
# Settings of the loop and of the runtime: no computation depends on them.
_WITHOUT_EFFECT = {
  'availability',
  'certificates',
  'client_states',
  'client_states_memory_gb',
  'device_speed',
  'directory_layout',
  'experiment_name',
  'insecure',
  'intra_op_threads',
  'max_concurrent_clients',
  'max_failed_rounds',
  'progress',
  'ray_address',
  'root_output_dir',
  'rounds_per_checkpoint',
  'rounds_per_evaluation',
  'runtime',
  'total_rounds',
  'workers',
}


def share_computations(patch):
  """Makes experiments with equal settings share what they build.

  Experiments with data or models of their own build it themselves, because
  these are no settings.

  Args:
    patch: A `pytest.MonkeyPatch`, whose end is the end of the sharing.
  """
  for name in ('models', 'process', 'evaluate'):
    build = vars(experiment_lib.Experiment)[name].func
    shared = functools.cached_property(functools.partial(_shared, name, build))
    shared.__set_name__(experiment_lib.Experiment, name)
    patch.setattr(experiment_lib.Experiment, name, shared)


def _shared(name, build, experiment):
  if experiment._own_task is not None or experiment._own_models is not None:
    return build(experiment)
  settings = {
    name: value
    for name, value in experiment.flags().items()
    if name not in _WITHOUT_EFFECT
  }
  # The noise of differential privacy follows from rounds and participants.
  key = name, repr(settings), repr(experiment.account)
  if key not in _built:
    _built[key] = build(experiment)
  return _built[key]


def share_contexts(patch):
  """Makes in-process contexts with equal options one, which compiles once.

  Args:
    patch: A `pytest.MonkeyPatch`, whose end is the end of the sharing.
  """
  create = contexts_lib.create_in_process_context

  def shared(**options):
    key = repr(sorted(options.items()))
    if key not in _contexts:
      _contexts[key] = create(**options)
    return _contexts[key]

  patch.setattr(contexts_lib, 'create_in_process_context', shared)
