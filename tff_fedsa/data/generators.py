"""Clients made by formulas: sensors and texts that cannot be shipped."""

import numpy as np

from tff_fedsa.data import sources
from tff_fedsa.data import texts

NAMES = ('sensor_clients', 'text_clients')

_SENSOR_CLASSES = 6
_TEXT_CLASSES = 4

# Words of all classes, of one class, and of one client.
_COMMON, _OF_CLASS, _OF_CLIENT = 400, 30, 20


def make_sensor_clients(
  num_clients: int = 20,
  *,
  examples_per_client: int = 60,
  num_classes: int = _SENSOR_CLASSES,
  steps: int = 64,
  channels: int = 3,
  alpha: float = 0.5,
  noise: float = 1.0,
  seed: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Makes clients that wear a sensor, each in its own way.

  A window of client m and class y is, at step t of T and channel k,

    x[t, k] = g_m a[y, k] sin(2 pi f_y t / T + phi + psi[y, k]) + o[m, k] + e

  with f_y = 1 + y / 2 cycles, amplitudes a ~ N(0, 1) and phases psi ~ U(0, 2
  pi) of the class, a gain g_m ~ U(0.5, 1.5) and offsets o ~ N(0, 1) of the
  client, a phase phi ~ U(0, 2 pi) of the window, and e ~ N(0, noise^2).

  Args:
    num_clients: Number of clients.
    examples_per_client: Windows of each.
    num_classes: C.
    steps: T.
    channels: K.
    alpha: A client's classes are drawn by Dirichlet(alpha), > 0.
    noise: Standard deviation of e.
    seed: Seed of everything; classes stay the same with other clients.

  Returns:
    For each client, float32[examples_per_client, steps, channels] and
    int32[examples_per_client].
  """
  rng = np.random.default_rng([seed, 0])
  amplitude = rng.normal(size=[num_classes, channels])
  shift = rng.uniform(0, 2 * np.pi, [num_classes, channels])
  time = 2 * np.pi * np.arange(steps)[:, None] / steps
  clients = []
  for client in range(num_clients):
    rng = np.random.default_rng([seed, 1, client])
    labels = _labels(rng, num_classes, examples_per_client, alpha)
    gain, offset = rng.uniform(0.5, 1.5), rng.normal(size=channels)
    phase = rng.uniform(0, 2 * np.pi, [examples_per_client, 1, 1])
    cycles = (1 + labels / 2)[:, None, None]
    waves = np.sin(cycles * time + phase + shift[labels][:, None])
    windows = gain * amplitude[labels][:, None] * waves + offset
    windows += noise * rng.normal(size=windows.shape)
    clients.append((windows.astype(np.float32), labels))
  return clients


def make_text_clients(
  num_clients: int = 20,
  *,
  examples_per_client: int = 60,
  num_classes: int = _TEXT_CLASSES,
  mean_length: int = 12,
  alpha: float = 0.5,
  topic_share: float = 0.15,
  seed: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Makes clients that write texts, each with words of its own.

  A text of client m and class y has 3 + Poisson(mean_length - 3) words. Each
  is, with probability `topic_share`, one of 30 words of the class, all alike;
  with probability 0.1 one of 20 words of the client, all alike; otherwise the
  r-th of 400 common words with probability proportional to 1 / r (Zipf).

  Args:
    num_clients: Number of clients.
    examples_per_client: Texts of each.
    num_classes: C.
    mean_length: Mean number of words, >= 3.
    alpha: A client's classes are drawn by Dirichlet(alpha), > 0.
    topic_share: Probability of a word of the class, in [0, 0.9].
    seed: Seed of everything.

  Returns:
    For each client, texts[examples_per_client] and int32[examples_per_client].
  """
  zipf = 1.0 / np.arange(1, _COMMON + 1)
  zipf /= zipf.sum()
  clients = []
  for client in range(num_clients):
    rng = np.random.default_rng([seed, 2, client])
    labels = _labels(rng, num_classes, examples_per_client, alpha)
    lengths = 3 + rng.poisson(mean_length - 3, examples_per_client)
    written = []
    for label, length in zip(labels, lengths):
      origin = rng.random(length)
      common = rng.choice(_COMMON, length, p=zipf)
      of_class = rng.integers(_OF_CLASS, size=length)
      of_client = rng.integers(_OF_CLIENT, size=length)
      written.append(
        ' '.join(
          f'topic{label}x{of_class[i]}'
          if origin[i] < topic_share
          else f'client{client}x{of_client[i]}'
          if origin[i] < topic_share + 0.1
          else f'word{common[i]}'
          for i in range(length)
        )
      )
    clients.append((np.array(written), labels))
  return clients


def read(
  name: str,
  *,
  num_clients: int,
  alpha: float,
  seed: int,
  sequence_length: int = texts.SEQUENCE_LENGTH,
) -> sources.Source:
  """Returns the examples of made clients, by name.

  Args:
    name: One of `NAMES`.
    num_clients: See the generators.
    alpha: See the generators.
    seed: See the generators.
    sequence_length: See `texts.encoded`; of texts only.
  """
  words: tuple[str, ...] = ()
  if name == 'sensor_clients':
    clients = make_sensor_clients(num_clients, alpha=alpha, seed=seed)
    inputs, num_classes = (
      np.concatenate([x for x, _ in clients]),
      _SENSOR_CLASSES,
    )
  else:
    clients = make_text_clients(num_clients, alpha=alpha, seed=seed)
    inputs, words = texts.encoded(
      np.concatenate([x for x, _ in clients]),
      sequence_length=sequence_length,
      what=name,
    )
    num_classes = _TEXT_CLASSES
  return sources.Source(
    name=name,
    images=inputs,
    labels=np.concatenate([y for _, y in clients]),
    class_names=tuple(map(str, range(num_classes))),
    client_ids=np.repeat(
      [f'client {m:0{len(str(num_clients))}d}' for m in range(num_clients)],
      [len(y) for _, y in clients],
    ),
    words=words,
    sorted_as='by client, as they are made',
  )


def _labels(
  rng: np.random.Generator, num_classes: int, count: int, alpha: float
) -> np.ndarray:
  shares = rng.dirichlet(np.full(num_classes, alpha))
  return rng.choice(num_classes, count, p=shares).astype(np.int32)
