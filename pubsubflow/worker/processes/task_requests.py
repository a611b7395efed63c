"""Requests of tasks, on their way from a runner process to the managers, the bus and the stores."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.stored_results import StoredResult, decode_reference
from pubsubflow.model.wire.worker_requests import (
    LEASE_LOST,
    REFUSED,
    Chunk,
    decode_chunk,
    decode_worker_request,
    fenced_run,
    secrets_decoder,
)
from pubsubflow.runner.protocol import FETCH, PUBLISH, REQUEST
from pubsubflow.runner.redaction import HoldsSecrets, Redactor
from pubsubflow.worker.processes.sent import SentAssignments


class RequestEvents(Protocol):
    """Callbacks for what tasks request."""

    def on_fetch(self, stored: StoredResult, reply: Callable[[bytes], None]) -> None:
        """Read a stored result; `reply` takes an encoded Chunk."""

    def on_request(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        """Handle a task's request; `reply` takes an encoded Chunk."""

    def on_publish(self, event: bytes, reply: Callable[[bytes], None]) -> None:
        """Publish a task's event; `reply` takes an encoded Chunk once the bus has stored it."""


class TaskRequests:
    """Passes on what the tasks of one process request.

    Args:
        assignments: Those of the process.
        events: Carries the requests out.
        redactor: Learns the secrets that come back.
        reply: Sends a reply to the process: the number of its request, and an encoded Chunk.
    """

    def __init__(
        self,
        assignments: SentAssignments,
        events: RequestEvents,
        redactor: Redactor,
        reply: Callable[[int, bytes], None],
    ) -> None:
        self._assignments = assignments
        self._events = events
        self._redactor = redactor
        self._reply = reply

    def pass_on(self, kind: int, number: int, body: bytes) -> None:
        """Pass on a frame of the kinds REQUEST, FETCH and PUBLISH."""

        def reply(chunk: bytes) -> None:
            self._reply(number, chunk)

        if kind == REQUEST:
            self._request(number, body, reply)
        elif kind == FETCH:
            self._events.on_fetch(decode_reference(body), reply)
        elif kind == PUBLISH:
            self._events.on_publish(body, reply)

    def _request(self, number: int, body: bytes, reply: Callable[[bytes], None]) -> None:
        """Pass on a request to the managers, unless it is in the name of a task elsewhere.

        User code may speak this protocol by itself, and the fence of another task is easy to guess:
        only the worker knows which tasks this process has.
        """
        try:
            request = decode_worker_request(body)
        except msgspec.DecodeError as error:
            reply(encode(Chunk(b"", 0, f"{REFUSED}not a request: {error}")))
            return
        run = fenced_run(request)
        if run is not None and all(each.header.run != run for each in self._assignments.running):
            reply(encode(Chunk(b"", 0, f"{LEASE_LOST}no task of that run is in this process")))
            return
        decode = secrets_decoder(request)
        if decode is None:
            self._events.on_request(body, reply)
        else:
            self._events.on_request(body, lambda chunk: self._reply_secrets(number, chunk, decode))

    def _reply_secrets(
        self, number: int, data: bytes, decode: Callable[[bytes], HoldsSecrets]
    ) -> None:
        """Pass a connection or variable on, and redact its secrets in all output from now on."""
        chunk = decode_chunk(data)
        if chunk.total:
            self._redactor.add(decode(chunk.data))
        self._reply(number, data)
