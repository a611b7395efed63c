"""What travels: between manager, worker and runner, and from outside.

All are arrays in MessagePack: field order is the wire format, so fields are only ever added at
the end, with a default. Moments are seconds since 1970 (float) unless they are datetimes.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Raw, Struct

NOT_MAPPED = -1
NO_NODE = -1


class EventInfo(Struct, frozen=True, array_like=True):
    """A dataset event as a task sees it.

    Attributes:
        event_id: UUID that outsiders see.
        dataset: Normalised URI.
        extra: JSON object.
        time: When it happened, by whoever reported it.
        source: `task`, `api`, `cli`, `bus` …
        run_id: The run whose task emitted it, if any; likewise `dag_id` and `task_id`.
        trace: The context of the span that gave it; see `model.traces`.
    """

    event_id: str
    dataset: str
    extra: dict[str, Any]
    partition: str | None
    time: datetime
    source: str
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    trace: str | None = None


class RunTrace(Struct, frozen=True, array_like=True):
    """Where a run stands in a distributed trace.

    Attributes:
        context: Of the run's span; see `model.traces`.
        causes: Of what led to it: the first is the span's parent, the others are links.
        recorded: Whether the span is one of ours, rather than that of whoever posted the event.
    """

    context: str
    causes: tuple[str, ...] = ()
    recorded: bool = False


class RunInfo(Struct, frozen=True, array_like=True):
    """What every task of a run may know about it.

    Attributes:
        key: The run's number in the store; addresses every message about it.
        run_id: UUID that outsiders see.
        kind: `dataset`, `cron`, `manual`.
        cause: One line for people: why this run exists.
        events: The events it consumed, or None when they are too many to travel along: then
            they are asked for.
        trail: Numbers of the DAGs whose runs led to it, from the origin on.
        trace: Where it stands in a distributed trace, if in any.
    """

    key: int
    run_id: str
    dag_id: str
    kind: str
    params: dict[str, Any]
    logical_time: datetime | None
    partition: str | None
    cause: str
    created_at: datetime
    events: tuple[EventInfo, ...] | None
    trail: tuple[int, ...] = ()
    trace: RunTrace | None = None


class TaskError(Struct, frozen=True, array_like=True):
    """Why an attempt failed.

    Attributes:
        type: The exception's class name.
        message: One line.
        traceback: The user's part of it.
        final: True when no retry can help.
    """

    type: str
    message: str
    traceback: str = ""
    final: bool = False


class Step(Struct, frozen=True, array_like=True):
    """Something that a task has done or waited for, as it is recorded.

    Attributes:
        key: Its place in the task's record: a position counted from 0 for what the function does
            itself, `~label#digest~n` for what it does side by side, `start` for what a sensor waits
            for.
        label: The step's name, or what was waited for; a replay that comes to the key with
            another label has taken another path.
        kind: `step` or `wait`.
        value: Encoded value of a step; encoded tuple of Happening of a wait.
        error: How it failed, in place of a value.
    """

    key: str
    label: str
    kind: str
    value: bytes = b""
    error: TaskError | None = None


class TaskMessage(Struct, frozen=True, array_like=True):
    """An order to run one task instance, or a chain of them.

    Attributes:
        run: The run's number.
        attempt: Counted from 1; grows with every retry.
        delivery: Grows whenever the task is handed out again; with `attempt` the fence. What the
            runner goes straight on with has the same one.
        kind: `async` or `sync`: which sort of runner.
        source: Content hash of the code.
        info: An encoded RunInfo.
        inputs: Node → encoded result, for the nodes of `TaskSpec.inputs`. One that is not here
            is too large to travel along and is asked for.
        elements: Factor name → encoded element of a mapped result; likewise.
        indexes: Per factor, which element this instance has.
        chain: Nodes that the runner goes straight on with, in order, each the only thing that
            the one before leads to and needing nothing else.
        timeouts: Seconds or None for the task itself and each node of `chain`; what is left of
            them for a task that has waited.
        steps: What the task has recorded, in order; None when that is too large to travel along,
            or may be out of date, and is asked for.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    kind: str
    dag_id: str
    task_id: str
    source: str
    info: Raw
    inputs: dict[int, Raw] = {}
    elements: dict[str, Raw] = {}
    indexes: tuple[int, ...] = ()
    chain: tuple[int, ...] = ()
    timeouts: tuple[float | None, ...] = (None,)
    steps: tuple[Step, ...] | None = ()


class Outcome(StrEnum):
    """How an attempt ended; deferred: it waits, and goes on later."""

    SUCCESS = "success"
    DEFERRED = "deferred"
    SKIPPED = "skipped"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


class Emit(Struct, frozen=True, array_like=True):
    """A dataset event that takes effect with the success of its task."""

    uri: str
    extra: dict[str, Any] = {}
    partition: str | None = None


class PublishedEvent(Struct, frozen=True, array_like=True):
    """A dataset event that takes effect at once, while its task runs.

    Attributes:
        key: Identifies it: `run.node.map_index.` and which one of the task's events it is. The
            same key again, by a further attempt, is the same event.
        time: When it happened; None for when it is recorded.
        trace: The context in which the task runs.
    """

    run: int
    node: int
    map_index: int
    key: str
    uri: str
    extra: dict[str, Any] = {}
    partition: str | None = None
    time: datetime | None = None
    trace: str | None = None


class ResultMessage(Struct, frozen=True, array_like=True):
    """How one attempt ended.

    Attributes:
        worker: Who ran it.
        value: The encoded return value; empty when it is None.
        length: Number of elements when the value is a list, else None.
        emits: Events besides or in place of the plain ones of the outlets.
        started_at, ended_at: The runner's clock.
        after: In a chain, the node before; NO_NODE for the head.
        then: The node that the runner went straight on with, or NO_NODE.
        follow: For a branch, the task ids to follow; for a short circuit `()` to stop.
        published: URIs of which it published events while it ran: they need no plain event.
        waiting: When it was deferred, the encoded `waits.Waiting`.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    worker: str
    outcome: Outcome
    started_at: float
    ended_at: float
    value: bytes = b""
    length: int | None = None
    emits: tuple[Emit, ...] = ()
    error: TaskError | None = None
    after: int = NO_NODE
    then: int = NO_NODE
    follow: tuple[str, ...] | None = None
    published: tuple[str, ...] = ()
    waiting: bytes = b""


class StartedMessage(Struct, frozen=True, array_like=True):
    """A task is running for longer than a moment; its worker owns it now."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    worker: str
    started_at: float


class LogMessage(Struct, frozen=True, array_like=True):
    """A piece of one attempt's output.

    Attributes:
        sequence: Order within the attempt and delivery, from 0.
        text: JSON lines `{"t": seconds, "s": "stdout"|"stderr"|"log", "m": line, …}`.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    sequence: int
    text: str


class FiredMessage(Struct, frozen=True, array_like=True):
    """A trigger has fired, or failed.

    Attributes:
        trigger: Its number in the store.
        epoch: Of the lease under which it ran. An event counts under any, an error or the event
            of a watched dataset only under the present one.
        sequence: Of a watched dataset, counts its events from 1 on; one that is not above what is
            stored is there already.
        run, node, map_index: The deferred task; -1 for a watched dataset.
        delivery: The deferred task's fence.
        slot: Which one of the task's waits.
        payload: Encoded JSON value.
        id: Identity of what it saw, if it has one.
        partition, time: Of a watched dataset's event.
        position: Of a watched dataset, encoded JSON value, kept with the event.
        error: Why it can never fire; nothing else counts then.
        reply: Core subject that is told, with nothing, once this is durable.
    """

    trigger: int
    epoch: int
    sequence: int
    run: int
    node: int
    map_index: int
    delivery: int
    slot: int
    payload: bytes = b"\xc0"
    id: str | None = None
    partition: str | None = None
    time: datetime | None = None
    position: bytes = b"\xc0"
    error: TaskError | None = None
    reply: str = ""


class TriggersOrder(Struct, frozen=True, array_like=True):
    """News for triggerers (core subject, best effort).

    Attributes:
        fresh: Whether there are triggers that nobody runs yet, or that users cancelled.
        gone: Numbers of triggers that nobody waits for any more: they are to be stopped.
    """

    fresh: bool
    gone: tuple[int, ...] = ()


class GoneMessage(Struct, frozen=True, array_like=True):
    """A worker is no more: what it owned goes back to the queue."""

    worker: str


class Heartbeat(Struct, frozen=True, array_like=True):
    """A worker lives."""

    worker: str
    host: str
    pid: int
    slots: int
    busy: int


class CancelOrder(Struct, frozen=True, array_like=True):
    """Stop a run's tasks, wherever they run (core subject, best effort).

    Attributes:
        tasks: Node and map index of those meant, which were cleared; all if empty.
        before: Only what was handed out under a lower delivery, unless it is 0.
    """

    run: int
    reason: str = "cancelled"
    tasks: tuple[tuple[int, int], ...] = ()
    before: int = 0


class NewEvent(Struct, frozen=True):
    """An event from outside, before it has an id.

    Attributes:
        trace: The context of the span that gave it, if it says so itself.
    """

    dataset: str
    extra: dict[str, Any] = {}
    partition: str | None = None
    time: datetime | None = None
    id: str | None = None
    trace: str | None = None


def encode(message: object) -> bytes:
    """Encode any message."""
    return _ENCODER.encode(message)


_ENCODER = msgspec.msgpack.Encoder()
decode_task = msgspec.msgpack.Decoder(TaskMessage).decode
decode_published = msgspec.msgpack.Decoder(PublishedEvent).decode
decode_result = msgspec.msgpack.Decoder(ResultMessage).decode
decode_started = msgspec.msgpack.Decoder(StartedMessage).decode
decode_log = msgspec.msgpack.Decoder(LogMessage).decode
decode_fired = msgspec.msgpack.Decoder(FiredMessage).decode
decode_triggers_order = msgspec.msgpack.Decoder(TriggersOrder).decode
decode_step = msgspec.msgpack.Decoder(Step).decode
decode_steps = msgspec.msgpack.Decoder(tuple[Step, ...]).decode
decode_gone = msgspec.msgpack.Decoder(GoneMessage).decode
decode_heartbeat = msgspec.msgpack.Decoder(Heartbeat).decode
decode_cancel = msgspec.msgpack.Decoder(CancelOrder).decode
decode_run_info = msgspec.msgpack.Decoder(RunInfo).decode
