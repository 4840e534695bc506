"""Sizes of architectures beside torchvision's, and the cost of a family.

  python -m benchmarks.model_sizes
  python -m benchmarks.model_sizes --family=HtFE8 --num_clients=20

The first prints, of every architecture, the trainable parameters of feature
extractor and head, the numbers that move otherwise (BatchNorm statistics), and
the megabytes of a client's weights; and, where torchvision defines the model,
its trainable parameters without its own head. The second builds a family and
traces FedSA's process, and prints how long that took, how large the client
states are, and the peak of memory.
"""

from collections.abc import Sequence
import resource
import time
from typing import Optional

from absl import app
from absl import flags

from launch import runner

_FAMILY = flags.DEFINE_string(
  'family', None, 'Measures this family instead of printing the table.'
)
_NUM_CLIENTS = flags.DEFINE_integer(
  'num_clients', 20, 'Clients whose states are counted.', lower_bound=1
)
_NUM_CLASSES = flags.DEFINE_integer('num_classes', 10, 'C.', lower_bound=2)
_FEATURE_DIM = flags.DEFINE_integer('feature_dim', 512, 'D.', lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_integer(
  'image_size', 32, 'Height and width of images.', lower_bound=1
)


def main(argv: Sequence[str]) -> None:
  """Prints sizes or costs as the flags say."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  if _FAMILY.value:
    _measure_family()
  else:
    _print_table()


# By the beginning of names: shape of one input, and the vocabulary of tokens.
_OTHER_INPUTS = {
  'table_': ((14,), None),
  'sensor_': ((128, 9), None),
  'harcnn': ((128, 9), None),
  'text_': ((64,), 10_000),
  'txt_': ((64,), 10_000),
}


def _input(name: str) -> tuple[tuple[int, ...], Optional[int]]:
  """Returns the shape of inputs of an architecture, and their vocabulary."""
  for beginning, found in _OTHER_INPUTS.items():
    if name.startswith(beginning):
      return found
  return _image_shape(name), None


def _image_shape(name: str) -> tuple[int, int, int]:
  """Returns the image shape of an architecture."""
  if name.startswith(('digits', 'mlp')):
    return 8, 8, 1
  channels = 1 if name.startswith('hcnn') else 3
  return _IMAGE_SIZE.value, _IMAGE_SIZE.value, channels


def _print_table() -> None:
  from benchmarks import parameter_counts  # Imports TensorFlow.
  from tff_fedsa.models import architectures

  print(
    '| architecture | extractor | torchvision | head | state | MB |\n'
    '|---|---|---|---|---|---|'
  )
  for name in architectures.names():
    shape, vocabulary_size = _input(name)
    found = parameter_counts.sizes(
      name, shape, _NUM_CLASSES.value, _FEATURE_DIM.value, vocabulary_size
    )
    theirs = parameter_counts.torchvision_extractor(name)
    print(
      f'| {name} | {found.extractor:,} | '
      f'{"" if theirs is None else f"{theirs:,}"} | {found.head:,} | '
      f'{found.state:,} | {4 * sum(found) / 1e6:.1f} |',
      flush=True,
    )


def _measure_family() -> None:
  from tff_fedsa.algorithms import fedsa
  from tff_fedsa.client import client_state
  from tff_fedsa.client import client_store
  from tff_fedsa.data import input_spec
  from tff_fedsa.models import families

  shape = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)
  start = time.monotonic()
  models = families.build_family(
    _FAMILY.value, shape, _NUM_CLASSES.value, _FEATURE_DIM.value
  )
  built = time.monotonic()
  turns = families.turns(_FAMILY.value)
  fedsa.build_fedsa(models, input_spec=input_spec.InputSpec(shape))
  traced = time.monotonic()
  num_bytes = client_store.population_bytes(
    client_state.build_initial_state_fn(models, turns=turns),
    _NUM_CLIENTS.value,
    turns,
  )
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(
    f'models built: {built - start:.1f} s\n'
    f'process built and traced: {traced - built:.1f} s\n'
    f'states of {_NUM_CLIENTS.value} clients: {num_bytes / 1e9:.3f} GB\n'
    f'peak memory: {peak / 1e6:.1f} GB'
  )


if __name__ == '__main__':
  runner.run(main)
