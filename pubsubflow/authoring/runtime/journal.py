"""The journal of one attempt: recorded steps and waits are replayed, new ones recorded.

A wait that is not recorded ends the attempt: a BaseException passes through the user's function, so
that its `finally` and `async with` blocks end properly. From then on nothing more is recorded, and
whatever the function makes of the exception is ignored.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import anyio.to_thread
import msgspec

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.history import JournalHistory
from pubsubflow.authoring.runtime.logger import WriteLog
from pubsubflow.authoring.runtime.signatures import is_async
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.authoring.runtime.waiting import IN_STEP
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import (
    LeaseLost,
    ReplayMismatch,
    RetryAfter,
    StepFailed,
    TaskFailed,
    TaskSkipped,
    TriggerError,
    Unavailable,
    WaitTimeout,
)
from pubsubflow.model.wire.messages import JournalEntry, TaskError
from pubsubflow.model.wire.waits import Wait, WaitCompletion, WaitSet, decode_completions

# Turns of the event loop without a further step before concurrent code counts as diverged.
_IDLE_TURNS = 20
_PASSED_ON = (TaskFailed, TaskSkipped, RetryAfter)


class TaskLost(BaseException):
    """Ends an attempt whose task was handed to another worker."""


class JournalStore(Protocol):
    """The process that records steps."""

    def now(self) -> float:
        """Return the time in seconds since 1970."""

    async def record(self, entry: JournalEntry) -> JournalEntry:
        """Record a step and return the entry that is recorded under its key.

        Raises:
            LeaseLost: The task belongs to another worker.
            Unavailable: It is uncertain whether the step is recorded.
        """

    def describe(self, error: Exception) -> TaskError:
        """Return the error of a step that failed."""


class TaskJournal:
    """The journal of one attempt of an async task.

    Args:
        store: The process that runs it.
        history: The entries of earlier executions.
        write_log: Writes to the attempt's log.
        polling: The task is a polling sensor, of which nothing is replayed.

    Attributes:
        function_task: The asyncio task of the function itself; set when it begins.
    """

    def __init__(
        self,
        store: JournalStore,
        history: JournalHistory,
        write_log: WriteLog,
        *,
        polling: bool = False,
    ) -> None:
        self._store = store
        self._history = history
        self._write_log = write_log
        self._polling = polling
        self.function_task: asyncio.Task[Any] | None = None
        self._ending: BaseException | None = None
        self._last_events: dict[tuple[str, bool], int] = {}

    @property
    def replaying(self) -> bool:
        """Whether a further step or wait is recorded already."""
        return self._history.unvisited > 0

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._store.now()

    def check_open(self) -> None:
        """Raise the attempt's end, if that is decided already."""
        if self._ending is not None:
            raise self._ending

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Return the recorded value of a step, or do it now and record it."""
        self._check_allowed(f"step {name!r}")
        if asyncio.current_task() is self.function_task:
            key = self._history.next_key()
        else:
            key = self._history.next_concurrent_key(name, args, kwargs)
        known = self._find(key, "step", name)
        if known is not None:
            # A step gives way to others when it is done; a replay must do so as well.
            await asyncio.sleep(0)
            return _value(known)
        made, cause = await self._perform(key, name, partial(function, *args, **kwargs))
        self.check_open()
        kept = await self._keep(made)
        return _value(kept, cause if kept.error == made.error else None)

    async def wait(
        self, label: str, waits: Sequence[Wait], required: int, limit: float | None
    ) -> tuple[WaitCompletion, ...]:
        """Return the recorded completions of a wait, or end the attempt until it is complete.

        Args:
            label: For people.
            waits: The alternatives, or all that must be complete.
            required: How many of them must be complete.
            limit: The timeout in seconds.

        Raises:
            TaskDeferred: The wait is not complete.
            WaitTimeout: It was not complete in time.
            TriggerError: A trigger failed.
        """
        self._check_allowed(f"wait {label!r}")
        if asyncio.current_task() is not self.function_task:
            raise definition_error(
                f"the wait for {label!r} runs beside other code (in asyncio.gather() or a task "
                "group); a task that waits leaves its process, so wait for several things at once "
                "with ctx.first() or ctx.all()"
            )
        key = self._history.next_key()
        known = self._find(key, "wait", label)
        if known is None:
            await self._finish_concurrent(f"wait {label!r}")
            timeout_at = None if limit is None else self.now() + limit
            continued = tuple(map(self._after_last_event, waits))
            self._ending = TaskDeferred(WaitSet(key, label, continued, required, timeout_at))
            raise self._ending
        await asyncio.sleep(0)
        return self._completions(known, waits, required)

    def conclude(self, error: BaseException | None) -> BaseException | None:
        """Return the exception that ends the attempt in place of the function's own end, if any.

        Args:
            error: The function's exception; None when it returned.
        """
        if self._ending is None and error is None:
            try:
                self._history.check("its end")
            except ReplayMismatch as mismatch:
                self._ending = mismatch
        if isinstance(self._ending, TaskDeferred) and not _is_deferral(error):
            what = "returned" if error is None else f"raised {type(error).__name__}: {error}"
            self._write_log(
                "warning",
                f"the task waits for {self._ending.wait_set.label!r}, yet its function {what}; "
                "that is ignored, and the function runs again when the wait is over",
                {},
            )
        return self._ending

    def _check_allowed(self, what: str) -> None:
        if IN_STEP.get():
            raise definition_error(f"{what} is inside of another step; move it after that step")
        if self._polling:
            raise definition_error(
                f"{what} is inside of a polling sensor, whose function looks anew each time: "
                "return False to wait, or write a @task with ctx.wait() and ctx.sleep()"
            )
        self.check_open()

    def _find(self, key: str, kind: Any, label: str) -> JournalEntry | None:
        try:
            return self._history.find(key, kind, label)
        except ReplayMismatch as error:
            self._ending = error
            raise

    async def _finish_concurrent(self, where: str) -> None:
        """Give concurrent code the turns to reach its recorded steps, and check that all did.

        The attempt ends here: a step that is reached later would be missing from the check.
        """
        idle_turns = 0
        while self._history.unvisited and idle_turns < _IDLE_TURNS:
            before = self._history.unvisited
            await asyncio.sleep(0)
            idle_turns = 0 if self._history.unvisited < before else idle_turns + 1
            self.check_open()
        try:
            self._history.check(where)
        except ReplayMismatch as error:
            self._ending = error
            raise

    async def _perform(
        self, key: str, name: str, call: Callable[[], Any]
    ) -> tuple[JournalEntry, Exception | None]:
        # A thread gets a copy of the context, so the flag holds there as well.
        token = IN_STEP.set(True)
        try:
            value = await _called(call)
        except _PASSED_ON:
            raise
        except Exception as error:  # noqa: BLE001 - recorded, and raised as StepFailed
            return JournalEntry(key, name, "step", b"", self._store.describe(error)), error
        finally:
            IN_STEP.reset(token)
        try:
            return JournalEntry(key, name, "step", results.encode(value)[0]), None
        except results.UnsupportedResult as error:
            raise definition_error(f"step {name!r}: {error}") from error

    async def _keep(self, entry: JournalEntry) -> JournalEntry:
        try:
            kept = await self._store.record(entry)
        except LeaseLost as error:
            self._ending = TaskLost(str(error))
            raise self._ending from error
        except Unavailable as error:
            self._ending = error
            raise
        self.check_open()
        # Another process that runs the task as well may have been faster: its entry counts.
        try:
            JournalHistory((kept,)).find(entry.key, "step", entry.label)
        except ReplayMismatch as error:
            self._ending = error
            raise
        return kept

    def _after_last_event(self, wait: Wait) -> Wait:
        """Start a wait for an event after the event of the previous wait for the same dataset."""
        number = self._last_events.get((wait.name, wait.pattern)) if wait.kind == "event" else None
        if number is None:
            return wait
        return msgspec.structs.replace(wait, since=0.0, after=number)

    def _completions(
        self, known: JournalEntry, waits: Sequence[Wait], required: int
    ) -> tuple[WaitCompletion, ...]:
        if known.error is not None:
            raise wait_error(known.label, known.error)
        completions = decode_completions(known.value)[:required]
        for each in completions:
            wait = waits[each.slot]
            if wait.kind == "event":
                source = wait.name, wait.pattern
                self._last_events[source] = max(each.number, self._last_events.get(source, 0))
        return completions


def wait_error(label: str, error: TaskError) -> TriggerError:
    """Return the exception of a wait that failed."""
    if error.type == WaitTimeout.__name__:
        return WaitTimeout(error.message)
    reason = (
        error.message if error.type == TriggerError.__name__ else f"{error.type}: {error.message}"
    )
    raised = TriggerError(f"{label}: {reason}")
    if error.traceback:
        raised.add_note(f"In the trigger:\n{error.traceback}")
    return raised


async def _called(call: Callable[[], Any]) -> Any:
    if is_async(call):
        return await call()
    value = await anyio.to_thread.run_sync(call)
    return await value if inspect.isawaitable(value) else value


def _value(entry: JournalEntry, cause: Exception | None = None) -> Any:
    if entry.error is not None:
        raise StepFailed(entry.label, entry.error.type, entry.error.message) from cause
    return results.decode(entry.value)


def _is_deferral(error: BaseException | None) -> bool:
    """Return whether an exception is nothing but the deferral that passes through."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_deferral, error.exceptions))
    return isinstance(error, TaskDeferred | asyncio.CancelledError)
