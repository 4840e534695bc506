"""Requests to one worker, and checks that it is alive."""

import collections
from collections.abc import Callable
import os
import threading
import time
from typing import Any, Optional
import weakref

import grpc
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.proto.v0 import executor_pb2_grpc
from tensorflow_federated.python.core.impl.executors import executors_errors
from tensorflow_federated.python.core.impl.executors import value_serialization

from tff_fedsa.execution import functions
from tff_fedsa.execution import parcels
from tff_fedsa.execution.in_process import cancellation
from tff_fedsa.execution.in_process import operation_errors

# gRPC's own handlers of fork() crash the new process now and then while other
# threads make requests. No channel is used after a fork here. Read with the
# first channel.
os.environ.setdefault('GRPC_ENABLE_FORK_SUPPORT', '0')

_CANCELLATION_POLL_SECONDS = 0.1
_CHANNEL_OPTIONS = (
  ('grpc.max_send_message_length', parcels.MAX_MESSAGE_BYTES),
  ('grpc.max_receive_message_length', parcels.MAX_MESSAGE_BYTES),
  # Workers are on a private network or behind a tunnel. The web proxy of
  # environment variables does not apply.
  ('grpc.enable_http_proxy', 0),
  # Restarted workers are found soon.
  ('grpc.use_local_subchannel_pool', 1),
  ('grpc.initial_reconnect_backoff_ms', 200),
  ('grpc.max_reconnect_backoff_ms', 1000),
)


class WorkerLostError(Exception):
  """The worker no longer answers."""


class Connection:
  """A connection to a worker. A lost connection stays lost: open another.

  Attributes:
    address: 'host:port' of the worker.
    why_lost: Reason for the loss, or None while the connection works.
  """

  def __init__(self, address: str, patience_seconds: float):
    """Starts to connect.

    Args:
      address: 'host:port'.
      patience_seconds: A worker that is silent for this time is lost. Workers
        answer while they compute, so clients may take longer.
    """
    self.address = address
    self.why_lost: Optional[str] = None
    self._patience = patience_seconds
    self._channel = grpc.insecure_channel(address, _CHANNEL_OPTIONS)
    self._stub = executor_pb2_grpc.ExecutorGroupStub(self._channel)
    self._executor: Optional[executor_pb2.ExecutorId] = None
    # Values that were sent once, and values to forget with the next request.
    self._kept: weakref.WeakKeyDictionary[Any, executor_pb2.ValueRef] = (
      weakref.WeakKeyDictionary()
    )
    self._keeping = threading.Lock()
    self._unneeded: collections.deque[executor_pb2.ValueRef] = (
      collections.deque()
    )
    self._answered_at = 0.0
    # A worker's TFF needs a number of clients, although nothing is placed.
    self._question = self._stub.GetExecutor.future(
      executor_pb2.GetExecutorRequest(
        cardinalities=value_serialization.serialize_cardinalities(
          {tff.CLIENTS: 0}
        )
      ),
      timeout=patience_seconds,
      wait_for_ready=True,
    )

  @property
  def is_open(self) -> bool:
    return self.was_open and self.why_lost is None

  @property
  def was_open(self) -> bool:
    return self._executor is not None

  def poll(self) -> None:
    """Checks whether the worker has answered, and asks again in time.

    gRPC's own keep-alive does not work: TFF's worker treats pings more often
    than every 5 minutes as abuse.
    """
    if self.why_lost is not None:
      return
    if self._question is not None and self._question.done():
      try:
        answer = self._question.result()
      except (grpc.RpcError, grpc.FutureCancelledError) as error:
        self._lose(error)
        return
      if self._executor is None:
        self._executor = answer.executor
      else:
        self._unneeded.append(answer.value_ref)
      self._question = None
      self._answered_at = time.monotonic()
    silence = time.monotonic() - self._answered_at
    if self._question is None and silence > self._patience / 6:
      try:
        self._question = self._request(
          self._stub.CreateStruct, self._probe(), timeout=self._patience
        )
      except WorkerLostError:
        pass  # The next call sees it.

  def close(self) -> None:
    """Frees the values of this connection at the worker."""
    if self.is_open:
      try:
        self._stub.DisposeExecutor(
          executor_pb2.DisposeExecutorRequest(executor=self._executor),
          timeout=1.0,
        )
      except (grpc.RpcError, ValueError):
        pass  # The value is freed when the worker ends.
    self._lose('The connection was closed.')

  def run(
    self,
    function: functions.Remote,
    argument_plan: Optional[parcels.Plan],
    argument: Any,
    call: cancellation.Cancellation,
  ) -> Any:
    """Returns the result of a function, computed by the worker.

    Args:
      function: Result of `functions.to_send`.
      argument_plan: Plan of the argument's messages, or None without argument.
      argument: The argument.
      call: Stops the waiting. The worker still finishes its computation.

    Raises:
      WorkerLostError: If the worker was lost before it answered.
      tf.errors.OpError: If the function failed.
      ValueError: If the argument cannot be sent.
      cancellation.Cancelled: If the call was cancelled.
    """
    created: list[executor_pb2.ValueRef] = []
    request = executor_pb2.CreateCallRequest(executor=self._executor)
    request.function_ref.CopyFrom(
      self._keep(
        function,
        lambda: self._create(
          executor_pb2.Value(computation=function.computation), call
        ),
      )
    )
    result_type = function.type_signature.result
    try:
      if argument_plan is not None:
        request.argument_ref.CopyFrom(
          self._send(argument_plan, argument, created, call)
        )
      result = self._ask(self._stub.CreateCall, request, call).value_ref
      created.append(result)
      in_parts = parcels.returns_in_parts(
        result_type, parcels.num_bytes(argument)
      )
      return self._fetch(result, result_type, in_parts, created, call)
    finally:
      self._unneeded.extend(created)
      self._dispose()

  def _keep(
    self, owner: Any, create: Callable[[], executor_pb2.ValueRef]
  ) -> executor_pb2.ValueRef:
    """Creates a value once, and keeps it as long as its owner exists."""
    with self._keeping:
      ref = self._kept.get(owner)
      if ref is None:
        ref = self._kept[owner] = create()
        forget = weakref.finalize(owner, self._unneeded.append, ref)
        forget.atexit = False
      return ref

  def _send(
    self,
    plan: parcels.Plan,
    value: Any,
    created: list[executor_pb2.ValueRef],
    call: cancellation.Cancellation,
  ) -> executor_pb2.ValueRef:
    if plan.shared is not None:
      once = parcels.Plan(plan.value_type, plan.parts)
      sent: list[executor_pb2.ValueRef] = []
      try:
        ref = self._keep(
          plan, lambda: self._send(once, plan.shared, sent, call)
        )
        # Frees everything except the value itself, which stays as long as the
        # plan.
        sent = sent[:-1]
        return ref
      finally:
        created.extend(sent)
    if plan.parts is None:
      ref = self._create(parcels.serialize(value, plan.value_type), call)
    else:
      request = executor_pb2.CreateStructRequest(executor=self._executor)
      names = tff.structure.name_list_with_nones(plan.value_type)
      for name, part_plan, part in zip(names, plan.parts, value):
        request.element.add(
          name=name, value_ref=self._send(part_plan, part, created, call)
        )
      ref = self._ask(self._stub.CreateStruct, request, call).value_ref
    created.append(ref)
    return ref

  def _create(
    self, message: executor_pb2.Value, call: cancellation.Cancellation
  ) -> executor_pb2.ValueRef:
    request = executor_pb2.CreateValueRequest(
      executor=self._executor, value=message
    )
    return self._ask(self._stub.CreateValue, request, call).value_ref

  def _fetch(
    self,
    ref: executor_pb2.ValueRef,
    result_type: tff.Type,
    in_parts: bool,
    created: list[executor_pb2.ValueRef],
    call: cancellation.Cancellation,
  ) -> Any:
    if in_parts and isinstance(result_type, tff.StructType):
      parts = []
      for i, (name, part_type) in enumerate(
        tff.structure.iter_elements(result_type)
      ):
        request = executor_pb2.CreateSelectionRequest(
          executor=self._executor, source_ref=ref, index=i
        )
        part = self._ask(self._stub.CreateSelection, request, call).value_ref
        created.append(part)
        parts.append(
          (name, self._fetch(part, part_type, in_parts, created, call))
        )
      return tff.structure.Struct(parts)
    request = executor_pb2.ComputeRequest(
      executor=self._executor, value_ref=ref
    )
    answer = self._ask(self._stub.Compute, request, call)
    return parcels.deserialize(answer.value, result_type)

  def _dispose(self) -> None:
    request = executor_pb2.DisposeRequest(executor=self._executor)
    while self._unneeded:
      try:
        request.value_ref.append(self._unneeded.popleft())
      except IndexError:
        break  # Another thread was faster.
    if self.is_open and request.value_ref:
      try:
        # No caller waits for the answer.
        self._request(self._stub.Dispose, request, timeout=self._patience)
      except WorkerLostError:
        pass  # The worker has lost the values, too.

  def _ask(
    self, method: Any, request: Any, call: cancellation.Cancellation
  ) -> Any:
    """Waits for an answer, as long as the worker is alive."""
    future = self._request(method, request)
    while True:
      try:
        return future.result(timeout=_CANCELLATION_POLL_SECONDS)
      except grpc.FutureTimeoutError:
        if call.is_cancelled:
          future.cancel()
          raise cancellation.Cancelled from None
      except grpc.FutureCancelledError as error:
        raise WorkerLostError(self.why_lost) from error
      except grpc.RpcError as error:
        code = error.code()
        if (
          code in executors_errors.get_grpc_retryable_error_codes()
          or not self._answers()
        ):
          self._lose(error)
        if self.why_lost is not None:
          raise WorkerLostError(self.why_lost) from error
        raise _to_tensorflow(error) from None

  def _request(
    self, method: Any, request: Any, timeout: Optional[float] = None
  ) -> grpc.Future:
    """Sends a request. Another thread may have closed the channel just now."""
    try:
      return method.future(request, timeout=timeout)
    except ValueError as error:
      raise WorkerLostError(self.why_lost) from error

  def _answers(self) -> bool:
    try:
      answer = self._stub.CreateStruct(self._probe(), timeout=self._patience)
    except (grpc.RpcError, ValueError):
      return False
    self._unneeded.append(answer.value_ref)
    return True

  def _probe(self) -> executor_pb2.CreateStructRequest:
    # The smallest request that needs our executor. A restarted worker lacks it.
    return executor_pb2.CreateStructRequest(executor=self._executor)

  def _lose(self, why: Any) -> None:
    if self.why_lost is None:
      self.why_lost = why if isinstance(why, str) else _reason(why)
      # Ends all waiting requests.
      self._channel.close()


def _reason(error: Any) -> str:
  if not isinstance(error, grpc.RpcError):
    return str(error)
  code = error.code()
  if code == grpc.StatusCode.FAILED_PRECONDITION:
    return 'it was started again'
  if code == grpc.StatusCode.DEADLINE_EXCEEDED:
    return 'it does not answer any more'
  return f'{code.name}: {error.details()}'


def _to_tensorflow(error: grpc.RpcError) -> tf.errors.OpError:
  number, _ = error.code().value
  kind = tf.compat.v1.errors.exception_type_from_error_code(number)
  message = error.details().removeprefix('Failed to run computation: ')
  return operation_errors.as_users_catch_it(kind(None, None, message))
