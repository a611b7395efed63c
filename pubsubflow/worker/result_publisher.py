"""The result publisher: results, starts, events and output of a worker, in order and durably."""

from collections import deque
from collections.abc import Callable
from functools import partial

import anyio
import structlog
from msgspec import Struct

from pubsubflow.bus import Bus, Delivery
from pubsubflow.errors import BusUnavailable, MessageRefused
from pubsubflow.model.wire.messages import NO_NODE, Fence, decode_published, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import Chunk
from pubsubflow.runner.log_lines import log_record, split_records
from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.event_pacer import EventPacer
from pubsubflow.worker.timeouts import TimeoutQueue

log = structlog.get_logger(__name__)

_PARTITIONS = 8
_RESULT_SUBJECTS = [Subjects.inbound(Subjects.RESULT, part) for part in range(_PARTITIONS)]
_LOG_CHUNK_BYTES = 32_768
_LOG_SECONDS = 0.2
_REFUSED_DELAY_SECONDS = 10.0
_STORED = encode(Chunk(b"", 0))


class _Result(Struct, eq=False):
    """A result on its way, and the assignment whose message is acknowledged once it is stored."""

    fence: Fence
    assignment: Assignment | None


Waiter = _Result | Callable[[bytes], None] | None
"""What waits for JetStream's confirmation: a result, or a task that gets a reply."""


class ResultPublisher:
    """Publishes for all assignments of a worker.

    A task message is acknowledged when the result of its first node is stored: from then on the
    manager knows, by that result, which worker runs the rest of the chain.

    Args:
        bus: The connection.
        worker: Id of the worker.
        max_log_bytes: Output of one attempt beyond that is dropped.

    Attributes:
        pacer: Delays events of running tasks; its `run` is to be started.
    """

    def __init__(self, bus: Bus, worker: str, *, max_log_bytes: int) -> None:
        self._bus = bus
        self._worker = worker
        self._max_log_bytes = max_log_bytes
        self._unsent: deque[Callable[[], None]] = deque()
        self._unconfirmed = 0
        self._results: set[_Result] = set()
        self.pacer = EventPacer(bus)
        self._all_stored = anyio.Event()
        self._log_timeouts: TimeoutQueue[Assignment] = TimeoutQueue(_LOG_SECONDS, self.flush_log)

    @property
    def unstored(self) -> set[Fence]:
        """The fences of the results that JetStream has not confirmed yet."""
        return {each.fence for each in self._results}

    def publish_result(self, assignment: Assignment, payload: bytes) -> None:
        """Publish the result of the node that the assignment runs now, after its output."""
        if assignment.buffered_lines:
            self.flush_log(assignment)
        # A chain advances before its result is stored: the fence is that of now.
        result = _Result(assignment.fence, assignment if assignment.after == NO_NODE else None)
        self._results.add(result)
        self._send(
            _RESULT_SUBJECTS[assignment.header.run % _PARTITIONS],
            payload,
            f"r.{self._worker}.{assignment.number}.{assignment.node}",
            result,
        )

    def publish_started(self, assignment: Assignment) -> None:
        """Publish that the node that the assignment runs now has started."""
        subject = Subjects.inbound(Subjects.STARTED, assignment.header.run)
        name = f"s.{self._worker}.{assignment.number}.{assignment.node}"
        self._send(subject, assignment.encode_started(self._worker), name, None)

    def publish_event(self, payload: bytes, reply: Callable[[bytes], None]) -> None:
        """Publish an event that a task emits while it runs.

        Args:
            payload: An encoded PublishedEvent.
            reply: Called with an encoded Chunk when the event is stored, or refused.
        """
        event = decode_published(payload)
        subject = Subjects.inbound(Subjects.EVENT, event.run)
        # With the delivery: after a restore of Postgres the event of an earlier one is gone, and
        # JetStream would take this one for it.
        name = f"e.{event.key}.{event.delivery}"
        self.pacer.submit(event.run, lambda: self._send(subject, payload, name, reply))

    def add_output(self, assignment: Assignment, lines: str) -> None:
        """Buffer lines of output of the node that the assignment runs now."""
        if len(lines) <= _LOG_CHUNK_BYTES:
            self._add_lines(assignment, lines)
            return
        # What a task that blocks its loop has written meanwhile is too much for one message.
        for line in split_records(lines):
            self._add_lines(assignment, line)

    def _add_lines(self, assignment: Assignment, lines: str) -> None:
        size = len(lines)
        if assignment.log_bytes > self._max_log_bytes:
            return
        assignment.log_bytes += size
        if assignment.log_bytes > self._max_log_bytes:
            text = f"output is truncated here: more than {self._max_log_bytes} bytes"
            lines = log_record("warning", text, {})
        if not assignment.buffered_lines:
            self._log_timeouts.add(assignment)
        assignment.buffered_lines.append(lines)
        assignment.buffered_bytes += size
        if assignment.buffered_bytes >= _LOG_CHUNK_BYTES:
            self.flush_log(assignment)

    def flush_log(self, assignment: Assignment) -> None:
        """Publish the buffered output."""
        if assignment.buffered_lines:
            subject = Subjects.inbound(Subjects.LOG, assignment.header.run)
            payload = assignment.encode_log()
            name = f"l.{self._worker}.{assignment.number}.{assignment.log_sequence}"
            self._send(subject, payload, name, None)

    def return_to_queue(self, assignment: Assignment, delay_seconds: float | None = None) -> None:
        """Return a message to its queue, unless it is acknowledged already."""
        if not assignment.message_done:
            assignment.message_done = assignment.returned = True
            try:
                assignment.delivery.nak(delay_seconds)
            except BusUnavailable as error:
                # The server redelivers it by itself when the acknowledgement is overdue.
                log.warning("worker.nak_failed", error=str(error))

    def acknowledge(self, assignment: Assignment) -> None:
        """Acknowledge the message of an assignment, if that is still to be done."""
        if not assignment.message_done:
            assignment.message_done = True
            self.ack(assignment.delivery)

    @staticmethod
    def ack(delivery: Delivery) -> None:
        """Acknowledge a message."""
        try:
            delivery.ack()
        except BusUnavailable as error:
            # The server redelivers it, and then it is acknowledged without another run.
            log.warning("worker.ack_failed", error=str(error))

    def resend(self) -> None:
        """Publish again what found the connection's buffer full."""
        for _ in range(len(self._unsent)):
            self._unsent.popleft()()

    async def wait_all_stored(self) -> None:
        """Wait until JetStream has confirmed everything."""
        while self._unconfirmed:
            self._all_stored = anyio.Event()
            await self._all_stored.wait()

    def close(self) -> None:
        """Stop the timer."""
        self._log_timeouts.stop()

    def _send(self, subject: str, payload: bytes, message_id: str, waiter: Waiter) -> None:
        self._unconfirmed += 1
        self._publish(subject, payload, message_id, waiter)

    def _publish(self, subject: str, payload: bytes, message_id: str, waiter: Waiter) -> None:
        try:
            self._bus.publish_durable_nowait(
                subject,
                payload,
                message_id=message_id,
                on_done=self._on_stored if waiter is None else partial(self._on_stored, waiter),
                on_refused=partial(self._on_refused, subject, message_id, waiter),
            )
        except BusUnavailable:
            self._unsent.append(partial(self._publish, subject, payload, message_id, waiter))
        except MessageRefused as error:
            self._on_refused(subject, message_id, waiter, error)

    def _on_stored(self, waiter: Waiter = None, reply: bytes = _STORED) -> None:
        if isinstance(waiter, _Result):
            self._results.discard(waiter)
            if waiter.assignment is not None:
                self.acknowledge(waiter.assignment)
        elif waiter is not None:
            waiter(reply)
        self._unconfirmed -= 1
        if not self._unconfirmed:
            self._all_stored.set()

    def _on_refused(
        self, subject: str, message_id: str, waiter: Waiter, error: MessageRefused
    ) -> None:
        # Runners keep results below the bus's limit, so a refusal means a full or missing stream:
        # the task goes back to its queue and runs again later.
        log.error("worker.publish_refused", subject=subject, id=message_id, error=str(error))
        if isinstance(waiter, _Result) and waiter.assignment is not None:
            self.return_to_queue(waiter.assignment, _REFUSED_DELAY_SECONDS)
        self._on_stored(waiter, encode(Chunk(b"", 0, str(error))))
