"""A thread with an event loop on which triggers run."""

import asyncio
import os
import selectors
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from pubsubflow.errors import TriggerError
from pubsubflow.model.connections import Connection
from pubsubflow.plugins import decode_trigger, trigger_type
from pubsubflow.runner.redaction import Mask
from pubsubflow.triggerer.host.recorder import Recorder
from pubsubflow.triggerer.host.timers import Alarms
from pubsubflow.triggerer.host.trigger_run import CURRENT, Feed, FeedContext, error_of
from pubsubflow.triggerer.protocol import (
    CleanedUp,
    Failed,
    Given,
    HostSettings,
    Job,
    Report,
    Said,
    ShareKey,
    Wanted,
)

_CHUNK = 200
_STEP = asyncio.Handle._run.__code__  # noqa: SLF001
"""Every step of a loop runs in this frame, with what steps as `self`."""


class Lane:
    """Runs triggers side by side on a loop in a thread of its own.

    Methods whose names begin with `on_` are called on the loop, by `post`.

    Args:
        index: Which one it is; its place in the recorder.
        settings: See there.
        recorder: Notes which trigger runs.
        tell: Sends a report; may be called from any thread.
        moved: Called on the loop with those of a feed that are to go to another lane: once for
            each `on_move`.
        woken: Called on the loop's thread when the loop wakes up after `watched` was cleared.
        now: The time, seconds since 1970.

    Attributes:
        watched: Whether somebody looks at it already.
    """

    def __init__(
        self,
        index: int,
        *,
        settings: HostSettings,
        recorder: Recorder,
        tell: Callable[[Report], None],
        moved: Callable[[list[Job]], None],
        woken: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.index = index
        self.acknowledge_seconds = settings.acknowledge_seconds
        self.cleanup_seconds = settings.cleanup_seconds
        self.watched = False
        self._tell = tell
        self._mask = Mask()
        self._asked: dict[tuple[int, str], asyncio.Future[Given]] = {}
        self._questions = count()
        self.now = now
        self._running = recorder.running
        self._moved = moved
        self._woken = woken
        self._feeds: dict[int, Feed] = {}
        self._shared: dict[ShareKey, Feed] = {}
        self._coming: set[int] = set()
        self._imported: set[str] = set()
        self._waiting = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"triggers-{index}", daemon=True)

    def start(self) -> None:
        """Start the thread; return when its loop runs."""
        self._thread.start()
        self._ready.wait()

    def post(self, act: Callable[..., None], *arguments: Any) -> None:
        """Let the loop call something."""
        self._loop.call_soon_threadsafe(partial(act, *arguments))

    def join(self, seconds: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    @property
    def load(self) -> int:
        """How many triggers it has."""
        return len(self._feeds)

    def step(self) -> tuple[asyncio.Handle, FrameType] | None:
        """Return what the loop does now, from another thread; None while it waits."""
        if self._waiting:
            return None
        frame = innermost = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        while frame is not None and frame.f_code is not _STEP:
            frame = frame.f_back
        if frame is None or innermost is None:
            return None
        return frame.f_locals["self"], innermost

    def on_start(self, jobs: tuple[Job, ...]) -> None:
        """Run triggers."""
        self._coming.update(job.number for job in jobs)
        self._spawn(self._begin(jobs))

    def on_stop(self, numbers: tuple[int, ...]) -> None:
        """Close triggers."""
        for number in numbers:
            self._coming.discard(number)
            feed = self._feeds.pop(number, None)
            if feed is not None:
                feed.leave(number)

    def on_durable(self, number: int) -> None:
        """Tell a trigger that its event is durable."""
        feed = self._feeds.get(number)
        if feed is not None:
            feed.durable(number)
            if number not in feed.numbers:
                del self._feeds[number]

    def on_clean_up(self, job: Job) -> None:
        """Close a trigger that a user cancelled, and let it clean up."""
        self.on_stop((job.number,))
        try:
            feed = Feed(decode_trigger(job.name, job.data), job, self)
        except TriggerError as error:
            self._complain(job, error)
            self.tell(CleanedUp(job.number))
            return
        self._spawn(self._clean_up(feed, job), feed)

    def on_move(self, feed: Feed) -> None:
        """Give a trigger to another lane."""
        if feed.jobs and not feed.moving:
            feed.move()
        else:
            self._moved([])

    def on_given(self, given: Given) -> None:
        """Hand the daemon's answer to who asked for a connection."""
        asked = self._asked.get((given.question, given.name))
        if asked is not None and not asked.done():
            asked.set_result(given)

    def on_finish(self) -> None:
        """Close everything and end."""
        self.on_stop((*self._feeds, *self._coming))
        self._finished.set()

    def tell(self, report: Report) -> None:
        """Send a report, without secrets where people read it."""
        match report:
            case Failed(_, error):
                report = msgspec.structs.replace(report, error=self._mask.error(error))
            case Said(fields=fields):
                report = msgspec.structs.replace(report, fields=self._mask.value(fields))
        self._tell(report)

    async def connection(self, name: str) -> Connection:
        """Ask the daemon for a connection; nothing shows its secrets from then on.

        Raises:
            TriggerError: There is none, or its secrets cannot be decrypted.
        """
        question = next(self._questions)
        asked: asyncio.Future[Given] = self._loop.create_future()
        self._asked[question, name] = asked
        try:
            self._tell(Wanted(self.index, question, name))
            given = await asked
        finally:
            del self._asked[question, name]
        if given.connection is None:
            raise TriggerError(given.error or "this triggerer knows no connections")
        self._mask.add(given.connection)
        return given.connection

    def closed(self, feed: Feed) -> None:
        """Let nobody join a feed any more."""
        if feed.key is not None and self._shared.get(feed.key) is feed:
            del self._shared[feed.key]

    def ended(self, feed: Feed, again: list[Job]) -> None:
        """Forget a feed, and start those again for which it was not run."""
        for number in [*feed.numbers, *(job.number for job in again)]:
            if self._feeds.get(number) is feed:
                del self._feeds[number]
        if feed.moving:
            self._moved(again)
        elif again:
            self.on_start(tuple(again))

    async def _begin(self, jobs: tuple[Job, ...]) -> None:
        """Start triggers; importing what is new takes time, so others go on meanwhile."""
        for name in {job.name for job in jobs}:
            try:
                await self._import(name)
            except TriggerError as error:
                hopeless = [job for job in jobs if job.name == name and self._take(job)]
                self._refuse(hopeless, error)
        for place, job in enumerate(jobs):
            if self._take(job):
                self._run(job)
            if place % _CHUNK == _CHUNK - 1:
                await anyio.lowlevel.checkpoint()

    async def _import(self, name: str) -> None:
        async with self._importing:
            if name not in self._imported:
                await anyio.to_thread.run_sync(trigger_type, name)
                self._imported.add(name)

    def _take(self, job: Job) -> bool:
        wanted = job.number in self._coming
        self._coming.discard(job.number)
        return wanted

    def _run(self, job: Job) -> None:
        feed = None if job.key is None else self._shared.get(job.key)
        if feed is not None:
            feed.join(job)
            self._feeds[job.number] = feed
            return
        try:
            feed = Feed(decode_trigger(job.name, job.data), job, self)
        except TriggerError as error:
            self._refuse([job], error)
            return
        self._feeds[job.number] = feed
        if feed.key is not None:
            self._shared[feed.key] = feed
        feed.task = self._spawn(feed.run(), feed)

    def _refuse(self, jobs: list[Job], error: TriggerError) -> None:
        if jobs:
            numbers = tuple(job.number for job in jobs)
            self.tell(Failed(numbers, error_of(error, error, final=True)))

    async def _clean_up(self, feed: Feed, job: Job) -> None:
        try:
            with anyio.fail_after(self.cleanup_seconds):
                await feed.trigger.cancelled(FeedContext(feed))
        except Exception as error:  # noqa: BLE001 - it is told, and concerns nobody else
            self._complain(job, error)
        finally:
            self.tell(CleanedUp(job.number))

    def _complain(self, job: Job, error: Exception) -> None:
        fields = {"error": f"{type(error).__name__}: {error}"}
        self.tell(Said("error", "trigger.cleanup_failed", job.number, job.name, fields))

    def _spawn(
        self, work: Coroutine[Any, Any, None], feed: Feed | None = None
    ) -> asyncio.Task[None]:
        """Start work as a child of the lane's group, noted as the feed's."""
        if feed is None:
            return self._group.create_task(work)
        token = CURRENT.set(feed)
        try:
            steps = Steps(work, self._running, self.index, feed.first.number)
            return self._group.create_task(steps)
        finally:
            CURRENT.reset(token)

    def _main(self) -> None:
        try:
            anyio.run(self._serve, backend_options={"loop_factory": self._new_loop})
        except BaseException:  # noqa: BLE001 - without its loop the process is of no use
            traceback.print_exc()
            os._exit(1)

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_Selector(self._on_wait, self._on_wake))

    def _on_wait(self) -> None:
        self._waiting = True

    def _on_wake(self) -> None:
        self._waiting = False
        if not self.watched:
            self.watched = True
            self._woken()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._finished = anyio.Event()
        self._importing = anyio.Lock()
        self.alarms = Alarms(self._loop, self.now)
        # Not anyio's group: its tasks take 2.8 KB more each, of which there are ten thousands.
        async with asyncio.TaskGroup() as self._group:
            self._ready.set()
            await self._finished.wait()


class _Selector(selectors.DefaultSelector):
    """Tells when the loop waits and when it works."""

    def __init__(self, wait: Callable[[], None], wake: Callable[[], None]) -> None:
        super().__init__()
        self._wait = wait
        self._wake = wake

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._wait()
        try:
            return super().select(timeout)
        finally:
            self._wake()


class Steps(Coroutine[Any, Any, None]):
    """Runs a coroutine and notes in the recorder that its trigger runs, step by step."""

    __slots__ = ("_index", "_number", "_running", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, None], running: memoryview, index: int, number: int
    ) -> None:
        self._work = work
        self._running = running
        self._index = index
        self._number = number

    def send(self, value: Any) -> Any:
        """Go on until the next wait."""
        self._running[self._index] = self._number
        try:
            return self._work.send(value)
        finally:
            self._running[self._index] = 0

    def throw(self, error: Any, *more: Any) -> Any:
        """Go on with an exception until the next wait."""
        self._running[self._index] = self._number
        try:
            return self._work.throw(error, *more)
        finally:
            self._running[self._index] = 0

    def close(self) -> None:
        """End the coroutine."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._work.__await__()


def stack_of(frame: FrameType) -> str:
    """Return where a step of the loop stands, from its outermost frame on."""
    frames = []
    for each, line in traceback.walk_stack(frame):
        if each.f_code is _STEP:
            break
        frames.append((each, line))
    summary = traceback.StackSummary.extract(reversed(frames))
    here = __file__.rpartition("/")[0]
    kept = [each for each in summary if not each.filename.startswith(here)]
    return "".join(traceback.StackSummary.from_list(kept or summary).format())
