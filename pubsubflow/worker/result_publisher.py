"""What a worker tells the managers: results, starts, output, events; in order and durably."""

from collections import deque
from collections.abc import Callable
from functools import partial

import anyio
import structlog

from pubsubflow.bus import Bus, Delivery
from pubsubflow.errors import BusUnavailable, MessageRefused
from pubsubflow.model.wire.messages import NO_NODE, decode_published, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import Piece
from pubsubflow.runner.log_lines import log_record
from pubsubflow.worker.assignment import Ticket
from pubsubflow.worker.timeouts import Alarm

log = structlog.get_logger(__name__)

_PARTITIONS = 8
_RESULT = [Subjects.inbound(Subjects.RESULT, part) for part in range(_PARTITIONS)]
_PIECE_BYTES = 32_768
_LOG_SECONDS = 0.2
_REFUSED_SECONDS = 10.0
_STORED = encode(Piece(b"", 0))

Waiting = Ticket | Callable[[bytes], None] | None
"""Who waits for the bus: a task message that is then acknowledged, or a task for an answer."""


class Reports:
    """Publishes for all tickets of a worker.

    A task message is acknowledged when the result of its head is stored: from then on the
    manager knows, by the result, who runs the rest of the chain.

    Args:
        bus: The connection.
        worker: Id of the worker.
        max_log_bytes: Output of one attempt beyond that is dropped.
    """

    def __init__(self, bus: Bus, worker: str, *, max_log_bytes: int) -> None:
        self._bus = bus
        self._worker = worker
        self._max_log_bytes = max_log_bytes
        self._unsent: deque[Callable[[], None]] = deque()
        self._underway = 0
        self._all_stored = anyio.Event()
        self._late_logs: Alarm[Ticket] = Alarm(_LOG_SECONDS, self.flush_log)

    def result(self, ticket: Ticket, payload: bytes) -> None:
        """Publish the result of the node that the ticket runs now, after its output."""
        if ticket.lines:
            self.flush_log(ticket)
        self._send(
            _RESULT[ticket.head.run % _PARTITIONS],
            payload,
            f"r.{self._worker}.{ticket.number}.{ticket.node}",
            ticket if ticket.after == NO_NODE else None,
        )

    def started(self, ticket: Ticket) -> None:
        """Publish that the node that the ticket runs now has started."""
        run, *rest = ticket.fence
        name = ".".join(map(str, (self._worker, run, *rest)))
        subject = Subjects.inbound(Subjects.STARTED, run)
        self._send(subject, ticket.started(self._worker), f"s.{name}", None)

    def event(self, payload: bytes, use: Callable[[bytes], None]) -> None:
        """Publish an event that a task gives while it runs.

        Args:
            payload: An encoded PublishedEvent.
            use: Called with an encoded Piece when the event is stored, or refused.
        """
        event = decode_published(payload)
        subject = Subjects.inbound(Subjects.EVENT, event.run)
        self._send(subject, payload, f"e.{event.key}", use)

    def output(self, ticket: Ticket, lines: str) -> None:
        """Take lines of output of the node that the ticket runs now."""
        size = len(lines)
        if ticket.log_bytes > self._max_log_bytes:
            return
        ticket.log_bytes += size
        if ticket.log_bytes > self._max_log_bytes:
            text = f"output is truncated here: more than {self._max_log_bytes} bytes"
            lines = log_record("warning", text, {})
        if not ticket.lines:
            self._late_logs.add(ticket)
        ticket.lines.append(lines)
        ticket.held_bytes += size
        if ticket.held_bytes >= _PIECE_BYTES:
            self.flush_log(ticket)

    def flush_log(self, ticket: Ticket) -> None:
        """Publish what output there is."""
        if ticket.lines:
            run, *rest = ticket.fence
            name = ".".join(map(str, (self._worker, run, *rest, ticket.log_pieces)))
            subject = Subjects.inbound(Subjects.LOG, run)
            self._send(subject, ticket.take_log(), f"l.{name}", None)

    def give_back(self, ticket: Ticket, delay_seconds: float | None = None) -> None:
        """Give a message back to its queue, unless the manager knows already who has the rest."""
        if not ticket.stored:
            ticket.stored = ticket.returned = True
            try:
                ticket.delivery.nak(delay_seconds)
            except BusUnavailable as error:
                log.warning("worker.nak_unsent", error=str(error))  # it comes again by itself

    def drop(self, ticket: Ticket) -> None:
        """Acknowledge a message that needs no result any more."""
        if not ticket.stored:
            ticket.stored = True
            self.acknowledge(ticket.delivery)

    @staticmethod
    def acknowledge(delivery: Delivery) -> None:
        """Say that a message is done."""
        try:
            delivery.ack()
        except BusUnavailable as error:
            log.warning("worker.ack_unsent", error=str(error))  # it comes again and is dropped

    def retry(self) -> None:
        """Send again what found the connection's buffer full."""
        for _ in range(len(self._unsent)):
            self._unsent.popleft()()

    async def all_stored(self) -> None:
        """Wait until everything is stored."""
        while self._underway:
            self._all_stored = anyio.Event()
            await self._all_stored.wait()

    def close(self) -> None:
        """Stop the timer."""
        self._late_logs.stop()

    def _send(self, subject: str, payload: bytes, message_id: str, waiting: Waiting) -> None:
        self._underway += 1
        self._try(subject, payload, message_id, waiting)

    def _try(self, subject: str, payload: bytes, message_id: str, waiting: Waiting) -> None:
        try:
            self._bus.publish_durable_nowait(
                subject,
                payload,
                message_id=message_id,
                on_done=self._stored if waiting is None else partial(self._stored, waiting),
                on_refused=partial(self._refused, subject, message_id, waiting),
            )
        except BusUnavailable:
            self._unsent.append(partial(self._try, subject, payload, message_id, waiting))
        except MessageRefused as error:
            self._refused(subject, message_id, waiting, error)

    def _stored(self, waiting: Waiting = None, answer: bytes = _STORED) -> None:
        if isinstance(waiting, Ticket):
            self.drop(waiting)
        elif waiting is not None:
            waiting(answer)
        self._underway -= 1
        if not self._underway:
            self._all_stored.set()

    def _refused(
        self, subject: str, message_id: str, waiting: Waiting, error: MessageRefused
    ) -> None:
        """Give the task back when JetStream will not have its result; runners mind the size."""
        log.error("worker.publish_refused", subject=subject, id=message_id, error=str(error))
        if isinstance(waiting, Ticket):
            self.give_back(waiting, _REFUSED_SECONDS)
        self._stored(waiting, encode(Piece(b"", 0, str(error))))
