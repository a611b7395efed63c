"""Runs single attempts of tasks in this process."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel
from msgspec import Struct

from pubsubflow.authoring.runtime.bind import Call, Finished, bind, finish
from pubsubflow.authoring.runtime.context import Host
from pubsubflow.authoring.runtime.journal import TaskDeferred
from pubsubflow.errors import ConfigError, NotFound
from pubsubflow.model.connections import Connection
from pubsubflow.model.runs.waits import Waiting
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    EventInfo,
    Outcome,
    PublishedEvent,
    Step,
    TaskError,
    decode_run_info,
)
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.output import TaskOutput
from pubsubflow.testing.output import Capture
from pubsubflow.testing.run_inputs import Given


class Ended(Struct, frozen=True):
    """How one attempt ended.

    Attributes:
        finished: What the task gave, after a success.
        exception: What it raised, as it is; None after a success.
        waiting: What it waits for, when it was deferred.
    """

    outcome: Outcome
    finished: Finished | None = None
    error: TaskError | None = None
    exception: BaseException | None = None
    waiting: Waiting | None = None


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


class Turn(Struct, frozen=True):
    """One run of a task's function: an attempt has one more than it has waits.

    Attributes:
        attempt: Counted from 1.
        output: Takes what it prints.
        publish: Takes the events that it publishes.
        now: Returns the time in seconds since 1970.
        steps: What it has recorded; grows.
        seconds: What is left of its timeout.
    """

    instance: Instance
    attempt: int
    output: TaskOutput
    publish: Publish
    now: Callable[[], float]
    steps: list[Step]
    seconds: float | None


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

    async def run(self, turn: Turn) -> Ended:
        """Run a task's function and tell how it ended."""
        if turn.instance.task.kind == "async":
            return await self._alongside(turn)
        async with self._lane:
            return await self._run_sync(lambda: self._alone(turn))

    def _alone(self, turn: Turn) -> Ended:
        """Run a plain task; one that outlasts its timeout is not stopped, but has failed."""
        began = time.monotonic()
        with self._capture.writing(turn.output, alone=True):
            try:
                call = self._bind(turn)
                ended = _succeeded(call, call.run())
            except BaseException as error:  # noqa: BLE001 - the task's, kept in the result
                ended = _failed(error)
        late = turn.seconds is not None and time.monotonic() - began > turn.seconds
        return timed_out(turn.instance.task) if late else ended

    async def _alongside(self, turn: Turn) -> Ended:
        ended = timed_out(turn.instance.task)
        with self._capture.writing(turn.output), anyio.CancelScope() as scope:
            if turn.seconds is not None:
                scope.deadline = anyio.current_time() + turn.seconds
            try:
                call = self._bind(turn)
                ended = _succeeded(call, await call.run())
            except BaseException as error:
                if _is_cancelled(error) and not scope.cancel_called:
                    raise
                ended = _failed(error)
        return timed_out(turn.instance.task) if scope.cancel_called else ended

    def _bind(self, turn: Turn) -> Call:
        given, instance = self._given, turn.instance
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
            attempt=turn.attempt,
            host=_Host(given, turn, info.events or ()),
            inputs=inputs,
            elements=elements,
            indexes=instance.indexes,
            map_index=instance.map_index,
            steps=turn.steps,
        )


class _Host(Host):
    """This process as a task's context sees it."""

    def __init__(self, given: Given, turn: Turn, events: Sequence[EventInfo]) -> None:
        self._given = given
        self._turn = turn
        self._events = events

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self._turn.output.record(level, event, fields)

    def fetch_result(self, node: int) -> bytes:
        return self._given.values.fetch(node)

    def fetch_events(self) -> Sequence[EventInfo]:
        return self._events

    def fetch_connection(self, name: str) -> Connection:
        found = self._given.connections.get(name)
        if found is None:
            raise ConfigError(
                f"{NotFound('connection', name)}: give one, "
                f"test(connections={{{name!r}: 'postgres://…'}})"
            )
        return found

    def publish(self, event: PublishedEvent) -> None:
        self._turn.publish(event)

    async def apublish(self, event: PublishedEvent) -> None:
        self._turn.publish(event)
        await anyio.lowlevel.checkpoint()

    def now(self) -> float:
        return self._turn.now()

    async def record(self, step: Step) -> Step:
        await anyio.lowlevel.checkpoint()
        self._turn.steps.append(step)
        return step

    def describe(self, error: Exception) -> TaskError:
        return outcome_of(error)[1]


def _succeeded(call: Call, value: Any) -> Ended:
    return Ended(Outcome.SUCCESS, finish(call, value))


def _failed(error: BaseException) -> Ended:
    """Tell what it waits for, or how it failed, without the frame in which we caught it."""
    if isinstance(error, TaskDeferred):
        return Ended(Outcome.DEFERRED, waiting=error.waiting)
    trace = error.__traceback__
    error = error.with_traceback(trace.tb_next if trace is not None else None)
    outcome, told = outcome_of(error)
    return Ended(outcome, error=told, exception=error)


def timed_out(task: TaskSpec, meanwhile: str = "") -> Ended:
    """Tell that an attempt has taken longer than its timeout."""
    text = f"timed out after {task.timeout_seconds or 0:g} s{meanwhile}"
    error = TaskError("TimeoutError", text)
    return Ended(Outcome.FAILED, error=error, exception=TimeoutError(text))


def _is_cancelled(error: BaseException) -> bool:
    """Tell a cancellation from outside of the task from one that its own code raised."""
    cancelled = isinstance(error, anyio.get_cancelled_exc_class())
    return cancelled and anyio.current_effective_deadline() == -math.inf
