"""A trigger run: one trigger that runs for all waits and watches that share its poll."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from typing import Any, Protocol

import anyio
import msgspec

from pubsubflow.errors import TriggerError
from pubsubflow.model.connections import Connection
from pubsubflow.model.json_values import json_fault
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.messages import TaskError
from pubsubflow.model.wire.task_questions import TaskQuestion
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.process_state import kill_trees
from pubsubflow.triggerer.host.timers import TimerHeap
from pubsubflow.triggerer.protocol import (
    HostLogLine,
    HostReport,
    TriggerFired,
    TriggersFailed,
    TriggerSpec,
    TriggersTroubled,
)

_HERE = str(Path(__file__).parent)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class TriggerLoop(Protocol):
    """The loop that a trigger runs on."""

    timers: TimerHeap
    pauses: TimerHeap
    acknowledge_seconds: float
    cleanup_seconds: float

    def now(self) -> float:
        """Return seconds since 1970."""

    def report(self, report: HostReport) -> None:
        """Send a report to the daemon."""

    def connection(self, name: str, trigger_id: int) -> Coroutine[Any, Any, Connection]:
        """Request a connection from the daemon."""

    def answer(self, question: TaskQuestion, trigger_id: int) -> Coroutine[Any, Any, Any]:
        """Return the daemon's answer to a question."""

    def on_closed(self, run: "TriggerRun") -> None:
        """Start equal triggers on their own from now on: this run takes no more."""

    def on_ended(self, run: "TriggerRun", restart: list[TriggerSpec]) -> None:
        """Remove a run, and start again those for which it did not run."""


class _Phase(Enum):
    POLLING = auto()
    COMMITTING = auto()
    CLOSING = auto()


class _EndedError(TriggerError):
    """The trigger's generator has ended."""


class TriggerRun:
    """Runs one trigger for all that share it.

    Args:
        trigger: The trigger, whose `run` runs.
        spec: The first one for which it runs.
        loop: The loop that it runs on.

    Attributes:
        first: The first one for which it runs.
        specs: Those that still wait.
        poll_key: Equal triggers with this key may join it; None if they may not.
        task: The asyncio task of the run.
        moving: It blocks the loop, and moves to a loop of its own.
        children: Processes that it has started.
    """

    __slots__ = (
        *("_committed", "_committed_by_all", "_joined_late", "_loop", "_phase", "_uncommitted"),
        "_trouble",
        "children",
        *("first", "moving", "poll_key", "specs", "task", "trigger"),
    )

    def __init__(self, trigger: Trigger, spec: TriggerSpec, loop: TriggerLoop) -> None:
        self.trigger = trigger
        self.first = spec
        self.specs = [spec]
        self.poll_key = spec.poll_key
        self.task: asyncio.Task[None] | None = None
        self.moving = False
        self.children: list[subprocess.Popen[Any]] = []
        self._loop = loop
        self._phase = _Phase.POLLING
        self._joined_late: set[int] | None = None
        self._uncommitted: set[int] | None = None
        self._committed_by_all: asyncio.Future[None] | None = None
        self._committed = False
        self._trouble: str | None = ""  # unknown: what is stored may be from an earlier run

    @property
    def name(self) -> str:
        """The trigger's registered name."""
        return self.first.name

    @property
    def trigger_ids(self) -> tuple[int, ...]:
        """Ids of those that still wait."""
        return tuple(spec.trigger_id for spec in self.specs)

    @property
    def loop(self) -> TriggerLoop:
        """The loop that it runs on."""
        return self._loop

    def join(self, spec: TriggerSpec) -> None:
        """Add an equal trigger; the run has given no event yet."""
        self.specs.append(spec)
        if self._joined_late is None:
            self._joined_late = set()
        self._joined_late.add(spec.trigger_id)
        if self._trouble != "":
            self._loop.report(TriggersTroubled((spec.trigger_id,), self._trouble))

    def leave(self, trigger_id: int) -> None:
        """Remove one whose wait has ended; the run ends with the last one."""
        self.specs = [spec for spec in self.specs if spec.trigger_id != trigger_id]
        self._mark_committed(trigger_id)
        if not self.specs:
            self._loop.on_closed(self)
            self._interrupt()

    def on_committed(self, trigger_id: int) -> None:
        """Note that the last event of one is committed, with which a wait ends."""
        self._committed = True
        self.specs = [spec for spec in self.specs if spec.watch or spec.trigger_id != trigger_id]
        if not self.specs:
            self._loop.on_closed(self)
        self._mark_committed(trigger_id)

    def move(self) -> None:
        """End here as soon as no event is pending, to continue on another loop."""
        self.moving = True
        self._loop.on_closed(self)
        self._interrupt()

    async def run(self) -> None:
        """Report the trigger's events until all waits have ended."""
        restart: list[TriggerSpec] = []
        try:
            await self._poll()
        except asyncio.CancelledError as error:
            if self.specs and not self.moving:
                self._fail(TriggerError(f"trigger {self.name!r} cancelled itself"), error)
        except _EndedError as ended:
            # Those that joined a run under way get a run of their own: the generator that ended
            # was started before they came, and a new one may have an event for them.
            late = self._joined_late or set()
            restart = [spec for spec in self.specs if spec.trigger_id in late]
            self.specs = [spec for spec in self.specs if spec not in restart]
            self._fail(ended, ended)
        except BaseException as error:  # noqa: BLE001 - a trigger may raise anything
            self._fail(error, error)
        finally:
            self._phase = _Phase.CLOSING
            self._end_children()
            self._loop.on_closed(self)
            self._loop.on_ended(self, [*restart, *(self.specs if self.moving else ())])

    def _end_children(self) -> None:
        """Kill what the trigger has started and left running, with all that descends from it."""
        # Without `poll`: it would reap what asyncio's watcher waits for. One that has ended and is
        # not reaped keeps its number, so no stranger is hit.
        left = [each for each in self.children if each.returncode is None]
        self.children.clear()
        if left:
            killed = kill_trees([each.pid for each in left])
            self.log("warning", "trigger.children_killed", processes=killed)

    async def _poll(self) -> None:
        events = self.trigger.run(HostTriggerContext(self))
        if not hasattr(events, "__anext__"):
            raise TriggerError("its `run` must be an async generator: `async def` with `yield`")
        try:
            while self.specs and not self.moving:
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    raise _EndedError(f"trigger {self.name!r} ended without firing") from None
                if self.specs and not self.moving:
                    await self._fire(event)
        finally:
            self._phase = _Phase.CLOSING
            await self._close(events)

    async def _fire(self, event: TriggerEvent) -> None:
        """Report an event to all, and wait until it is committed or its waits have ended."""
        concerned = self.trigger_ids
        if isinstance(event, TriggerEvent) and event.rejected is not None:
            concerned = tuple(spec.trigger_id for spec in self.specs if spec.watch)
            if not concerned:  # there is no dataset for which it could be kept
                self.log("warning", "trigger.event_rejected", reason=event.rejected, id=event.id)
                return
        # Later triggers cannot join from now on: the run might not give them what has happened.
        self._loop.on_closed(self)
        fired = _encoded(event)
        self._phase = _Phase.COMMITTING
        self._joined_late, self._committed = None, False
        self._uncommitted = set(concerned)
        self._committed_by_all = asyncio.get_running_loop().create_future()
        for trigger_id in concerned:
            self._loop.report(msgspec.structs.replace(fired, trigger_id=trigger_id))
        await self._committed_by_all
        self._uncommitted = self._committed_by_all = None
        if self._committed and event.acknowledge is not None:
            await self._bounded("acknowledge", event.acknowledge, self._loop.acknowledge_seconds)
        self._phase = _Phase.POLLING

    async def _close(self, events: AsyncIterator[TriggerEvent]) -> None:
        close = getattr(events, "aclose", None)
        if close is not None:
            await self._bounded("close", close, self._loop.cleanup_seconds)

    async def _bounded(self, what: str, act: Callable[[], Any], seconds: float) -> None:
        try:
            with anyio.fail_after(seconds):
                await act()
        except Exception as error:  # noqa: BLE001 - it is logged, and must not end the run
            self.log("error", f"trigger.{what}_failed", error=f"{type(error).__name__}: {error}")

    def _mark_committed(self, trigger_id: int) -> None:
        if self._uncommitted is None or self._committed_by_all is None:
            return
        self._uncommitted.discard(trigger_id)
        if not self._uncommitted and not self._committed_by_all.done():
            self._committed_by_all.set_result(None)

    def _interrupt(self) -> None:
        # While an event is being committed the run ends by itself after that.
        if self._phase is _Phase.POLLING and self.task is not None:
            self.task.cancel()

    def _fail(self, error: BaseException, origin: BaseException) -> None:
        if self.specs and not self.moving:
            self._loop.report(TriggersFailed(self.trigger_ids, error_of(error, origin)))
        elif not isinstance(error, _EndedError):
            self.log("error", "trigger.close_failed", error=f"{type(error).__name__}: {error}")

    def trouble(self, error: str | None) -> None:
        """Report why the trigger cannot see its source, or that it can, if that has changed."""
        if error != self._trouble:
            self._trouble = error
            self._loop.report(TriggersTroubled(self.trigger_ids, error))

    def log(self, level: str, event: str, /, **fields: Any) -> None:
        """Write a line to the daemon's log."""
        self._loop.report(HostLogLine(level, event, self.first.trigger_id, self.name, fields))


class HostTriggerContext:
    """The context of a running trigger; see `TriggerContext`."""

    __slots__ = ("_run", "_spec")

    def __init__(self, run: TriggerRun) -> None:
        self._run = run
        self._spec = run.first

    @property
    def position(self) -> Any:
        """The last position that was stored for a watched dataset."""
        return _unpack(self._spec.position)

    @property
    def started_at(self) -> datetime:
        """When the wait began."""
        return datetime.fromtimestamp(self._spec.started_at, UTC)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self._run.loop.now(), UTC)

    def sleep_until(self, moment: datetime) -> Coroutine[Any, Any, None]:
        """Return at `moment`."""
        return self._run.loop.timers.sleep_until(moment.timestamp())

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Return after so many seconds."""
        return self._run.loop.pauses.sleep_for(seconds)

    def connection(self, name: str) -> Coroutine[Any, Any, Connection]:
        """Return a connection with its secrets."""
        return self._run.loop.connection(
            name, (self._run.trigger_ids or (self._spec.trigger_id,))[0]
        )

    def answer(self, question: TaskQuestion) -> Coroutine[Any, Any, Any]:
        """Return the answer to a question of a trigger of Airflow's."""
        return self._run.loop.answer(
            question, (self._run.trigger_ids or (self._spec.trigger_id,))[0]
        )

    def trouble(self, error: str | None) -> None:
        """Show why the trigger cannot see its source; None once it can."""
        self._run.trouble(error)

    def log(self, event: str, **fields: Any) -> None:
        """Write a line to the daemon's log."""
        self._run.log("info", event, **fields)


CURRENT: ContextVar[TriggerRun | None] = ContextVar("pubsubflow_trigger", default=None)
"""The run whose code runs; whatever a trigger starts inherits it."""


def error_of(error: BaseException, origin: BaseException, *, final: bool = False) -> TaskError:
    """Return the error of a trigger that failed, without the host's own frames."""
    trace = origin.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    found = outcome_of(error.with_traceback(trace if error is origin else None))[1]
    name = "TriggerError" if isinstance(error, _EndedError) else found.type
    return msgspec.structs.replace(found, type=name, final=final)


def _encoded(event: object) -> TriggerFired:
    """Return an event as a report, still without the trigger's id.

    Raises:
        TriggerError: It is not a TriggerEvent, or holds values that JSON does not have.
    """
    if not isinstance(event, TriggerEvent):
        kind = type(event).__name__
        raise TriggerError(f"it yielded a {kind}: yield pubsubflow.TriggerEvent(payload)")
    if event.time is not None and event.time.tzinfo is None:
        raise TriggerError("the time of its event has no zone: give it one, for example UTC")
    try:
        payload = _json_value(event.payload, "payload")
        position = _json_value(event.position, "position")
        return TriggerFired(
            0, payload, event.id, event.partition, event.time, position, event.rejected
        )
    except (TypeError, OverflowError, RecursionError) as error:
        raise TriggerError(f"its event is not a JSON value: {error}") from None


def _json_value(value: Any, name: str) -> bytes:
    plain = msgspec.to_builtins(value, str_keys=True)
    # As an event of a dataset it becomes JSON, whose encoder writes null for NaN.
    fault = json_fault(plain, name)
    if fault is not None:
        raise TriggerError(f"its event is not a JSON value: {fault}")
    return _pack(plain)
