"""Images per second: FedSA in process, a plain loop of its steps, Keras."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import overhead
from launch import devices as devices_program

_STEPS_PER_CLIENT = 20


def workload(model: str, batch_size: int, num_clients: int) -> Any:
  """Returns the workload of a round, 20 steps per client."""
  return overhead.Workload(
    model,
    batch_size,
    num_clients=num_clients,
    num_examples=_STEPS_PER_CLIENT * batch_size,
  )


def measure_contender(
  work: Any, contender: Any, seconds: float
) -> devices_program.Speed:
  """Measures rounds of a contender of `benchmarks.overhead`."""
  state = contender.initial

  def run() -> int:
    nonlocal state
    state = contender.next(state)
    return work.num_clients * work.num_examples

  return devices_program.measure(run, seconds)


def measurements(
  cases: Sequence[tuple[str, int]],
  at_a_time: Sequence[int],
  seconds: float,
  *,
  devices: Any = None,
) -> Iterator[dict[str, Any]]:
  """Yields rows: all cases per number of clients, Keras with the first.

  Args:
    cases: (architecture, batch size).
    at_a_time: Clients computed at a time on each device.
    seconds: Measuring time of each row; one round at least.
    devices: See `contexts.create_in_process_context`.
  """
  built: dict[tuple[str, int], tuple[Any, ...]] = {}
  for number, clients in enumerate(at_a_time):
    for model, batch_size in cases:
      row = {'model': model, 'batch_size': batch_size}
      if number == 0:
        speed = devices_program.measure_keras(model, batch_size, seconds)
        yield {**row, 'what': 'Keras fit', 'at_a_time': 1, **as_dict(speed)}
        work = workload(model, batch_size, max(2, *at_a_time))
        built[model, batch_size] = (
          work,
          overhead.build_federated(work),
          overhead.build_plain_fn(work),
        )
      work, federated, plain_fn = built[model, batch_size]
      set_context(clients, devices)
      for what, contender in (
        ('FedSA in process', federated),
        ('plain loop', plain_fn(clients)),
      ):
        speed = measure_contender(work, contender, seconds)
        yield {**row, 'what': what, 'at_a_time': clients, **as_dict(speed)}


def set_context(clients: int, devices: Any = None) -> None:
  """Makes TFF compute that many clients at a time on each device."""
  from tff_fedsa.execution.in_process import contexts

  contexts.set_in_process_context(
    devices=devices, max_concurrent_clients=clients
  )


def as_dict(speed: devices_program.Speed) -> dict[str, Any]:
  """Returns a speed, with TensorFlow's own memory on the first GPU."""
  import tensorflow as tf

  row: dict[str, Any] = {
    name: value if value is None else round(value, 3)
    for name, value in speed._asdict().items()
  }
  if tf.config.list_logical_devices('GPU'):
    peak = tf.config.experimental.get_memory_info('GPU:0')['peak']
    tf.config.experimental.reset_memory_stats('GPU:0')
    row['tensors_peak_mb'] = round(peak / 2**20, 1)
  return row
