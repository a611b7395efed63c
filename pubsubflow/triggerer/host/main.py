"""The main function of the host process, which the daemon forks.

The main thread talks with the daemon and runs the watchdog; triggers run on a loop in a thread
beside it, and those that block it on loops in further threads.
"""

import asyncio
import resource
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.to_thread
import msgspec

from pubsubflow.runner.async_channel import AsyncChannel
from pubsubflow.runner.flight_recorder import SLOTS, FlightRecorder
from pubsubflow.triggerer.host.children import record_children
from pubsubflow.triggerer.host.loop_thread import LoopThread
from pubsubflow.triggerer.host.trigger_run import TriggerRun
from pubsubflow.triggerer.host.watchdog import Watchdog
from pubsubflow.triggerer.protocol import (
    CleanUpTrigger,
    EventCommitted,
    HostReport,
    HostSettings,
    Ping,
    PingReply,
    PollKey,
    Shutdown,
    StartTriggers,
    StopTriggers,
    TriggerAnswer,
    TriggerConnectionReply,
    TriggerSpec,
    decode_command,
    decode_settings,
    encode,
)

_SHUTDOWN_SECONDS = 2.0


class TriggerHost:
    """Runs triggers for the daemon at the other end of the socket.

    Args:
        sock: The stream of frames.
        settings: The argument that the daemon forked it with.
        now: The time, seconds since 1970.
    """

    def __init__(
        self, sock: socket.socket, settings: HostSettings, now: Callable[[], float] = time.time
    ) -> None:
        self._sock = sock
        self._settings = settings
        self._now = now
        self._recorder = FlightRecorder(settings.recorder)
        self._threads: list[LoopThread] = []
        self._thread_of: dict[int, LoopThread] = {}
        self._isolated: dict[PollKey, LoopThread] = {}
        self._outgoing: deque[bytes] = deque()
        self._flush_scheduled = False
        self._moves = 0
        self._stopped: set[int] = set()

    async def run(self) -> None:
        """Run triggers until the daemon closes the stream or orders the shutdown."""
        self._loop = asyncio.get_running_loop()
        self._ended = anyio.Event()
        self._main = self._open_thread()
        self._channel = AsyncChannel(self._sock, self._on_frame, self._ended.set)
        # It is loaded: from now on it answers in time, or a trigger keeps it from doing so.
        self._channel.post(encode(PingReply()))
        await self._ended.wait()
        give_up = time.monotonic() + _SHUTDOWN_SECONDS
        for thread in self._threads:
            thread.post(thread.on_shutdown)
        for thread in self._threads:
            await anyio.to_thread.run_sync(thread.join, max(give_up - time.monotonic(), 0.0))
        self._flush()
        self._channel.close()

    def _open_thread(self) -> LoopThread:
        index = len(self._threads)
        thread = LoopThread(
            index,
            settings=self._settings,
            recorder=self._recorder,
            report=self._report,
            on_moved=self._on_moved,
            on_wake=lambda: watchdog.wake() if watchdog is not None else None,
            now=self._now,
        )
        # Only the shared loop is watched: on the others a trigger blocks few or none.
        watchdog = self._watch(thread) if index == 0 else None
        self._threads.append(thread)
        thread.start()
        return thread

    def _watch(self, thread: LoopThread) -> Watchdog:
        def on_unblocked(run: TriggerRun) -> None:
            self._moves += 1
            thread.post(thread.on_move, run)

        return Watchdog(
            thread,
            block_seconds=self._settings.block_seconds,
            stuck_seconds=self._settings.stuck_seconds,
            on_blocked=lambda report: self._channel.post(encode(report)),
            on_unblocked=on_unblocked,
        )

    def _on_frame(self, frame: bytes) -> None:
        match decode_command(frame):
            case StartTriggers(triggers):
                self._start(triggers)
            case StopTriggers(trigger_ids):
                self._stop(trigger_ids)
            case EventCommitted(trigger_id):
                thread = self._thread_of.get(trigger_id, self._main)
                thread.post(thread.on_committed, trigger_id)
            case CleanUpTrigger(spec):
                thread = self._thread_of.get(spec.trigger_id) or self._choose_thread(spec)
                thread.post(thread.on_clean_up, spec)
            case TriggerConnectionReply() | TriggerAnswer() as reply:
                # No such loop, if the reply was meant for an earlier host.
                for thread in self._threads[reply.loop : reply.loop + 1]:
                    thread.post(thread.on_reply, reply)
            case Ping():
                self._channel.post(encode(PingReply()))
            case Shutdown():
                self._ended.set()

    def _start(self, triggers: tuple[TriggerSpec, ...]) -> None:
        parts: dict[LoopThread, list[TriggerSpec]] = {}
        for spec in triggers:
            parts.setdefault(self._choose_thread(spec), []).append(spec)
        for thread, part in parts.items():
            thread.post(thread.on_start, tuple(part))

    def _stop(self, trigger_ids: tuple[int, ...]) -> None:
        # One that moves has ended on the shared loop and is not started on its own yet: it is
        # remembered, so that the move does not start it again.
        if self._moves:
            self._stopped.update(trigger_ids)
        parts: dict[LoopThread, list[int]] = {}
        for trigger_id in trigger_ids:
            thread = self._thread_of.pop(trigger_id, self._main)
            parts.setdefault(thread, []).append(trigger_id)
        for thread, part in parts.items():
            thread.post(thread.on_stop, tuple(part))

    def _choose_thread(self, spec: TriggerSpec) -> LoopThread:
        """Return the thread for a trigger: the shared one, unless it is isolated."""
        key = spec.poll_key
        thread = self._isolated.get(key) if key is not None else None
        if thread is None:
            if not spec.isolated:
                return self._main
            thread = self._emptiest_thread()
            if key is not None:
                self._isolated[key] = thread
        self._thread_of[spec.trigger_id] = thread
        return thread

    def _emptiest_thread(self) -> LoopThread:
        others = self._threads[1:]
        emptiest = min(others, key=lambda thread: thread.load, default=None)
        full = len(others) >= min(self._settings.threads, SLOTS - 1)
        if emptiest is not None and (full or not emptiest.load):
            return emptiest
        return self._open_thread()

    def _on_moved(self, triggers: list[TriggerSpec]) -> None:
        """Start triggers isolated that ended on the shared loop; called on that."""
        self._loop.call_soon_threadsafe(self._start_isolated, triggers)

    def _start_isolated(self, triggers: list[TriggerSpec]) -> None:
        wanted = (spec for spec in triggers if spec.trigger_id not in self._stopped)
        self._start(tuple(msgspec.structs.replace(spec, isolated=True) for spec in wanted))
        self._moves -= 1
        if not self._moves:
            self._stopped.clear()

    def _report(self, report: HostReport) -> None:
        """Send a report from any thread."""
        self._outgoing.append(encode(report))
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        # Cleared first: what another thread appends after the loop below schedules a new flush.
        self._flush_scheduled = False
        while self._outgoing:
            self._channel.post(self._outgoing.popleft())


def main(sock: socket.socket, argument: bytes) -> None:
    """Run triggers for the daemon at the other end of the socket until it closes.

    Args:
        sock: The stream of frames.
        argument: Encoded HostSettings.
    """
    # Each trigger may hold a socket, and a loop of asyncio bears any number of descriptors.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    record_children()
    anyio.run(TriggerHost(sock, decode_settings(argument)).run)
