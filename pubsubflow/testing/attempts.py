"""Runs single attempts of tasks in this process."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel
from msgspec import Struct

from pubsubflow.authoring.context import Host
from pubsubflow.authoring.execute import Call, Finished, bind, finish
from pubsubflow.model.messages import (
    NOT_MAPPED,
    EventInfo,
    Outcome,
    PublishedEvent,
    TaskError,
    decode_run_info,
)
from pubsubflow.model.structure import TaskSpec
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.output import TaskOutput
from pubsubflow.testing.given import Given
from pubsubflow.testing.output import Capture


class Ended(Struct, frozen=True):
    """How one attempt ended.

    Attributes:
        finished: What the task gave, after a success.
        exception: What it raised, as it is; None after a success.
    """

    outcome: Outcome
    finished: Finished | None = None
    error: TaskError | None = None
    exception: BaseException | None = None


Publish = Callable[[PublishedEvent], None]
RunSync = Callable[[Callable[[], Ended]], Awaitable[Ended]]


class Instance(Struct, frozen=True):
    """One task, or one instance of a mapped one, that is to run.

    Attributes:
        task: The task, as the run's plan has it.
        indexes: Per factor, which element it has.
    """

    task: TaskSpec
    map_index: int = NOT_MAPPED
    indexes: tuple[int, ...] = ()


class Attempts:
    """Runs attempts: async ones side by side, the others one at a time.

    Args:
        given: The run.
        capture: Keeps what they print.
        run_sync: Runs a function where plain tasks run.
    """

    def __init__(self, given: Given, capture: Capture, run_sync: RunSync) -> None:
        self._given = given
        self._capture = capture
        self._run_sync = run_sync
        self._lane = anyio.Lock()

    async def run(
        self, instance: Instance, attempt: int, output: TaskOutput, publish: Publish
    ) -> Ended:
        """Run one attempt and tell how it ended.

        Args:
            instance: What to run.
            attempt: Counted from 1.
            output: Takes what it prints.
            publish: Takes the events that it publishes.
        """

        def prepare() -> Call:
            return self._bind(instance, attempt, output, publish)

        if instance.task.kind == "async":
            return await self._alongside(instance, output, prepare)
        async with self._lane:
            return await self._run_sync(lambda: self._alone(instance, output, prepare))

    def _alone(self, instance: Instance, output: TaskOutput, prepare: Callable[[], Call]) -> Ended:
        """Run a plain task; one that outlasts its timeout is not stopped, but has failed."""
        began = time.monotonic()
        with self._capture.writing(output, alone=True):
            try:
                call = prepare()
                ended = _succeeded(call, call.run())
            except BaseException as error:  # noqa: BLE001 - the task's, kept in the result
                ended = _failed(error)
        seconds = instance.task.timeout_seconds
        late = seconds is not None and time.monotonic() - began > seconds
        return _timed_out(seconds) if late else ended

    async def _alongside(
        self, instance: Instance, output: TaskOutput, prepare: Callable[[], Call]
    ) -> Ended:
        seconds = instance.task.timeout_seconds
        ended = _timed_out(seconds)
        with self._capture.writing(output), anyio.CancelScope() as scope:
            if seconds is not None:
                scope.deadline = anyio.current_time() + seconds
            try:
                call = prepare()
                ended = _succeeded(call, await call.run())
            except BaseException as error:
                if _is_cancelled(error):
                    raise
                ended = _failed(error)
        return _timed_out(seconds) if scope.cancel_called else ended

    def _bind(self, instance: Instance, attempt: int, output: TaskOutput, publish: Publish) -> Call:
        given = self._given
        info = decode_run_info(given.info)
        task = given.spec.tasks[instance.task.node]
        inputs = {node: given.values.input(node) for node in task.inputs}
        elements = {
            factor.name: given.values.element(factor.node, index)
            for factor, index in zip(task.factors, instance.indexes, strict=True)
            if factor.node is not None
        }
        return bind(
            given.dag,
            task.node,
            info=info,
            attempt=attempt,
            host=_Host(given, output, info.events or (), publish),
            inputs=inputs,
            elements=elements,
            indexes=instance.indexes,
            map_index=instance.map_index,
        )


class _Host(Host):
    """This process as a task's context sees it."""

    def __init__(
        self,
        given: Given,
        output: TaskOutput,
        events: Sequence[EventInfo],
        publish: Publish,
    ) -> None:
        self._given = given
        self._publish = publish
        self._output = output
        self._events = events

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self._output.record(level, event, fields)

    def fetch_result(self, node: int) -> bytes:
        return self._given.values.fetch(node)

    def fetch_events(self) -> Sequence[EventInfo]:
        return self._events

    def publish(self, event: PublishedEvent) -> None:
        self._publish(event)

    async def apublish(self, event: PublishedEvent) -> None:
        self._publish(event)
        await anyio.lowlevel.checkpoint()


def _succeeded(call: Call, value: Any) -> Ended:
    return Ended(Outcome.SUCCESS, finish(call, value))


def _failed(error: BaseException) -> Ended:
    """Tell how it failed, without the frame of ours in which it was caught."""
    trace = error.__traceback__
    error = error.with_traceback(trace.tb_next if trace is not None else None)
    outcome, told = outcome_of(error)
    return Ended(outcome, error=told, exception=error)


def _timed_out(seconds: float | None) -> Ended:
    text = f"timed out after {seconds or 0:g} s"
    error = TaskError("TimeoutError", text)
    return Ended(Outcome.FAILED, error=error, exception=TimeoutError(text))


def _is_cancelled(error: BaseException) -> bool:
    """Tell a cancellation from outside of the task from one that its own code raised."""
    cancelled = isinstance(error, anyio.get_cancelled_exc_class())
    return cancelled and anyio.current_effective_deadline() == -math.inf
