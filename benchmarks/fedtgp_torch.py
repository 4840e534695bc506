"""Measures how FedTGP's first rounds differ between seeds, in PyTorch.

  pip install torch torchvision
  python -m benchmarks.fedtgp_torch

FedTGP by the authors' recipe in PyTorch, independent of this library and small
enough to be read beside it: their partition of digits, their models, the order
in which they send prototypes. Each seed draws initial weights, generator and
the server's order of prototypes. Prints the accuracy of the nearest prototype
by round, then mean, standard deviation and range over seeds beside the authors'
one run. PyTorch is not among this project's dependencies.
"""

from collections.abc import Sequence
import pathlib
import typing
from typing import Any

from absl import app
from absl import flags
import numpy as np
from sklearn import datasets

if typing.TYPE_CHECKING:
  import torch

_SEEDS = flags.DEFINE_integer('num_seeds', 20, 'Runs.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('num_rounds', 5, 'Rounds.', lower_bound=1)
_TESTDATA = pathlib.Path(__file__).parents[1] / 'tests/testdata/reference_runs'
_FEATURE_DIM, _NUM_CLASSES = 512, 10
_LEARNING_RATE, _BATCH_SIZE = 0.01, 10
_LAMBDA, _SERVER_EPOCHS, _MAX_MARGIN = 10.0, 100, 100.0


def _fedavg_cnn() -> 'torch.nn.Module':
  from torch import nn

  return nn.Sequential(
    nn.Conv2d(3, 32, 5),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 5),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(1600, _FEATURE_DIM),
    nn.ReLU(),
  )


def _resnet8() -> 'torch.nn.Module':
  from torch import nn
  from torchvision.models import resnet

  model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1])
  model.layer4 = nn.Identity()
  model.fc = nn.AdaptiveAvgPool1d(_FEATURE_DIM)
  return model


def _generator() -> 'torch.nn.Module':
  from torch import nn

  return nn.Sequential(
    nn.Embedding(_NUM_CLASSES, _FEATURE_DIM),
    nn.Linear(_FEATURE_DIM, _FEATURE_DIM),
    nn.ReLU(),
    nn.Linear(_FEATURE_DIM, _FEATURE_DIM),
  )


def _load() -> tuple['torch.Tensor', 'torch.Tensor']:
  """Returns digits like the authors' clients: 32x32, 3 channels."""
  import torch

  digits = datasets.load_digits()
  images = torch.tensor(digits.images / 16.0, dtype=torch.float32)
  images = torch.nn.functional.interpolate(
    images[:, None], (32, 32), mode='bilinear', align_corners=False
  )
  return (images.repeat(1, 3, 1, 1) - 0.5) / 0.5, torch.tensor(digits.target)


class _Client:
  """A client: its model, and its examples in order, in whole batches."""

  def __init__(self, index: int, seed: int, images: Any, labels: Any):
    import torch

    with np.load(_TESTDATA / 'digits_a0.1_s0.npz') as partition:
      train, self.test = partition[f'train_{index}'], partition[f'test_{index}']
    whole = len(train) - len(train) % _BATCH_SIZE
    self.batches = np.split(
      train[:whole], range(_BATCH_SIZE, whole, _BATCH_SIZE)
    )
    self.images, self.labels = images, labels
    # Clients of an architecture have the same initial weights.
    torch.manual_seed(seed)
    self.base = _resnet8() if index % 2 else _fedavg_cnn()
    self.head = torch.nn.Linear(_FEATURE_DIM, _NUM_CLASSES)

  def prototypes(self) -> dict[int, 'torch.Tensor']:
    """Returns the mean features of each class, in inference mode."""
    import torch

    self.base.eval()
    with torch.no_grad():
      features = torch.cat([self.base(self.images[b]) for b in self.batches])
    labels = self.labels[np.concatenate(self.batches)]
    return {int(c): features[labels == c].mean(0) for c in labels.unique()}

  def train(self, known: 'torch.Tensor | None') -> None:
    """One local epoch, pulled to the known prototypes if there are any."""
    import torch
    from torch.nn import functional

    self.base.train()
    weights = [*self.base.parameters(), *self.head.parameters()]
    optimizer = torch.optim.SGD(weights, _LEARNING_RATE)
    for batch in self.batches:
      features, labels = self.base(self.images[batch]), self.labels[batch]
      loss = functional.cross_entropy(self.head(features), labels)
      if known is not None:
        loss = loss + _LAMBDA * functional.mse_loss(features, known[labels])
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()

  def num_correct(self, known: 'torch.Tensor') -> int:
    import torch

    self.base.eval()
    with torch.no_grad():
      distances = torch.cdist(self.base(self.images[self.test]), known)
    return int((distances.argmin(1) == self.labels[self.test]).sum())


def _margin(sent: Sequence[dict[int, 'torch.Tensor']]) -> float:
  import torch

  means = {
    c: torch.stack([one[c] for one in sent if c in one]).mean(0)
    for c in {c for one in sent for c in one}
  }
  gaps = [
    min(float((means[a] - means[b]).norm()) for b in means if b != a)
    for a in means
  ]
  return min(max(gaps), _MAX_MARGIN)


def _train_generator(
  generator: 'torch.nn.Module', sent: Sequence[dict[int, 'torch.Tensor']]
) -> 'torch.Tensor':
  """Trains the server's generator, and returns its prototypes."""
  import torch
  from torch.nn import functional

  vectors = torch.stack([one[c] for one in sent for c in one])
  labels = torch.tensor([c for one in sent for c in one])
  classes, margin = torch.arange(_NUM_CLASSES), _margin(sent)
  optimizer = torch.optim.SGD(generator.parameters(), _LEARNING_RATE)
  for _ in range(_SERVER_EPOCHS):
    for batch in torch.randperm(len(vectors)).split(_BATCH_SIZE):
      distances = torch.cdist(vectors[batch], generator(classes))
      is_true_class = functional.one_hot(labels[batch], _NUM_CLASSES)
      loss = functional.cross_entropy(
        -(distances + margin * is_true_class), labels[batch]
      )
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
  return generator(classes).detach()


def run(seed: int, num_rounds: int) -> list[float]:
  """Returns the accuracy after each round."""
  import torch

  images, labels = _load()
  clients = [_Client(index, seed, images, labels) for index in range(20)]
  torch.manual_seed(1000 + seed)
  generator, known, accuracies = _generator(), None, []
  for _ in range(num_rounds):
    sent = []
    for client in clients:
      # Before training, as in the authors' code.
      sent.append(client.prototypes())
      client.train(known)
    known = _train_generator(generator, sent)
    correct = sum(client.num_correct(known) for client in clients)
    accuracies.append(correct / sum(len(client.test) for client in clients))
  return accuracies


def main(argv: Sequence[str]) -> None:
  """Runs all seeds, and prints."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  from benchmarks import reference_curves

  authors = reference_curves.reference_accuracy('fedtgp')
  rows = []
  for seed in range(_SEEDS.value):
    rows.append(run(seed, _ROUNDS.value))
    print(f'seed {seed}: {np.round(rows[-1], 3)}', flush=True)
  for name, values in {
    'mean': np.mean(rows, axis=0),
    'standard deviation': np.std(rows, axis=0, ddof=1),
    'smallest': np.min(rows, axis=0),
    'largest': np.max(rows, axis=0),
    'authors, one seed': authors[1 : _ROUNDS.value + 1],
  }.items():
    print(f'{name}: {np.round(values, 3)}')


if __name__ == '__main__':
  app.run(main)
