"""Steps and waits of one attempt: answered from the record, or done, or left for later.

A wait that is not recorded ends the attempt: a BaseException goes through the user's function, so
that its `finally` and `async with` end properly. From then on nothing more is recorded, and what
the function makes of the exception does not matter.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import anyio.to_thread
import msgspec

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.history import Record
from pubsubflow.authoring.runtime.logger import WriteLog
from pubsubflow.authoring.runtime.signatures import is_async
from pubsubflow.authoring.runtime.waiting import IN_STEP
from pubsubflow.authoring.source_location import mistake
from pubsubflow.errors import (
    LeaseLost,
    ReplayMismatch,
    StepFailed,
    TaskFailed,
    TaskSkipped,
    TriggerError,
    Unavailable,
    WaitTimeout,
)
from pubsubflow.model.runs.waits import Happening, Wait, Waiting, decode_happened
from pubsubflow.model.wire.messages import Step, TaskError

_ROUNDS = 20
_THROUGH = (TaskFailed, TaskSkipped)


class TaskDeferred(BaseException):
    """Leaves a task that waits; users have no business with it."""

    def __init__(self, waiting: Waiting) -> None:
        super().__init__(waiting.label)
        self.waiting = waiting


class TaskLost(BaseException):
    """Leaves a task that is somebody else's by now."""


class Recorder(Protocol):
    """Where steps are recorded."""

    def now(self) -> float:
        """Return the time in seconds since 1970."""

    async def record(self, step: Step) -> Step:
        """Record a step and return what stands in the record under its key.

        Raises:
            LeaseLost: The task is somebody else's by now.
            Unavailable: It is not known whether it is recorded.
        """

    def describe(self, error: Exception) -> TaskError:
        """Say why a step failed."""


class Journal:
    """What one attempt of an async task does and waits for.

    Args:
        recorder: The process that runs it.
        record: What was recorded before.
        write_log: Writes to the attempt's log.
    """

    def __init__(self, recorder: Recorder, record: Record, write_log: WriteLog) -> None:
        self._recorder = recorder
        self._record = record
        self._write_log = write_log
        self._body: asyncio.Task[Any] | None = None
        self._ending: BaseException | None = None
        self._seen: dict[tuple[str, bool], int] = {}

    def begin(self) -> None:
        """Note that the function starts in the asyncio task that runs now."""
        self._body = asyncio.current_task()

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._recorder.now()

    def check_open(self) -> None:
        """Raise what the attempt ends with, if that is settled already."""
        if self._ending is not None:
            raise self._ending

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Return what a step gave before, or let it happen now and record it."""
        self._check_place(f"step {name!r}")
        if asyncio.current_task() is self._body:
            key = self._record.next_key()
        else:
            key = self._record.next_key_beside(name, args, kwargs)
        known = self._ask(key, "step", name)
        if known is not None:
            await asyncio.sleep(0)
            return _value(known)
        made, cause = await self._perform(key, name, partial(function, *args, **kwargs))
        self.check_open()
        kept = await self._keep(made)
        return _value(kept, cause if kept.error == made.error else None)

    async def wait(
        self, label: str, waits: Sequence[Wait], need: int, limit: float | None
    ) -> tuple[Happening, ...]:
        """Return what happened, or leave the function until it has.

        Args:
            label: For people.
            waits: What for.
            need: How many of them must happen.
            limit: Its timeout in seconds.

        Raises:
            TaskDeferred: It has to happen yet.
            WaitTimeout: It did not happen in time.
            TriggerError: A trigger failed.
        """
        self._check_place(f"wait {label!r}")
        if asyncio.current_task() is not self._body:
            raise mistake(
                f"the wait for {label!r} stands beside other things (in asyncio.gather() or a task "
                "group); a task that waits leaves its process, so wait for several things at once "
                "with ctx.first() or ctx.all()"
            )
        key = self._record.next_key()
        known = self._ask(key, "wait", label)
        if known is None:
            await self._settle(f"wait {label!r}")
            timeout_at = None if limit is None else self.now() + limit
            told = tuple(map(self._after_the_last, waits))
            self._ending = TaskDeferred(Waiting(key, label, told, need, timeout_at))
            raise self._ending
        await asyncio.sleep(0)
        return self._happened(known, waits, need)

    def conclude(self, error: BaseException | None) -> BaseException | None:
        """Return what the attempt ends with in place of what its function made of it, if anything.

        Args:
            error: What the function raised; None when it returned.
        """
        if self._ending is None and error is None:
            try:
                self._record.check("its end")
            except ReplayMismatch as mismatch:
                self._ending = mismatch
        if isinstance(self._ending, TaskDeferred) and not _is_leaving(error):
            what = "returned" if error is None else f"raised {type(error).__name__}: {error}"
            self._write_log(
                "warning",
                f"the task waits for {self._ending.waiting.label!r}, yet its function {what}; that "
                "is ignored, and the function runs again when the wait is over",
                {},
            )
        return self._ending

    def _check_place(self, what: str) -> None:
        if IN_STEP.get():
            raise mistake(f"{what} stands inside of another step; put it after that")
        self.check_open()

    def _ask(self, key: str, kind: Any, label: str) -> Step | None:
        try:
            return self._record.ask(key, kind, label)
        except ReplayMismatch as error:
            self._ending = error
            raise

    async def _settle(self, where: str) -> None:
        """Let what is beside the function come to its recorded steps, and see that all did."""
        rounds = 0
        while self._record.unasked and rounds < _ROUNDS:
            before = self._record.unasked
            await asyncio.sleep(0)
            rounds = 0 if self._record.unasked < before else rounds + 1
            self.check_open()
        try:
            self._record.check(where)
        except ReplayMismatch as error:
            self._ending = error
            raise

    async def _perform(
        self, key: str, name: str, call: Callable[[], Any]
    ) -> tuple[Step, Exception | None]:
        token = IN_STEP.set(True)
        try:
            value = await _called(call)
        except _THROUGH:
            raise
        except Exception as error:  # noqa: BLE001 - recorded, and raised as StepFailed
            return Step(key, name, "step", b"", self._recorder.describe(error)), error
        finally:
            IN_STEP.reset(token)
        try:
            return Step(key, name, "step", results.encode(value)[0]), None
        except results.BadResult as error:
            raise mistake(f"step {name!r}: {error}") from error

    async def _keep(self, step: Step) -> Step:
        try:
            kept = await self._recorder.record(step)
        except LeaseLost as error:
            self._ending = TaskLost(str(error))
            raise self._ending from error
        except Unavailable as error:
            self._ending = error
            raise
        self.check_open()
        try:  # another process that had the task, too, may have been faster
            Record((kept,)).ask(step.key, "step", step.label)
        except ReplayMismatch as error:
            self._ending = error
            raise
        return kept

    def _after_the_last(self, wait: Wait) -> Wait:
        """Let a wait for an event go on after the one that the wait before gave."""
        number = self._seen.get((wait.name, wait.pattern)) if wait.kind == "event" else None
        if number is None:
            return wait
        return msgspec.structs.replace(wait, since=0.0, after=number)

    def _happened(self, known: Step, waits: Sequence[Wait], need: int) -> tuple[Happening, ...]:
        if known.error is not None:
            raise wait_error(known.label, known.error)
        happened = decode_happened(known.value)[:need]
        for each in happened:
            wait = waits[each.slot]
            if wait.kind == "event":
                place = wait.name, wait.pattern
                self._seen[place] = max(each.number, self._seen.get(place, 0))
        return happened


def wait_error(label: str, error: TaskError) -> TriggerError:
    """Return the exception of a wait that failed."""
    if error.type == WaitTimeout.__name__:
        return WaitTimeout(error.message)
    told = (
        error.message if error.type == TriggerError.__name__ else f"{error.type}: {error.message}"
    )
    raised = TriggerError(f"{label}: {told}")
    if error.traceback:
        raised.add_note(f"In the trigger:\n{error.traceback}")
    return raised


async def _called(call: Callable[[], Any]) -> Any:
    if is_async(call):
        return await call()
    value = await anyio.to_thread.run_sync(call)
    return await value if inspect.isawaitable(value) else value


def _value(step: Step, cause: Exception | None = None) -> Any:
    if step.error is not None:
        raise StepFailed(step.label, step.error.type, step.error.message) from cause
    return results.decode(step.value)


def _is_leaving(error: BaseException | None) -> bool:
    """Tell whether an exception is nothing but the task's leave."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_leaving, error.exceptions))
    return isinstance(error, TaskDeferred | asyncio.CancelledError)
