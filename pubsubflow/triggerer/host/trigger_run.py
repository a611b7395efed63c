"""One running trigger, and those who wait for what it sees."""

import asyncio
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
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.messages import TaskError
from pubsubflow.runner.failures import outcome_of
from pubsubflow.triggerer.host.timers import Alarms
from pubsubflow.triggerer.protocol import Failed, Fired, Job, Report, Said

_HERE = str(Path(__file__).parent)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Place(Protocol):
    """The loop that a feed runs on."""

    alarms: Alarms
    acknowledge_seconds: float
    cleanup_seconds: float

    def now(self) -> float:
        """Return seconds since 1970."""

    def tell(self, report: Report) -> None:
        """Send something to the daemon."""

    def connection(self, name: str) -> Coroutine[Any, Any, Connection]:
        """Ask the daemon for a connection."""

    def closed(self, feed: "Feed") -> None:
        """Take no one in any more: the feed ends."""

    def ended(self, feed: "Feed", again: list[Job]) -> None:
        """Start those again for which the feed was not run."""


class _Phase(Enum):
    ASKING = auto()
    TELLING = auto()
    ENDING = auto()


class _EndedError(TriggerError):
    """Nothing more will come."""


class Feed:
    """Runs one trigger for all that share it.

    Args:
        trigger: Whose `run` is run.
        jobs: For whom.
        place: See there.

    Attributes:
        first: For whom it was started.
        jobs: Those who still wait.
        key: Under which others may join it.
        task: Which runs it.
        moving: It holds up others, and goes to a loop of its own.
    """

    __slots__ = (
        *("_durable", "_late", "_phase", "_place", "_settled", "_untold", "jobs", "moving"),
        *("first", "key", "task", "trigger"),
    )

    def __init__(self, trigger: Trigger, job: Job, place: Place) -> None:
        self.trigger = trigger
        self.first = job
        self.jobs = [job]
        self.key = job.key
        self.task: asyncio.Task[None] | None = None
        self.moving = False
        self._place = place
        self._phase = _Phase.ASKING
        self._late: set[int] | None = None
        self._untold: set[int] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._durable = False

    @property
    def name(self) -> str:
        """The trigger's registered name."""
        return self.first.name

    @property
    def numbers(self) -> tuple[int, ...]:
        """Who waits for it."""
        return tuple(job.number for job in self.jobs)

    def join(self, job: Job) -> None:
        """Let another one have what comes; nothing has come yet."""
        self.jobs.append(job)
        if self._late is None:
            self._late = set()
        self._late.add(job.number)

    def leave(self, number: int) -> None:
        """Let one go that nobody waits for any more."""
        self.jobs = [job for job in self.jobs if job.number != number]
        self._settle(number)
        if not self.jobs:
            self._place.closed(self)
            self._interrupt()

    def durable(self, number: int) -> None:
        """Note that the last event is durable for one; a wait is over with that."""
        self._durable = True
        self.jobs = [job for job in self.jobs if job.watch or job.number != number]
        if not self.jobs:
            self._place.closed(self)
        self._settle(number)

    def move(self) -> None:
        """End here as soon as no event is under way, to go on elsewhere."""
        self.moving = True
        self._place.closed(self)
        self._interrupt()

    async def run(self) -> None:
        """Tell what the trigger sees until nobody waits for it."""
        again: list[Job] = []
        try:
            await self._follow()
        except asyncio.CancelledError as error:
            if self.jobs and not self.moving:
                self._fail(TriggerError(f"trigger {self.name!r} cancelled itself"), error)
        except _EndedError as ended:
            again = [job for job in self.jobs if self._late and job.number in self._late]
            self.jobs = [job for job in self.jobs if job not in again]
            self._fail(ended, ended)
        except BaseException as error:  # noqa: BLE001 - whatever a trigger raises is its own
            self._fail(error, error)
        finally:
            self._phase = _Phase.ENDING
            self._place.closed(self)
            self._place.ended(self, [*again, *(self.jobs if self.moving else ())])

    async def _follow(self) -> None:
        events = self.trigger.run(FeedContext(self))
        if not hasattr(events, "__anext__"):
            raise TriggerError("its `run` must be an async generator: `async def` with `yield`")
        try:
            while self.jobs and not self.moving:
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    raise _EndedError(f"trigger {self.name!r} ended without firing") from None
                if self.jobs and not self.moving:
                    await self._tell(event)
        finally:
            self._phase = _Phase.ENDING
            await self._close(events)

    async def _tell(self, event: TriggerEvent) -> None:
        """Hand an event to all, and wait until it is durable or nobody waits for it.

        Who comes from now on cannot join: the trigger might not tell it of what has happened.
        """
        self._place.closed(self)
        fired = _encoded(event)
        self._phase = _Phase.TELLING
        self._late, self._durable = None, False
        self._untold = set(self.numbers)
        self._settled = asyncio.get_running_loop().create_future()
        for number in self.numbers:
            self._place.tell(msgspec.structs.replace(fired, number=number))
        await self._settled
        self._untold = self._settled = None
        if self._durable and event.acknowledge is not None:
            await self._bounded("acknowledge", event.acknowledge, self._place.acknowledge_seconds)
        self._phase = _Phase.ASKING

    async def _close(self, events: AsyncIterator[TriggerEvent]) -> None:
        close = getattr(events, "aclose", None)
        if close is not None:
            await self._bounded("close", close, self._place.cleanup_seconds)

    async def _bounded(self, what: str, act: Callable[[], Any], seconds: float) -> None:
        try:
            with anyio.fail_after(seconds):
                await act()
        except Exception as error:  # noqa: BLE001 - it is told, and concerns nobody else
            self.say("error", f"trigger.{what}_failed", error=f"{type(error).__name__}: {error}")

    def _settle(self, number: int) -> None:
        if self._untold is None or self._settled is None:
            return
        self._untold.discard(number)
        if not self._untold and not self._settled.done():
            self._settled.set_result(None)

    def _interrupt(self) -> None:
        if self._phase is _Phase.ASKING and self.task is not None:
            self.task.cancel()

    def _fail(self, error: BaseException, origin: BaseException) -> None:
        if self.jobs and not self.moving:
            self._place.tell(Failed(self.numbers, error_of(error, origin)))
        elif not isinstance(error, _EndedError):
            self.say("error", "trigger.close_failed", error=f"{type(error).__name__}: {error}")

    def say(self, level: str, event: str, /, **fields: Any) -> None:
        """Write a line to the daemon's log."""
        self._place.tell(Said(level, event, self.first.number, self.name, fields))

    @property
    def place(self) -> Place:
        """Where it runs."""
        return self._place


class FeedContext:
    """What a running trigger may use; see `TriggerContext`."""

    __slots__ = ("_feed", "_job")

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._job = feed.first

    @property
    def position(self) -> Any:
        """The last position that was kept for a watched dataset."""
        return _unpack(self._job.position)

    @property
    def started_at(self) -> datetime:
        """When the wait began."""
        return datetime.fromtimestamp(self._job.started_at, UTC)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self._feed.place.now(), UTC)

    def sleep_until(self, moment: datetime) -> Coroutine[Any, Any, None]:
        """Return at `moment`."""
        return self._feed.place.alarms.sleep_until(moment.timestamp())

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Return after so many seconds."""
        place = self._feed.place
        return place.alarms.sleep_until(place.now() + seconds)

    def connection(self, name: str) -> Coroutine[Any, Any, Connection]:
        """Return a connection with its secrets."""
        return self._feed.place.connection(name)

    def log(self, event: str, **fields: Any) -> None:
        """Write a line to the daemon's log."""
        self._feed.say("info", event, **fields)


CURRENT: ContextVar[Feed | None] = ContextVar("pubsubflow_trigger", default=None)
"""Whose code runs; whatever a trigger starts inherits it."""


def error_of(error: BaseException, origin: BaseException, *, final: bool = False) -> TaskError:
    """Say why a trigger failed, without our own frames."""
    trace = origin.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    told = outcome_of(error.with_traceback(trace if error is origin else None))[1]
    name = "TriggerError" if isinstance(error, _EndedError) else told.type
    return msgspec.structs.replace(told, type=name, final=final)


def _encoded(event: object) -> Fired:
    """Return an event as it travels; its number is still to be filled in.

    Raises:
        TriggerError: It is none, or holds what JSON cannot say.
    """
    if not isinstance(event, TriggerEvent):
        kind = type(event).__name__
        raise TriggerError(f"it yielded a {kind}: yield pubsubflow.TriggerEvent(payload)")
    if event.time is not None and event.time.tzinfo is None:
        raise TriggerError("the time of its event has no zone: give it one, for example UTC")
    try:
        payload, position = (_json_value(each) for each in (event.payload, event.position))
        return Fired(0, payload, event.id, event.partition, event.time, position)
    except (TypeError, OverflowError, RecursionError) as error:
        raise TriggerError(f"its event is no JSON value: {error}") from None


def _json_value(value: Any) -> bytes:
    return _pack(msgspec.to_builtins(value, str_keys=True))
