"""What the manager folds: messages from the bus and calls from inside the daemon."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec

from pubsubflow.bus import Delivery
from pubsubflow.errors import InvalidInput, PubsubflowError, StoreUnavailable
from pubsubflow.manager.cloud_events_in import LETTER, is_own, read_outside
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.traces import read_trace, trace_id_of
from pubsubflow.model.wire.commands import Call, PostEvents
from pubsubflow.model.wire.messages import (
    NO_NODE,
    FiredMessage,
    GoneMessage,
    LogMessage,
    NewEvent,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    decode_fired,
    decode_gone,
    decode_log,
    decode_published,
    decode_result,
    decode_started,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects

MAX_KEY_CHARACTERS = 500
MAX_EVENT_BYTES = 256 * 1024
_MAX_DOUBLINGS = 9
OWN_KEYS = ("dataset:", "partition:", "tick:", "late:")


def _read_published(data: bytes) -> PostEvents:
    """Return an event that a running task published as a call to record it."""
    event = decode_published(data)
    return PostEvents(
        (NewEvent(event.uri, event.extra, event.partition, event.time, trace=event.trace),),
        (f"task:{event.key}",),
        "task",
        (event.run, event.node, event.map_index),
    )


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    Subjects.RESULT: decode_result,
    Subjects.STARTED: decode_started,
    Subjects.LOG: decode_log,
    Subjects.GONE: decode_gone,
    Subjects.FIRED: decode_fired,
    Subjects.EVENT: _read_published,
}
Message = ResultMessage | StartedMessage | LogMessage | GoneMessage | FiredMessage


class Item:
    """One thing to fold, and whom to tell.

    Attributes:
        message: The message or the call; an exception when the bytes say nothing.
        what: What it comes to in the transaction that is under way.
        subject: Where it came from, for the dead letters; empty for what did not come by bus.
        payload: Its bytes, likewise.
        letter: The kind of its dead letter.
        done: Called after the commit with the answer.
        failed: Called when it cannot be folded; the error is the sender's.
        later: Called when it came too early and must be delivered again.
        hold: Called while it has to wait here, so that it is not delivered again.
        tried: A transaction with it broke, and may have committed all the same.
        since: When it came, as `time.monotonic` tells.
        ids: What it makes gets these, in every transaction that tries: so a second can tell.
        arrived_at: When it came.
        trace: The context of the request or message that brought it.
    """

    __slots__ = (
        "answer",
        "arrived_at",
        "done",
        "error",
        "failed",
        "hold",
        "ids",
        "later",
        "letter",
        "message",
        "payload",
        "postponed",
        "since",
        "subject",
        "trace",
        "tried",
        "what",
    )

    def __init__(
        self,
        what: Call | Message | Exception,
        *,
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        later: Callable[[], None] | None = None,
        hold: Callable[[], None] | None = None,
        subject: str = "",
        payload: bytes = b"",
        trace: str | None = None,
        letter: str = "message",
    ) -> None:
        self.message = what
        self.done = done
        self.failed = failed
        self.later = later
        self.hold = hold
        self.subject = subject
        self.payload = payload
        self.letter = letter
        self.tried = False
        self.since = monotonic()
        self.ids: list[UUID] = []
        self.trace = trace
        self.arrived_at = datetime.now(UTC)
        self.reset()

    @property
    def from_bus(self) -> bool:
        """Whether it is no call that somebody in this daemon waits for."""
        return bool(self.subject) or isinstance(self.message, Message | Exception)

    def names(self) -> dict[str, str]:
        """Return what a line of the log says of it: where it came from, and its trace."""
        if self.trace is None:
            return {"subject": self.subject}
        return {"subject": self.subject, "trace_id": trace_id_of(self.trace)}

    @property
    def weight(self) -> int:
        """How much there is to fold: events, if it posts some."""
        return len(self.message.events) or 1 if isinstance(self.message, PostEvents) else 1

    def reset(self) -> None:
        """Forget what a transaction that was rolled back had answered."""
        self.what = self.message
        self.answer: Any = None
        self.error: Exception | None = None
        self.postponed = False


def check_key(key: str | None) -> None:
    """Check a key that a caller chose.

    Raises:
        InvalidInput: It is too long for an index, or holds NUL.
    """
    if key is not None and (len(key) > MAX_KEY_CHARACTERS or "\x00" in key):
        raise InvalidInput(
            f"the key {key[:40]!r}… must have at most {MAX_KEY_CHARACTERS} characters and no NUL"
        )


def check_event(event: NewEvent, key: str | None) -> None:
    """Check an event from outside before anything is done about it.

    Raises:
        DefinitionError: The dataset's URI is bad.
        InvalidInput: The event or its key is too large.
    """
    normalise_uri(event.dataset)
    size = len(encode(event))
    if size > MAX_EVENT_BYTES:
        raise InvalidInput(
            f"an event of {size} bytes is larger than {MAX_EVENT_BYTES}: "
            "store the data elsewhere and send where it is"
        )
    check_key(key)


def acceptable(item: Item, post: PostEvents) -> bool:
    """Whether events can be recorded; if not, the item gets the error."""
    try:
        for event, key in zip(post.events, post.keys, strict=True):
            check_event(event, key)
    except PubsubflowError as error:
        item.error = error
    return item.error is None


def check_run_key(key: str | None) -> None:
    """Check the key that a caller chose for a run.

    Raises:
        InvalidInput: It cannot be a key, or looks like one that a schedule gives.
    """
    check_key(key)
    if key is not None and key.startswith(OWN_KEYS):
        raise InvalidInput(f"the key {key[:40]!r} begins like those that schedules give")


def item_of(
    delivery: Delivery, done: Callable[[Callable[[], None]], None], *, too_early_seconds: float
) -> Item:
    """Make an item of a message from the bus.

    Args:
        delivery: The message; bytes that say nothing give an item that is an exception.
        done: Called with how it is to be answered.
        too_early_seconds: After how long it comes again if it came too early, at first.
    """
    kind = ".".join(delivery.subject.split(".", 3)[:3])
    letter, payload = "message", delivery.data
    headers = (delivery.headers or {}) if kind == Subjects.EVENT else {}
    what: Any
    if kind == Subjects.EVENT and not is_own(headers, delivery.data):
        outside = read_outside(headers, delivery.data)
        letter, payload, what = LETTER, outside.payload, outside.what
    else:
        try:
            what = _DECODERS[kind](delivery.data)
        except (KeyError, ValueError, RecursionError) as error:
            what = error

    def later() -> None:
        doublings = min(delivery.attempts - 1, _MAX_DOUBLINGS)
        done(partial(delivery.nak, too_early_seconds * (1 << doublings)))

    return Item(
        what,
        done=lambda _: done(delivery.ack),
        failed=lambda _: done(delivery.term),
        later=later,
        hold=delivery.in_progress,
        subject=delivery.subject,
        trace=_trace_of(delivery) if kind == Subjects.EVENT else None,
        payload=payload,
        letter=letter,
    )


def _trace_of(delivery: Delivery) -> str | None:
    parent = delivery.header("traceparent")
    return None if parent is None else read_trace(parent, delivery.header("tracestate"))


def tell(item: Item) -> None:
    """Tell whoever waits for an item that was folded."""
    if item.error is not None:
        item.failed(item.error)
    elif item.postponed and item.later is not None:
        item.later()
    else:
        item.done(item.answer)


def give_up(items: Iterable[Item]) -> None:
    """Answer callers at the end, and give messages back for the next manager."""
    for item in items:
        if item.later is not None:
            item.later()
        else:
            item.failed(StoreUnavailable("the manager stopped before it could carry this out"))


def failure_of(result: ResultMessage, error: Exception) -> Item:
    """Return what ends the task of a result that cannot be stored."""
    reason = " ".join(f"its result cannot be stored: {error}".split())
    what = msgspec.structs.replace(
        result,
        outcome=Outcome.FAILED,
        value=b"",
        length=None,
        emits=(),
        error=TaskError(type(error).__name__, reason, final=True),
        then=NO_NODE,
        follow=None,
    )
    return Item(what, done=_nobody_waits, failed=_nobody_waits)


def _nobody_waits(_: object) -> None:
    """Tell nobody."""


def settle(answered: asyncio.Future[Any], answer: Any) -> None:
    """Give a caller its answer, unless it has left."""
    if not answered.done():
        answered.set_result(answer)


def settle_error(answered: asyncio.Future[Any], error: Exception) -> None:
    """Tell a caller what went wrong, unless it has left."""
    if not answered.done():
        answered.set_exception(error)
