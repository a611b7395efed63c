"""A loop thread: a thread with an event loop on which triggers run."""

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
from pubsubflow.model.wire.task_questions import (
    ReadVariable,
    TaskQuestion,
    decode_fact,
    decode_found_variable,
)
from pubsubflow.plugins import decode_trigger, trigger_type
from pubsubflow.runner.flight_recorder import FlightRecorder
from pubsubflow.runner.redaction import Redactor
from pubsubflow.triggerer.host.timers import TimerHeap
from pubsubflow.triggerer.host.trigger_run import (
    CURRENT,
    HostTriggerContext,
    TriggerRun,
    error_of,
)
from pubsubflow.triggerer.protocol import (
    HostLogLine,
    HostReport,
    HostSettings,
    PollKey,
    TriggerAnswer,
    TriggerCleanedUp,
    TriggerConnectionReply,
    TriggerConnectionRequest,
    TriggerQuestion,
    TriggersFailed,
    TriggerSpec,
)

_STARTS_A_TURN = 200
_STEP = asyncio.Handle._run.__code__  # noqa: SLF001
"""Every step of a loop runs in a frame of this code, with the handle as `self`."""


class LoopThread:
    """Runs triggers on an event loop in a thread of its own.

    Methods whose names begin with `on_` are called on the loop, by `post`.

    Args:
        index: Its index among the loops, also in the flight recorder.
        settings: Limits.
        recorder: Records which trigger runs.
        report: Sends a report; may be called from any thread.
        on_moved: Called on the loop with the triggers of a run that are to move to another loop:
            once for each `on_move`.
        on_wake: Called on the loop's thread when the loop wakes up while `watched` is not set.
        now: The time, seconds since 1970.

    Attributes:
        watched: Whether the watchdog checks it already.
    """

    def __init__(
        self,
        index: int,
        *,
        settings: HostSettings,
        recorder: FlightRecorder,
        report: Callable[[HostReport], None],
        on_moved: Callable[[list[TriggerSpec]], None],
        on_wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self.index = index
        self.acknowledge_seconds = settings.acknowledge_seconds
        self.cleanup_seconds = settings.cleanup_seconds
        self.watched = False
        self._report = report
        self._redactor = Redactor()
        self._requests: dict[tuple[int, str], asyncio.Future[TriggerConnectionReply]] = {}
        self._questions: dict[tuple[int, int], asyncio.Future[TriggerAnswer]] = {}
        self._next_request = count()
        self.now = now
        self._running = recorder.running
        self._on_moved = on_moved
        self._on_wake = on_wake
        self._runs: dict[int, TriggerRun] = {}
        self._shared_runs: dict[PollKey, TriggerRun] = {}
        self._to_start: set[int] = set()
        self._imported: set[str] = set()
        self._waiting = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"triggers-{index}", daemon=True)

    def start(self) -> None:
        """Start the thread; return when its loop runs."""
        self._thread.start()
        self._ready.wait()

    def post(self, act: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the loop, from any thread."""
        self._loop.call_soon_threadsafe(partial(act, *arguments))

    def join(self, seconds: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    @property
    def load(self) -> int:
        """How many triggers it runs."""
        return len(self._runs)

    def current_step(self) -> tuple[asyncio.Handle, FrameType] | None:
        """Return the step that the loop runs now, from another thread; None while it waits."""
        if self._waiting:
            return None
        frame = innermost = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        while frame is not None and frame.f_code is not _STEP:
            frame = frame.f_back
        if frame is None or innermost is None:
            return None
        return frame.f_locals["self"], innermost

    def on_start(self, triggers: tuple[TriggerSpec, ...]) -> None:
        """Run triggers."""
        self._to_start.update(spec.trigger_id for spec in triggers)
        self._spawn(self._start_all(triggers))

    def on_stop(self, trigger_ids: tuple[int, ...]) -> None:
        """Close triggers."""
        for trigger_id in trigger_ids:
            self._to_start.discard(trigger_id)
            run = self._runs.pop(trigger_id, None)
            if run is not None:
                run.leave(trigger_id)

    def on_committed(self, trigger_id: int) -> None:
        """Continue a trigger whose event is committed."""
        run = self._runs.get(trigger_id)
        if run is not None:
            run.on_committed(trigger_id)
            if trigger_id not in run.trigger_ids:
                del self._runs[trigger_id]

    def on_clean_up(self, spec: TriggerSpec) -> None:
        """Close a trigger that a user cancelled, and run its clean-up."""
        self.on_stop((spec.trigger_id,))
        try:
            run = TriggerRun(decode_trigger(spec.name, spec.data), spec, self)
        except TriggerError as error:
            self._log_cleanup_failed(spec, error)
            self.report(TriggerCleanedUp(spec.trigger_id))
            return
        self._spawn(self._clean_up(run, spec), run)

    def on_move(self, run: TriggerRun) -> None:
        """Give a trigger to another loop."""
        if run.specs and not run.moving:
            run.move()
        else:
            self._on_moved([])

    def on_reply(self, reply: TriggerConnectionReply | TriggerAnswer) -> None:
        """Hand the daemon's reply to the trigger that made the request."""
        waiting: Any
        if isinstance(reply, TriggerAnswer):
            waiting = self._questions.get((reply.request, reply.trigger_id))
        else:
            waiting = self._requests.get((reply.request, reply.name))
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def on_shutdown(self) -> None:
        """Close everything and end."""
        self.on_stop((*self._runs, *self._to_start))
        self._shut_down.set()

    def report(self, report: HostReport) -> None:
        """Send a report; secrets are redacted in what people read."""
        match report:
            case TriggersFailed(_, error):
                report = msgspec.structs.replace(report, error=self._redactor.error(error))
            case HostLogLine(fields=fields):
                report = msgspec.structs.replace(report, fields=self._redactor.value(fields))
        self._report(report)

    async def connection(self, name: str, trigger_id: int) -> Connection:
        """Request a connection from the daemon; its secrets are redacted from then on.

        Raises:
            TriggerError: It does not exist, is for other DAGs, or cannot be decrypted.
        """
        request = next(self._next_request)
        waiting: asyncio.Future[TriggerConnectionReply] = self._loop.create_future()
        self._requests[request, name] = waiting
        try:
            self._report(TriggerConnectionRequest(self.index, request, name, trigger_id))
            reply = await waiting
        finally:
            del self._requests[request, name]
        if reply.connection is None:
            raise TriggerError(reply.error or "this triggerer knows no connections")
        self._redactor.add(reply.connection)
        return reply.connection

    async def answer(self, question: TaskQuestion, trigger_id: int) -> Any:
        """Return the daemon's answer to a question.

        Raises:
            TriggerError: It is refused.
        """
        request = next(self._next_request)
        waiting: asyncio.Future[TriggerAnswer] = self._loop.create_future()
        self._questions[request, trigger_id] = waiting
        try:
            self._report(TriggerQuestion(self.index, request, trigger_id, question))
            reply = await waiting
        finally:
            del self._questions[request, trigger_id]
        if reply.error is not None:
            raise TriggerError(reply.error)
        if not isinstance(question, ReadVariable):
            return decode_fact(question, reply.data)
        found = decode_found_variable(reply.data)
        if found is not None:
            self._redactor.add(found)
        return found

    def on_closed(self, run: TriggerRun) -> None:
        """Start equal triggers on their own from now on."""
        if run.poll_key is not None and self._shared_runs.get(run.poll_key) is run:
            del self._shared_runs[run.poll_key]

    def on_ended(self, run: TriggerRun, restart: list[TriggerSpec]) -> None:
        """Remove a run, and start again those for which it did not run."""
        for trigger_id in [*run.trigger_ids, *(spec.trigger_id for spec in restart)]:
            if self._runs.get(trigger_id) is run:
                del self._runs[trigger_id]
        if run.moving:
            self._on_moved(restart)
        elif restart:
            self.on_start(tuple(restart))

    async def _start_all(self, triggers: tuple[TriggerSpec, ...]) -> None:
        # Importing a trigger's module takes time, in which those that run go on. A trigger that
        # is stopped meanwhile is no longer in `_to_start`.
        for name in {spec.name for spec in triggers}:
            try:
                await self._import(name)
            except TriggerError as error:
                named = [spec for spec in triggers if spec.name == name and self._take_start(spec)]
                self._refuse(named, error)
        for started, spec in enumerate(triggers, 1):
            if self._take_start(spec):
                self._run(spec)
            if started % _STARTS_A_TURN == 0:
                await anyio.lowlevel.checkpoint()

    async def _import(self, name: str) -> None:
        async with self._import_lock:
            if name not in self._imported:
                await anyio.to_thread.run_sync(trigger_type, name)
                self._imported.add(name)

    def _take_start(self, spec: TriggerSpec) -> bool:
        """Return whether a trigger is still to be started, and mark that it is."""
        wanted = spec.trigger_id in self._to_start
        self._to_start.discard(spec.trigger_id)
        return wanted

    def _run(self, spec: TriggerSpec) -> None:
        run = None if spec.poll_key is None else self._shared_runs.get(spec.poll_key)
        if run is not None:
            run.join(spec)
            self._runs[spec.trigger_id] = run
            return
        try:
            run = TriggerRun(decode_trigger(spec.name, spec.data), spec, self)
        except TriggerError as error:
            self._refuse([spec], error)
            return
        self._runs[spec.trigger_id] = run
        if run.poll_key is not None:
            self._shared_runs[run.poll_key] = run
        run.task = self._spawn(run.run(), run)

    def _refuse(self, triggers: list[TriggerSpec], error: TriggerError) -> None:
        if triggers:
            trigger_ids = tuple(spec.trigger_id for spec in triggers)
            self.report(TriggersFailed(trigger_ids, error_of(error, error, final=True)))

    async def _clean_up(self, run: TriggerRun, spec: TriggerSpec) -> None:
        try:
            with anyio.fail_after(self.cleanup_seconds):
                await run.trigger.cancelled(HostTriggerContext(run))
        except Exception as error:  # noqa: BLE001 - it is logged, and must not end the loop
            self._log_cleanup_failed(spec, error)
        finally:
            self.report(TriggerCleanedUp(spec.trigger_id))

    def _log_cleanup_failed(self, spec: TriggerSpec, error: Exception) -> None:
        fields = {"error": f"{type(error).__name__}: {error}"}
        line = HostLogLine("error", "trigger.cleanup_failed", spec.trigger_id, spec.name, fields)
        self.report(line)

    def _spawn(
        self, work: Coroutine[Any, Any, None], run: TriggerRun | None = None
    ) -> asyncio.Task[None]:
        """Start a coroutine in the loop's group; of a run, each of its steps is recorded."""
        if run is None:
            return self._group.create_task(work)
        token = CURRENT.set(run)
        try:
            trigger_id = run.first.trigger_id
            recorded = RecordedCoroutine(work, self._running, self.index, trigger_id)
            return self._group.create_task(recorded)
        finally:
            CURRENT.reset(token)

    def _main(self) -> None:
        try:
            anyio.run(self._serve, backend_options={"loop_factory": self._new_loop})
        except BaseException:  # noqa: BLE001 - without its loop the process is of no use
            traceback.print_exc()
            os._exit(1)

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_Selector(self._on_wait_begins, self._on_wait_ends))

    def _on_wait_begins(self) -> None:
        self._waiting = True

    def _on_wait_ends(self) -> None:
        self._waiting = False
        if not self.watched:
            self.watched = True
            self._on_wake()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._shut_down = anyio.Event()
        self._import_lock = anyio.Lock()
        self.timers = TimerHeap(self._loop, self.now)
        # A pause by a clock that is set back meanwhile would take as much longer.
        self.pauses = TimerHeap(self._loop, self._loop.time)
        # Not anyio's group: its tasks take 2.8 KB more each, of which there are ten thousands.
        async with asyncio.TaskGroup() as self._group:
            self._ready.set()
            await self._shut_down.wait()


class _Selector(selectors.DefaultSelector):
    """A selector that calls a function before and after each wait of the loop."""

    def __init__(self, on_begin: Callable[[], None], on_end: Callable[[], None]) -> None:
        super().__init__()
        self._on_begin = on_begin
        self._on_end = on_end

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._on_begin()
        try:
            return super().select(timeout)
        finally:
            self._on_end()


class RecordedCoroutine(Coroutine[Any, Any, None]):
    """Runs a coroutine and records, step by step, that its trigger runs."""

    __slots__ = ("_index", "_running", "_trigger_id", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, None], running: memoryview, index: int, trigger_id: int
    ) -> None:
        self._work = work
        self._running = running
        self._index = index
        self._trigger_id = trigger_id

    def send(self, value: Any) -> Any:
        """Run until the next await."""
        self._running[self._index] = self._trigger_id
        try:
            return self._work.send(value)
        finally:
            self._running[self._index] = 0

    def throw(self, error: Any, *more: Any) -> Any:
        """Raise an exception in it, and run until the next await."""
        self._running[self._index] = self._trigger_id
        try:
            return self._work.throw(error, *more)
        finally:
            self._running[self._index] = 0

    def close(self) -> None:
        """Close the coroutine."""
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
