"""Runs tasks one at a time in the main thread of a process that can be killed."""

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, TextIO, cast

from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import EventInfo, PublishedEvent, Step, TaskError, decode_task
from pubsubflow.runner.blocking_channel import Channel
from pubsubflow.runner.dag_cache import Catalog, KnownDag
from pubsubflow.runner.execution import Work
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.log_lines import NODE_MARK, RECORD_MARK, log_record
from pubsubflow.runner.protocol import (
    DRAIN,
    NUMBERED,
    SOURCE,
    TASK,
    Question,
    RunnerSettings,
)
from pubsubflow.runner.redaction import Mask
from pubsubflow.runner.requests import (
    Answer,
    Questions,
    connection_asked,
    event_pieces,
    publication,
    result_pieces,
)

_OUTPUTS = (1, 2)
_NODE_END = f"{NODE_MARK}\n".encode()
_TERMINATED = 128 + signal.SIGTERM


class Interrupted(SystemExit):
    """The worker wants this process to end; raised in the middle of user code."""


class SyncRunner:
    """Takes tasks from the worker until it has no more.

    Its file descriptors 1 and 2 are pipes that the worker reads.

    Args:
        sock: The stream to the worker.
        settings: What the worker says.
    """

    def __init__(self, sock: socket.socket, settings: RunnerSettings) -> None:
        self._channel = Channel(sock)
        self._settings = settings
        self._mask = Mask()
        self._catalog = Catalog()
        self._draining = False
        self._streams = (sys.stdout, sys.stderr)

    def run(self) -> None:
        """Run tasks until the worker closes the stream."""
        signal.signal(signal.SIGTERM, _interrupt)
        while True:
            try:
                frame = self._channel.receive()
            except EOFError:
                return
            self._handle(frame)

    def _handle(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == TASK:
            _, number = NUMBERED.unpack_from(frame)
            message = decode_task(frame[NUMBERED.size :])
            self._run_task(Work(number, message, self._settings, self._mask))
        elif kind == SOURCE:
            self._catalog.add(frame[1:])
        elif kind == DRAIN:
            self._draining = True

    def _run_task(self, work: Work) -> None:
        while True:
            node = work.node
            frame = self._run_node(work)
            self._flush()
            goes_on = work.node != node
            if goes_on:
                for fd in _OUTPUTS:
                    os.write(fd, _NODE_END)
            self._channel.send(frame)
            if not goes_on:
                return

    def _run_node(self, work: Work) -> bytes:
        work.start()
        message = work.message
        try:
            known = self._catalog.load(message.source, message.dag_id)
            host = _Host(self._channel, work, known, self._streams[1])
            fetched = {
                place: host.gather(result_pieces(question))
                for place, question in work.missing(known)
            }
            call = work.bind(known, host, fetched)
            value = call.run()
            if work.goes_on:
                self._look_around()
                work.halted = self._draining
            return work.succeed(call, value)
        except Interrupted:
            raise
        except BaseException as error:  # noqa: BLE001 - told to the worker, which logs it
            return work.fail(error)

    def _look_around(self) -> None:
        """Obey what came while the task ran."""
        for frame in self._channel.arrived():
            self._handle(frame)

    def _flush(self) -> None:
        """Let all output be in the pipes before the result leaves."""
        for stream in {sys.stdout, sys.stderr, *self._streams}:
            if stream is not None and not stream.closed:
                stream.flush()
        sys.stdout, sys.stderr = self._streams


class _Host:
    """The process as a task's context sees it."""

    def __init__(self, channel: Channel, work: Work, known: KnownDag, stderr: TextIO) -> None:
        self._channel = channel
        self._work = work
        self._known = known
        self._stderr = stderr

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a record where the worker tells it from other output."""
        self._stderr.write(RECORD_MARK + log_record(level, event, fields))

    def fetch_result(self, node: int) -> bytes:
        """Ask for the result of another task of the run."""
        return self.gather(result_pieces(self._work.question(self._known, node)))

    def fetch_events(self) -> Sequence[EventInfo]:
        """Ask for the events that the run consumed."""
        return self.gather(event_pieces(self._work.message.run))

    def fetch_connection(self, name: str) -> Connection:
        """Ask for a connection, and let nothing of its secrets out."""
        found = self.gather(connection_asked(self._work.connection(name)))
        self._work.mask.add(found)
        return found

    def publish(self, event: PublishedEvent) -> None:
        """Hand an event over and wait until it is stored."""
        self.gather(publication(event))

    async def apublish(self, event: PublishedEvent) -> None:
        """Do the same; nothing else runs here meanwhile."""
        self.publish(event)

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.time()

    async def record(self, step: Step) -> Step:
        """Plain tasks have no steps."""
        raise NotImplementedError(f"step {step.label!r} of a plain task")

    def describe(self, error: Exception) -> TaskError:
        """Say why a step failed."""
        return self._work.mask.error(outcome_of(error)[1])

    def gather(self, questions: Questions[Answer]) -> Answer:
        """Ask one question after the other until there is an answer."""
        try:
            question: Question = next(questions)
            while True:
                question = questions.send(self._channel.ask(question))
        except StopIteration as stop:
            return cast("Answer", stop.value)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Interrupted(_TERMINATED)
