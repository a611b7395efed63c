"""Inbox of a manager: messages from the bus and commands from inside the daemon, batch by batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, get_args

import msgspec

from pubsubflow.bus import Delivery
from pubsubflow.errors import DefinitionError, StoreUnavailable
from pubsubflow.manager.cloud_events_in import DEAD_LETTER_KIND, is_own, read_outside
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.model.traces import parse_trace, trace_id_of
from pubsubflow.model.wire.backlog import QueueBacklog
from pubsubflow.model.wire.commands import Command, RecordEvents
from pubsubflow.model.wire.messages import (
    NO_NODE,
    FiredMessage,
    LogMessage,
    NewEvent,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    WorkerLostMessage,
    decode_fired,
    decode_log,
    decode_published,
    decode_result,
    decode_started,
    decode_worker_lost,
)
from pubsubflow.model.wire.subjects import Subjects

ANOTHER_BODY = (
    "this Idempotency-Key came with another body before: send each body under a key of its own"
)
_MAX_DOUBLINGS = 9
_MEMORY = 0.9
"""Weight that what was measured before keeps with each batch: some 10 batches count."""


def _read_published(data: bytes) -> RecordEvents:
    """Return the command to record an event that a running task published."""
    event = decode_published(data)
    return RecordEvents(
        (NewEvent(event.uri, event.extra, event.partition, event.time, trace=event.trace),),
        (f"task:{event.key}",),
        "task",
        (event.run, event.node, event.map_index),
        delivery=event.delivery,
    )


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    Subjects.RESULT: decode_result,
    Subjects.STARTED: decode_started,
    Subjects.LOG: decode_log,
    Subjects.WORKER_LOST: decode_worker_lost,
    Subjects.FIRED: decode_fired,
    Subjects.EVENT: _read_published,
}
Message = ResultMessage | StartedMessage | LogMessage | WorkerLostMessage | FiredMessage
_UNAWAITED = (*get_args(Message), Exception)
"""What no caller in this daemon waits for, wherever it comes from."""


class InboxItem:
    """One message or command to process, and how its sender is answered.

    Attributes:
        received: The message or command; an exception when the bytes cannot be decoded.
        message: What it stands for in the transaction that is under way: a redriven dead letter
            or the event of a watched dataset stands for events to record.
        subject: Where it came from, for the dead letters; empty for what did not come by bus.
        payload: Its bytes, likewise.
        dead_letter_kind: The kind of its dead letter.
        done: Called after the commit with the answer.
        failed: Called with the sender's error.
        later: Called when it came too early and must be delivered again.
        hold: Called while it has to wait here, so that it is not delivered again.
        from_bus: Whether it came by bus; no caller in this daemon waits for the others.
        weight: How much there is to do: the number of events, if it records some.
        tried: A transaction with it broke, and may have committed all the same.
        ids: What it makes gets these, in every transaction that tries it.
        since: When it came, by `time.monotonic`.
        arrived_at: When it came.
        trace: The trace context of the request or message that brought it.
        answer: What its sender gets; like the next two, of the transaction that is under way.
        error: Why it is refused.
        postponed: It came too early and is tried again.
    """

    __slots__ = (
        "answer",
        "arrived_at",
        "dead_letter_kind",
        "done",
        "error",
        "failed",
        "from_bus",
        "hold",
        "ids",
        "later",
        "message",
        "payload",
        "postponed",
        "received",
        "since",
        "subject",
        "trace",
        "tried",
        "weight",
    )

    def __init__(
        self,
        received: Command | Message | Exception,
        *,
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        later: Callable[[], None] | None = None,
        hold: Callable[[], None] | None = None,
        subject: str = "",
        payload: bytes = b"",
        trace: str | None = None,
        dead_letter_kind: str = "message",
    ) -> None:
        self.received: Any = received
        self.done = done
        self.failed = failed
        self.later = later
        self.hold = hold
        self.subject = subject
        self.payload = payload
        self.dead_letter_kind = dead_letter_kind
        # The failure of a result is of the bus as well: no caller waits for it.
        self.from_bus = bool(subject) or isinstance(received, _UNAWAITED)
        self.weight = len(received.events) or 1 if isinstance(received, RecordEvents) else 1
        self.tried = False
        self.since = monotonic()
        self.ids: list[Any] = []
        self.trace = trace
        self.arrived_at = datetime.now(UTC)
        self.message: Any = received
        self.answer: Any = None
        self.error: Exception | None = None
        self.postponed = False

    def reset(self) -> None:
        """Drop what a transaction had answered, so that another one can try it."""
        self.message = self.received
        self.answer = self.error = None
        self.postponed = False

    def log_fields(self) -> dict[str, str]:
        """Return the fields of a log event about it: where it came from, and its trace."""
        if self.trace is None:
            return {"subject": self.subject}
        return {"subject": self.subject, "trace_id": trace_id_of(self.trace)}

    def respond(self) -> None:
        """Answer its sender, once its transaction is committed."""
        if self.error is not None:
            self.failed(self.error)
        elif self.postponed and self.later is not None:
            self.later()
        else:
            self.done(self.answer)


def item_of(
    delivery: Delivery, done: Callable[[Callable[[], None]], None], *, too_early_seconds: float
) -> InboxItem:
    """Return the item of a message from the bus.

    Args:
        delivery: The message; bytes that cannot be decoded give an item that is an exception.
        done: Called with how it is to be acknowledged.
        too_early_seconds: After how long it comes again if it came too early, at first.
    """
    kind = ".".join(delivery.subject.split(".", 3)[:3])
    letter, payload = "message", delivery.data
    headers = (delivery.headers or {}) if kind == Subjects.EVENT else {}
    received: Any
    if kind == Subjects.EVENT and not is_own(headers, delivery.data):
        outside = read_outside(headers, delivery.data)
        letter, payload, received = DEAD_LETTER_KIND, outside.payload, outside.received
    else:
        try:
            received = _DECODERS[kind](delivery.data)
        except (KeyError, ValueError, RecursionError, DefinitionError) as error:
            received = error

    def later() -> None:
        # The one that it overtook is on its way, or on a worker that is lost: soon, then later.
        doublings = min(delivery.attempts - 1, _MAX_DOUBLINGS)
        done(partial(delivery.nak, too_early_seconds * (1 << doublings)))

    return InboxItem(
        received,
        done=lambda _: done(delivery.ack),
        failed=lambda _: done(delivery.term),
        later=later,
        hold=delivery.in_progress,
        subject=delivery.subject,
        trace=_trace_of(delivery) if kind == Subjects.EVENT else None,
        payload=payload,
        dead_letter_kind=letter,
    )


def _trace_of(delivery: Delivery) -> str | None:
    parent = delivery.header("traceparent")
    return None if parent is None else parse_trace(parent, delivery.header("tracestate"))


def give_up(items: Iterable[InboxItem]) -> None:
    """Fail callers at the end, and give messages back for the next manager."""
    for item in items:
        # At once, rather than when the acknowledgement is overdue.
        if item.later is not None:
            item.later()
        else:
            item.failed(StoreUnavailable("the manager stopped before it could carry this out"))


def hold_messages(items: Iterable[InboxItem]) -> None:
    """Keep messages that wait here from being delivered to other managers."""
    for item in items:
        if item.hold is not None:
            item.hold()


def fail_callers(items: list[InboxItem] | deque[InboxItem], error: Exception) -> None:
    """Fail the callers that wait, and leave messages from the bus."""
    callers = [item for item in items if not item.from_bus]
    kept = [item for item in items if item.from_bus]
    items.clear()
    items.extend(kept)
    for item in callers:
        item.failed(error)


def retry_later(items: Iterable[InboxItem]) -> None:
    """Have items processed again whose commit may have got through before the connection broke."""
    for item in items:
        item.tried = True
        item.reset()


def failure_of(result: ResultMessage, error: Exception) -> InboxItem:
    """Return the item that ends the task of a result that cannot be stored."""
    reason = " ".join(f"its result cannot be stored: {error}".split())
    failed = msgspec.structs.replace(
        result,
        outcome=Outcome.FAILED,
        value=b"",
        length=None,
        emits=(),
        error=TaskError(type(error).__name__, reason, final=True),
        then=NO_NODE,
        follow=None,
    )
    return InboxItem(failed, done=ignore, failed=ignore)


def ignore(_: object = None) -> None:
    """Do nothing: no caller waits for the answer."""


def answer(answered: asyncio.Future[Any], value: Any) -> None:
    """Give a caller its answer, unless it has left."""
    if not answered.done():
        answered.set_result(value)


def fail(answered: asyncio.Future[Any], error: Exception) -> None:
    """Raise an error where a caller waits, unless it has left."""
    if not answered.done():
        answered.set_exception(error)


def fill_batch(
    batch: list[InboxItem], waiting: deque[InboxItem], settings: ManagerSettings
) -> None:
    """Move waiting items into a batch until it is full, in order.

    Events count one by one, so that a batch takes about the same time whatever it is made of; a
    request with more events than fit is a batch of its own.
    """
    weight = sum(item.weight for item in batch)
    while waiting and len(batch) < settings.batch:
        weight += waiting[0].weight
        # The first item goes in any case, or one that is too large would wait for ever.
        if batch and weight > settings.batch_events:
            return
        batch.append(waiting.popleft())


class Throughput:
    """How much a manager has processed lately, and how long that took.

    Attributes:
        batch: What it processes now.
    """

    def __init__(self) -> None:
        self.batch: list[InboxItem] = []
        self._weight = 0.0
        self._seconds = 0.0

    def finish(self, batch: list[InboxItem], seconds: float) -> list[InboxItem]:
        """Count a batch that is committed, and empty it; return what it held."""
        items = batch.copy()
        batch.clear()
        self._weight = self._weight * _MEMORY + sum(item.weight for item in items)
        self._seconds = self._seconds * _MEMORY + seconds
        return items

    def backlog(self, waiting: Sequence[InboxItem], *, away: bool) -> QueueBacklog:
        """Return what was received and is not processed yet.

        Messages from the bus count for the age only: JetStream counts them until they are done.
        """
        items = [*self.batch, *waiting]
        return QueueBacklog(
            pending=sum(item.weight for item in items if not item.from_bus),
            oldest_seconds=monotonic() - items[0].since if items else 0.0,
            rate=self._weight / self._seconds if self._seconds else 0.0,
            away=away,
        )
