"""What the process for triggers does: the target that the daemon forks.

The main thread talks with the daemon and watches; triggers run on a loop in a thread beside it,
and those that hold up others on loops in further threads.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable

import anyio
import anyio.to_thread
import msgspec

from pubsubflow.runner.async_channel import Link
from pubsubflow.triggerer.host.loop_thread import Lane
from pubsubflow.triggerer.host.recorder import SLOTS, Recorder
from pubsubflow.triggerer.host.trigger_run import Feed
from pubsubflow.triggerer.host.watchdog import Watchdog
from pubsubflow.triggerer.protocol import (
    Blocked,
    CleanUp,
    Durable,
    Finish,
    Given,
    HostSettings,
    Job,
    Ping,
    Pong,
    Report,
    ShareKey,
    Start,
    Stop,
    decode_order,
    decode_settings,
    encode,
)

_FINISH_SECONDS = 2.0


class Host:
    """Runs triggers for the daemon at the other end of the socket.

    Args:
        sock: The stream of frames.
        settings: What the daemon says.
        now: The time, seconds since 1970.
    """

    def __init__(
        self, sock: socket.socket, settings: HostSettings, now: Callable[[], float] = time.time
    ) -> None:
        self._sock = sock
        self._settings = settings
        self._now = now
        self._recorder = Recorder(settings.recorder)
        self._lanes: list[Lane] = []
        self._lane_of: dict[int, Lane] = {}
        self._apart: dict[ShareKey, Lane] = {}
        self._outgoing: deque[bytes] = deque()
        self._flushes = False
        self._moves = 0
        self._stopped: set[int] = set()

    async def run(self) -> None:
        """Run triggers until the daemon closes the stream, or says so."""
        self._loop = asyncio.get_running_loop()
        self._ended = anyio.Event()
        self._main = self._open_lane()
        self._link = Link(self._sock, self._on_frame, self._ended.set)
        await self._ended.wait()
        give_up = time.monotonic() + _FINISH_SECONDS
        for lane in self._lanes:
            lane.post(lane.on_finish)
        for lane in self._lanes:
            await anyio.to_thread.run_sync(lane.join, max(give_up - time.monotonic(), 0.0))
        self._flush()
        self._link.close()

    def _open_lane(self) -> Lane:
        index = len(self._lanes)
        lane = Lane(
            index,
            settings=self._settings,
            recorder=self._recorder,
            tell=self._tell,
            moved=self._moved,
            woken=lambda: dog.wake() if dog is not None else None,
            now=self._now,
        )
        dog = self._watch(lane) if index == 0 else None
        self._lanes.append(lane)
        lane.start()
        return lane

    def _watch(self, lane: Lane) -> Watchdog:
        def returned(feed: Feed) -> None:
            self._moves += 1
            lane.post(lane.on_move, feed)

        return Watchdog(
            lane,
            block_seconds=self._settings.block_seconds,
            stuck_seconds=self._settings.stuck_seconds,
            report=self._report_blocked,
            returned=returned,
        )

    def _on_frame(self, frame: bytes) -> None:
        match decode_order(frame):
            case Start(jobs):
                self._start(jobs)
            case Stop(numbers):
                self._stop(numbers)
            case Durable(number):
                lane = self._lane_of.get(number, self._main)
                lane.post(lane.on_durable, number)
            case CleanUp(job):
                lane = self._lane_of.get(job.number) or self._lane_for(job)
                lane.post(lane.on_clean_up, job)
            case Given(lane=index) as given:
                for lane in self._lanes[index : index + 1]:
                    lane.post(lane.on_given, given)
            case Ping():
                self._link.post(encode(Pong()))
            case Finish():
                self._ended.set()

    def _start(self, jobs: tuple[Job, ...]) -> None:
        parts: dict[Lane, list[Job]] = {}
        for job in jobs:
            parts.setdefault(self._lane_for(job), []).append(job)
        for lane, part in parts.items():
            lane.post(lane.on_start, tuple(part))

    def _stop(self, numbers: tuple[int, ...]) -> None:
        if self._moves:  # one of them may be between two lanes
            self._stopped.update(numbers)
        parts: dict[Lane, list[int]] = {}
        for number in numbers:
            parts.setdefault(self._lane_of.pop(number, self._main), []).append(number)
        for lane, part in parts.items():
            lane.post(lane.on_stop, tuple(part))

    def _lane_for(self, job: Job) -> Lane:
        """Return where a trigger is to run: one that holds up others apart from them."""
        key = job.key
        lane = self._apart.get(key) if key is not None else None
        if lane is None:
            if not job.apart:
                return self._main
            lane = self._emptiest_lane()
            if key is not None:
                self._apart[key] = lane
        self._lane_of[job.number] = lane
        return lane

    def _emptiest_lane(self) -> Lane:
        apart = self._lanes[1:]
        emptiest = min(apart, key=lambda lane: lane.load, default=None)
        full = len(apart) >= min(self._settings.threads, SLOTS - 1)
        if emptiest is not None and (full or not emptiest.load):
            return emptiest
        return self._open_lane()

    def _moved(self, jobs: list[Job]) -> None:
        """Start triggers apart that ended on the common loop; called on that."""
        self._loop.call_soon_threadsafe(self._start_apart, jobs)

    def _start_apart(self, jobs: list[Job]) -> None:
        wanted = (job for job in jobs if job.number not in self._stopped)
        self._start(tuple(msgspec.structs.replace(job, apart=True) for job in wanted))
        self._moves -= 1
        if not self._moves:
            self._stopped.clear()

    def _report_blocked(self, report: Blocked) -> None:
        self._link.post(encode(report))

    def _tell(self, report: Report) -> None:
        """Send a report from any thread."""
        self._outgoing.append(encode(report))
        if not self._flushes:
            self._flushes = True
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        self._flushes = False  # first, so that nothing is appended unseen
        while self._outgoing:
            self._link.post(self._outgoing.popleft())


def main(sock: socket.socket, argument: bytes) -> None:
    """Run triggers for the daemon at the other end of the socket until it closes.

    Args:
        sock: The stream of frames.
        argument: Encoded HostSettings.
    """
    anyio.run(Host(sock, decode_settings(argument)).run)
