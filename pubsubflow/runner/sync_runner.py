"""The sync runner: one task at a time, in the main thread of a process that can be killed."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, TextIO

from pubsubflow.authoring.bind import RunnableDag
from pubsubflow.model.wire.messages import (
    JournalEntry,
    Outcome,
    PublishedEvent,
    TaskError,
    decode_task,
)
from pubsubflow.model.wire.worker_requests import Chunk, WantedRun, decode_chunk
from pubsubflow.runner.caches.dag_cache import DagCache
from pubsubflow.runner.exchanges.requests import (
    fetch_result,
    run_exchange,
    start_run,
)
from pubsubflow.runner.exchanges.task_host import RunnerHost
from pubsubflow.runner.execution import TaskExecution
from pubsubflow.runner.failures import stopped_at
from pubsubflow.runner.flight_recorder import begins, map_numbers
from pubsubflow.runner.frames import FrameDecoder, send_frame
from pubsubflow.runner.limits import PeakMemory
from pubsubflow.runner.log_lines import NODE_MARK, RECORD_MARK, log_record
from pubsubflow.runner.output import install_logging
from pubsubflow.runner.process_state import (
    Patches,
    ProcessState,
    adopt_orphans,
    kill_descendants,
    reseed,
)
from pubsubflow.runner.protocol import (
    AHEAD,
    DRAIN,
    LEFT,
    NUMBERED,
    REPLY,
    RETURNED,
    SOURCE,
    TASK,
    RunnerRequest,
    RunnerSettings,
    request_frame,
)
from pubsubflow.runner.redaction import Redactor

_CHUNK_BYTES = 65_536
_TASKS = (TASK, AHEAD)
_OUTPUTS = (1, 2)
_MOST_NAMED = 8
_NODE_END = f"{NODE_MARK}\n".encode()
_TERMINATED = 128 + signal.SIGTERM


class Interrupted(SystemExit):
    """The worker stops this process; raised in the middle of user code."""


class BlockingChannel:
    """Frames to and from the worker; requests may come from any thread.

    Args:
        sock: The connected socket, blocking.

    Attributes:
        is_sending: Whether a frame is sent in part; it stays so when a signal interrupts that.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = FrameDecoder()
        self._waiting: deque[bytes] = deque()
        self._last_request = 0
        self.is_sending = False
        # Lock order: the request lock is held over a whole exchange and takes the send lock
        # inside. A result may be sent meanwhile by the main thread, with the send lock alone.
        self._request_lock = threading.Lock()
        self._send_lock = threading.Lock()

    def receive(self) -> bytes:
        """Wait for the next frame and return it.

        Raises:
            EOFError: The worker is gone or has no more work for this process.
        """
        while not self._waiting:
            self._read(0)
        return self._waiting.popleft()

    def abandon(self) -> None:
        """Send and receive nothing more, in a forked child: the parent goes on with the stream."""
        self._sock.close()

    def arrived(self) -> list[bytes]:
        """Return the frames that are here already, without waiting."""
        with contextlib.suppress(BlockingIOError):
            self._read(socket.MSG_DONTWAIT)
        frames = list(self._waiting)
        self._waiting.clear()
        return frames

    def put_back(self, frames: Iterable[bytes]) -> None:
        """Leave frames that have arrived for `receive`, before all that arrive later."""
        self._waiting.extend(frames)

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        with self._send_lock:
            self.is_sending = True
            send_frame(self._sock, frame)
            self.is_sending = False

    def request(self, request: RunnerRequest) -> Chunk:
        """Send a request to the worker and wait for the reply.

        Raises:
            EOFError: The worker is gone.
        """
        with self._request_lock:
            self._last_request += 1
            self.send(request_frame(self._last_request, request))
            others: list[bytes] = []
            while True:
                frame = self.receive()
                if frame[0] == REPLY and NUMBERED.unpack_from(frame)[1] == self._last_request:
                    self._waiting.extendleft(reversed(others))
                    return decode_chunk(frame[NUMBERED.size :])
                others.append(frame)

    def _read(self, flags: int) -> None:
        data = self._sock.recv(_CHUNK_BYTES, flags)
        if not data:
            raise EOFError
        self._waiting.extend(self._decoder.feed(data))


class SyncRunner:
    """Runs tasks until the worker closes the stream.

    Its file descriptors 1 and 2 are pipes that the worker reads.

    Args:
        sock: The stream to the worker.
        settings: The argument that the worker forked it with.
    """

    def __init__(self, sock: socket.socket, settings: RunnerSettings) -> None:
        self._channel = BlockingChannel(sock)
        self._settings = settings
        self._redactor = Redactor()
        self._dags = DagCache()
        self._draining = self._spoilt = False
        self._page = map_numbers(settings.recorder) if settings.recorder else None
        self._streams = (sys.stdout, sys.stderr)
        self._pid = os.getpid()
        self._peak_memory = PeakMemory()

    def run(self) -> None:
        """Run tasks until the worker closes the stream."""
        signal.signal(signal.SIGTERM, _interrupt)
        os.register_at_fork(after_in_child=self._channel.abandon)
        stderr = self._streams[1]
        install_logging(lambda level, text, fields: _write_record(stderr, level, text, fields))
        adopt_orphans()
        self._note_state()
        while True:
            try:
                frame = self._channel.receive()
            except EOFError:
                return
            self._handle(frame)

    def _handle(self, frame: bytes) -> None:
        kind = frame[0]
        if kind in _TASKS:
            _, number = NUMBERED.unpack_from(frame)
            if not self._begins(number):
                self._channel.send(NUMBERED.pack(RETURNED, number))
                return
            if kind == AHEAD:
                # The result of the task before may be on its way still: by the mark the worker
                # separates what the two write.
                self._mark_output()
            message = decode_task(frame[NUMBERED.size :])
            self._run_task(
                TaskExecution(number, message, self._settings, self._redactor, self._peak_memory)
            )
        elif kind == SOURCE:
            self._dags.add(frame[1:])
        elif kind == DRAIN:
            self._draining = True

    def _begins(self, number: int) -> bool:
        """Note that a task begins, and return whether it may: the worker may have revoked it."""
        page = self._page
        if page is None:
            return True
        return begins(page, number) and not self._spoilt

    def _mark_output(self) -> None:
        for fd in _OUTPUTS:
            os.write(fd, _NODE_END)

    def _run_task(self, execution: TaskExecution) -> None:
        while True:
            node = execution.node
            frame = self._run_node(execution)
            self._flush_output()
            if os.getpid() != self._pid:
                # A child that the task forked came back: stream and result are the parent's.
                os._exit(1)
            self._clean_up(execution)
            has_next = execution.node != node
            if has_next:
                # Before the result: by this mark the worker separates what this node wrote
                # from what the next one writes while the result is still on its way.
                self._mark_output()
            self._channel.send(frame)
            self._peak_memory.restart()
            if not has_next:
                return

    def _run_node(self, execution: TaskExecution) -> bytes:
        execution.started_at = time.time()
        message = execution.message
        try:
            dag = self._dags.find(message.source) or self._import(message.source)
            host = _Host(self._channel, execution, dag, self._streams[1])
            spec = dag.tasks[execution.node]
            fetched = {}
            if spec.inputs or spec.mapped_arguments or message.journal is None:
                for key, request in execution.missing(dag):
                    fetched[key] = run_exchange(fetch_result(request), self._channel.request)
            bound = execution.bind(dag, host, fetched)
            value = bound.run()
            # A DRAIN that came meanwhile stops the chain before the result names the next node.
            if execution.has_next:
                self._check_patches(execution)
                self._handle_arrived()
                execution.chain_stopped = self._draining
            return execution.succeed(bound, value)
        except Interrupted as error:
            self._report_stop(execution, error)
            raise
        except BaseException as error:  # noqa: BLE001 - the result carries it to the worker
            return execution.fail(error)

    def _import(self, source: str) -> RunnableDag:
        try:
            return self._dags.load(source)
        finally:
            # What a DAG file sets when it is imported is there for all tasks of this process.
            self._note_state()

    def _note_state(self) -> None:
        self._state, self._patches = ProcessState(alone=True), Patches()

    def _clean_up(self, execution: TaskExecution) -> None:
        """Take away what the task has left: the next one may be of another DAG."""
        self._state.restore()
        reseed()
        killed = kill_descendants()
        if killed:
            self._warn(f"processes that the task left running were killed: {killed}")
        self._check_patches(execution)

    def _check_patches(self, execution: TaskExecution) -> None:
        """Have the worker give this process no further task, if functions are replaced in it."""
        patched = ", ".join(self._patches.changes()[:_MOST_NAMED])
        if patched and not self._draining:
            self._spoilt = self._draining = True
            self._warn(
                f"the task has replaced for the whole process: {patched}; no further task begins "
                "in this process"
            )
            self._channel.send(NUMBERED.pack(LEFT, execution.number))

    def _warn(self, text: str) -> None:
        self._streams[1].write(RECORD_MARK + log_record("warning", text, {}))
        self._streams[1].flush()

    def _report_stop(self, execution: TaskExecution, error: Interrupted) -> None:
        """Send where the task stood; the worker knows why it was stopped."""
        # A frame after half a frame would be taken for its rest.
        if not self._channel.is_sending:
            place = TaskError(type(error).__name__, "stopped", stopped_at(error))
            frame = execution.end(Outcome.CANCELLED, place)
            self._flush_output()
            self._channel.send(frame)

    def _handle_arrived(self) -> None:
        """Handle the frames that came while the task ran; further tasks wait for its end."""
        frames = self._channel.arrived()
        for frame in frames:
            if frame[0] not in _TASKS:
                self._handle(frame)
        self._channel.put_back(frame for frame in frames if frame[0] in _TASKS)

    def _flush_output(self) -> None:
        """Flush all output into the pipes before the result is sent."""
        for stream in {sys.stdout, sys.stderr, *self._streams}:
            if stream is not None and not stream.closed:
                stream.flush()
        sys.stdout, sys.stderr = self._streams


class _Host(RunnerHost):
    """The process as a task's context sees it."""

    def __init__(
        self, channel: BlockingChannel, execution: TaskExecution, dag: RunnableDag, stderr: TextIO
    ) -> None:
        super().__init__(execution, dag, channel.request)
        self._stderr = stderr

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a log record to stderr, with the mark that separates it from other output."""
        _write_record(self._stderr, level, event, fields)

    async def apublish(self, event: PublishedEvent) -> None:
        """Publish an event; the process runs nothing else, so it may block."""
        self.publish(event)

    async def start_run(self, wanted: WantedRun) -> str:
        """Start a run on behalf of the task; the process runs nothing else, so it may block."""

        async def send(request: RunnerRequest) -> Chunk:
            return self._request(request)

        return await start_run(send, self._execution.start_run_request(wanted))

    async def record(self, entry: JournalEntry) -> JournalEntry:
        """Refuse a journal entry: sync tasks have no journal."""
        raise NotImplementedError(f"step {entry.label!r} of a sync task")


def _write_record(stderr: TextIO, level: str, event: str, fields: Mapping[str, Any]) -> None:
    stderr.write(RECORD_MARK + log_record(level, event, fields))


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Interrupted(_TERMINATED)
