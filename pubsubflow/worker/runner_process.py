"""One runner process, as the worker sees it."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import anyio
import msgspec
import structlog

from pubsubflow.model.spec import SourceBundle
from pubsubflow.model.wire.messages import NO_NODE, encode
from pubsubflow.model.wire.worker_requests import asks_connection, decode_connection, decode_piece
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.protocol import (
    ANSWER,
    CANCEL,
    DRAIN_FRAME,
    LOG,
    NUMBERED,
    PUBLISH,
    QUESTION,
    RESULT,
    RESULT_HEAD,
    SOURCE_HEAD,
    TASK,
    RunnerSettings,
)
from pubsubflow.runner.redaction import Mask
from pubsubflow.worker.assignment import Ticket
from pubsubflow.worker.manager_client import Source
from pubsubflow.worker.stdio import OutputPipe

log = structlog.get_logger(__name__)

_TARGET = "pubsubflow.runner.main:main"
_LAST_LINES = 40
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class RunnerEvents(Protocol):
    """Who is told what happens in a runner."""

    def on_result(self, ticket: Ticket, then: int, payload: bytes) -> None:
        """A node of the ticket is done; `then` is the next one, or NO_NODE."""

    def on_output(self, ticket: Ticket, lines: str) -> None:
        """A ticket wrote something."""

    def on_question(self, question: bytes, use: Callable[[bytes], None]) -> None:
        """A task asks; `use` takes the encoded Piece."""

    def on_publish(self, event: bytes, use: Callable[[bytes], None]) -> None:
        """A task has news; `use` takes an encoded Piece once the bus has stored it."""


class Runner:
    """A process for user code and the tickets that it has.

    Args:
        settings: What the process is told at its start.
        slots: How many tickets it may have at once.
        events: Who is told what happens.

    Attributes:
        tickets: Ticket number → ticket.
        sources: Hashes of the code it has.
        served: How many tickets it has had.
        doomed: It was told to end, or is about to be killed: it gets no more tickets.
        idle_since: Time of the loop when it had nothing to do any more.
    """

    def __init__(self, settings: RunnerSettings, slots: int, events: RunnerEvents) -> None:
        self.tickets: dict[int, Ticket] = {}
        self.sources: set[str] = set()
        self.served = 0
        self.doomed = False
        self.idle_since = 0.0
        self._settings = settings
        self._slots = slots
        self._events = events
        self._modules: dict[str, str] = {}
        self._files: dict[str, dict[str, str]] = {}
        self._child: ChildProcess | None = None
        self._ended = anyio.Event()
        self._mask = Mask()
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._alone = settings.kind == "sync"
        self._pipes = [OutputPipe(name, self._on_stray_lines) for name in ("stdout", "stderr")]

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is forked."""
        return 0 if self._child is None else self._child.pid

    @property
    def free(self) -> bool:
        """Whether it can take another ticket."""
        return self._child is not None and not self.doomed and len(self.tickets) < self._slots

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr and stdout beside its tasks."""
        return "\n".join(self._last_lines)

    async def live(self, fork_server: ForkServer, ready: Callable[[], None]) -> int:
        """Fork the process, call `ready`, and return its exit code when it is gone.

        Raises:
            OSError: The system refuses another process.
        """
        stdout, stderr = self._pipes
        try:
            child = await fork_server.fork(
                _TARGET,
                encode(self._settings),
                on_frame=self._on_frame,
                on_end=self._ended.set,
                output=(stdout.writer, stderr.writer),
            )
            stdout.release_writer()
            stderr.release_writer()
            async with child:
                self._child = child
                ready()
                await self._ended.wait()
                with anyio.move_on_after(self._settings.grace_seconds):
                    await child.wait()
            for pipe in self._pipes:
                pipe.finish()
            return await child.wait()
        finally:
            self.doomed = True
            for pipe in self._pipes:
                pipe.close()

    def suits(self, bundle: SourceBundle) -> bool:
        """Whether no module that it may have imported differs from the bundle's."""
        modules = _modules_of(bundle)
        if self._files.get(bundle.file, modules) != modules:
            return False
        return all(self._modules.get(path, text) == text for path, text in modules.items())

    def give(self, ticket: Ticket, source: Source) -> None:
        """Let it run a ticket."""
        self.tickets[ticket.number] = ticket
        self.served += 1
        ticket.runner = self
        if ticket.head.source not in self.sources and source.bundle is not None:
            self.sources.add(ticket.head.source)
            modules = self._files[source.bundle.file] = _modules_of(source.bundle)
            self._modules |= modules
            self._post(SOURCE_HEAD + source.data)
        self._post(NUMBERED.pack(TASK, ticket.number) + ticket.order())

    def cancel(self, ticket: Ticket) -> None:
        """Ask it to stop one async task."""
        self._post(NUMBERED.pack(CANCEL, ticket.number))

    def drain(self) -> None:
        """Ask it to go on with no chain."""
        self._post(DRAIN_FRAME)

    def retire(self) -> None:
        """Let it end by itself: it has nothing to do."""
        self.doomed = True
        if self._child is not None:
            self._child.link.close()
            self._ended.set()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it and to all that it started; it gets no more tickets."""
        self.doomed = True
        if self._child is not None:
            self._child.kill(number)

    def resident_bytes(self) -> int:
        """Tell how much memory it holds; 0 where the system does not say."""
        if sys.platform != "linux":
            return 0
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_BYTES
        except FileNotFoundError:
            return 0

    def _post(self, frame: bytes) -> None:
        if self._child is not None:
            self._child.link.post(frame)

    def _on_frame(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == RESULT:
            _, number, _, then = RESULT_HEAD.unpack_from(frame)
            ticket = self.tickets.get(number)
            if ticket is None:
                return
            self._on_result(ticket, then, frame[RESULT_HEAD.size :])
            return
        _, number = NUMBERED.unpack_from(frame)
        body = frame[NUMBERED.size :]
        if kind == LOG and number in self.tickets:
            self._events.on_output(self.tickets[number], self._mask.lines(body.decode()))
        elif kind == QUESTION and asks_connection(body):
            self._events.on_question(body, lambda piece: self._learn(number, piece))
        elif kind == QUESTION:
            self._events.on_question(body, lambda piece: self._answer(number, piece))
        elif kind == PUBLISH:
            self._events.on_publish(body, lambda piece: self._answer(number, piece))

    def _on_result(self, ticket: Ticket, then: int, payload: bytes) -> None:
        if not self._alone:
            self._events.on_result(ticket, then, payload)
            return
        for pipe in self._pipes:
            pipe.finish() if then == NO_NODE else pipe.drain()
        self._events.on_result(ticket, then, payload)
        if then != NO_NODE:
            for pipe in self._pipes:
                pipe.next_node()

    def _learn(self, number: int, data: bytes) -> None:
        """Hand a connection over, and show nothing of its secrets from now on."""
        piece = decode_piece(data)
        if piece.total:
            self._mask.add(decode_connection(piece.data))
        self._answer(number, data)

    def _answer(self, number: int, piece: bytes) -> None:
        self._post(NUMBERED.pack(ANSWER, number) + piece)

    def _on_stray_lines(self, lines: str) -> None:
        """Give what was written to fd 1 and 2 to the one task, or to the daemon's log."""
        lines = self._mask.lines(lines)
        if self._alone and self.tickets:
            self._events.on_output(next(iter(self.tickets.values())), lines)
            return
        for line in lines.splitlines():
            text = str(msgspec.json.decode(line, type=dict)["m"])
            self._last_lines.append(text)
            log.info("runner.output", pid=self.pid, line=text)


def _modules_of(bundle: SourceBundle) -> dict[str, str]:
    """Return the modules beside the DAG file."""
    return {path: text for path, text in bundle.files.items() if path != bundle.file}


def describe_exit(code: int) -> str:
    """Say in words how a process ended."""
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"its process exited with code {code}"
