"""Writes a client's trained model, or the averaged one, as a Keras model.

  tff-fedsa export --run_dir=runs/fedsa.digits --client=3
  tff-fedsa export --run_dir=runs/fedavg
  tff-fedsa export --run_dir=runs/tiers --architecture=digits_mlp

The others write averaged models: of FedAvg, FedProx, --protocol=global, and of
an architecture with --share_weights=model.

The exported model takes images with the pixel values of the data set, not
scaled. It returns a dict: the scores of each classifier of the method (`head`,
`prototype`, `anchor`, `global_head`), and the `features`. The argmax of the
scores is the predicted class. To use the model elsewhere:

  import tensorflow as tf
  # Only for layers of tff_fedsa: pooling, standardization, vit_layers.
  import tff_fedsa.models.pooling
  model = tf.keras.models.load_model('runs/fedsa.digits/client_3.keras')
  classes = model(images)['head'].numpy().argmax(axis=1)
"""

from collections.abc import Sequence
import os

from absl import flags

from launch import errors
from launch import runner
from tff_fedsa import experiment
from tff_fedsa.execution import imports
from tff_fedsa.runs import directory
from tff_fedsa.runs import errors as errors_lib

_RUN_DIR = flags.DEFINE_string(
  'run_dir', None, 'Directory of the run, as `tff-fedsa train` printed it.'
)
_ROUND = flags.DEFINE_integer(
  'round', None, 'Round of the checkpoint. Default: the latest.', lower_bound=0
)
_CLIENT = flags.DEFINE_integer(
  'client',
  None,
  'Number of the client, from 0. Not for averaged models.',
  lower_bound=0,
)
_ARCHITECTURE = flags.DEFINE_string(
  'architecture',
  None,
  'Architecture whose averaged model is written. Needed only if the run has '
  'several.',
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'File to write, ending in .keras. Default: client_<i>.keras, averaged.keras '
  'or averaged_<architecture>.keras, in the run directory.',
)
flags.mark_flag_as_required('run_dir')


def main(argv: Sequence[str]) -> None:
  """Exports."""
  errors.refuse_arguments(argv)
  with errors.reported():
    export()


def export() -> None:
  """Writes the model that the flags name."""
  client, architecture = _CLIENT.value, _ARCHITECTURE.value
  if client is not None:
    name = f'client_{client}'
  else:
    name = f'averaged_{architecture}' if architecture else 'averaged'
  path = _OUTPUT.value or os.path.join(_RUN_DIR.value, f'{name}.keras')
  if not path.endswith('.keras'):
    raise errors_lib.UserError(
      f'Expected --output to end in .keras, found {path!r}.'
    )
  imports.quickly('tensorflow_federated')
  result = experiment.load_run(_RUN_DIR.value, round_num=_ROUND.value)
  task = result.experiment.task
  if client is not None and architecture is not None:
    raise errors_lib.UserError(
      'Expected --client or --architecture, found both.'
    )
  if result.experiment.tests_averaged and client is not None:
    raise directory.RunDirectoryError(
      'All clients of this run have the averaged model: leave out --client.'
    )
  if architecture is not None or (
    client is None and result.experiment.averages_models
  ):
    described, model = 'the averaged model', result.averaged(architecture)
  elif client is None or client >= task.num_clients:
    raise directory.RunDirectoryError(
      f'Expected --client in [0, {task.num_clients}), found {client}.'
    )
  else:
    described, model = f'client {client}', result.client(client)
  model.save(path)
  print(
    f'wrote {path}: {described} ({model.name}) after round '
    f'{result.round_num}, classes {", ".join(task.class_names[:10])}'
    + (', …' if task.num_classes > 10 else '')
  )


if __name__ == '__main__':
  runner.run(main)
