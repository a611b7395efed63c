"""Messages between manager, worker, runner and triggerer.

All are arrays in MessagePack: field order is the wire format, so fields are only ever added at
the end, with a default. Moments are seconds since 1970 (float) unless they are datetimes.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Raw, Struct

from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.values.state import StateChange
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.task_resources import ResourcesSpec

NOT_MAPPED = -1
NO_NODE = -1
ALL_RUNS = 0
MAX_MAP_NAME = 250

TaskKey = tuple[int, int, int]
"""A task instance: run number, node, map index."""

Fence = tuple[int, int, int, int, int]
"""One delivery of a task: run number, node, map index, attempt, delivery."""


class EventInfo(Struct, frozen=True, array_like=True):
    """A dataset event in the form that tasks get.

    Attributes:
        event_id: The public UUID.
        dataset: Normalised URI.
        extra: JSON object.
        time: When it happened, according to its source.
        source: `task`, `api`, `cli`, `bus` …
        run_id: The run whose task emitted it, if any; likewise `dag_id` and `task_id`.
        trace: The trace context of the span that emitted it; see `model.traces`.
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
    """A run's span in a distributed trace.

    Attributes:
        context: The trace context of the run's span; see `model.traces`.
        causes: The contexts that caused the run: the first is the span's parent, the others are
            links.
        recorded: Whether the span is our own, rather than that of the client that posted the event.
    """

    context: str
    causes: tuple[str, ...] = ()
    recorded: bool = False


class RunInfo(Struct, frozen=True, array_like=True):
    """The facts about a run that its tasks get.

    Attributes:
        key: The run's number in the store; all messages about the run carry it.
        run_id: The public UUID.
        kind: `dataset`, `cron`, `manual`.
        cause: The reason for the run, one line for people.
        events: The consumed events, or None when they are too many for a message: then the runner
            requests them.
        ancestry: Numbers of the DAGs whose runs led to it, the first one first.
        trace: Its span in a distributed trace, if it has one.
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
    ancestry: tuple[int, ...] = ()
    trace: RunTrace | None = None


class TaskError(Struct, frozen=True, array_like=True):
    """The error of a failed attempt.

    Attributes:
        type: The exception's class name.
        message: One line.
        traceback: The user's part of the traceback.
        final: True when no retry can help.
        full_traceback: The whole traceback, where that is more.
    """

    type: str
    message: str
    traceback: str = ""
    final: bool = False
    full_traceback: str = ""


class JournalEntry(Struct, frozen=True, array_like=True):
    """One entry of a task's journal: a step that is done, or a wait that is over.

    Attributes:
        key: Its key in the journal: a position counted from 0 for steps and waits of the function
            itself, `~label#digest~n` for concurrent steps, `start` for the wait of a sensor.
        label: The name of the step or wait; a replay that reaches the key with another label has
            taken another path.
        kind: `step` or `wait`.
        value: Encoded value of a step; encoded tuple of WaitCompletion of a wait.
        error: The failure, in place of a value.
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
        delivery: Grows with every delivery of the task; with `attempt` it is the fence. The tasks
            of `chain` have the same one.
        kind: The kind of runner, `async` or `sync`.
        source: Content hash of the code.
        info: An encoded RunInfo.
        inputs: Node → encoded result, for the nodes of `TaskSpec.inputs`. One that is missing is
            too large for a message, and the runner requests it.
        elements: Mapped argument → encoded element of a mapped result; likewise.
        indexes: Per mapped argument, the index of this instance's element.
        chain: Nodes that the runner runs directly afterwards, in order; see `Plan.chains`.
        timeouts: Seconds or None for the task itself and each node of `chain`; the remaining time
            for a task that has waited.
        journal: The entries of the task's journal, in order; None when they are too large for a
            message, or may be out of date: then the runner requests them.
        apart: Whether it needs a process of its own, because an attempt has killed its process.
        resources: What the task may use, if it declares that.
        executor: Where it is to run, if it says so.
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
    # Raw fields are forwarded as they are: the manager never decodes results.
    info: Raw
    inputs: dict[int, Raw] = {}
    elements: dict[str, Raw] = {}
    indexes: tuple[int, ...] = ()
    chain: tuple[int, ...] = ()
    timeouts: tuple[float | None, ...] = (None,)
    journal: tuple[JournalEntry, ...] | None = ()
    apart: bool = False
    resources: ResourcesSpec | None = None
    executor: ExecutorSpec | None = None


class Outcome(StrEnum):
    """The outcome of an attempt.

    Deferred: the task waits, and continues later. Crashed: it killed its process. Lost: its process
    was killed by another task.
    """

    SUCCESS = "success"
    DEFERRED = "deferred"
    SKIPPED = "skipped"
    FAILED = "failed"
    CRASHED = "crashed"
    LOST = "lost"
    CANCELLED = "cancelled"


class EmittedEvent(Struct, frozen=True, array_like=True):
    """A dataset event that takes effect with the success of its task."""

    uri: str
    extra: dict[str, Any] = {}
    partition: str | None = None


class PublishedEvent(Struct, frozen=True, array_like=True):
    """A dataset event that takes effect at once, while its task runs.

    Attributes:
        key: Identifies it: `run.node.map_index.` and its number among the task's events. The same
            key again, by a further attempt, is the same event.
        time: When it happened; None for when it is recorded.
        trace: The trace context in which the task runs.
        delivery: The task's.
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
    delivery: int | None = None


class ResultMessage(Struct, frozen=True, array_like=True):
    """The end of one attempt.

    Attributes:
        worker: Id of the worker that ran it.
        value: The encoded return value; empty when it is None.
        length: Number of elements when the value is a list, else None.
        emits: Emitted events, which replace the plain ones of their outlets.
        started_at, ended_at: The runner's clock.
        after: In a chain, the node before; NO_NODE for the head.
        then: In a chain, the node that the runner runs next; NO_NODE for the last one.
        follow: For a branch, the task ids to follow; for a short circuit `()` to stop.
        published: URIs of which it published events while it ran: they get no plain event.
        wait_set: When it was deferred, the encoded `waits.WaitSet`.
        over_time: Whether it failed because its time limit was over.
        retry_after: Seconds until the next attempt, if the task demands them.
        outputs: What it leaves behind besides its result, encoded; see `outputs.TaskOutputs`.
        peak_memory: The most memory that its process held, bytes; 0 where that is not known, as of
            a process that runs several tasks.
        state: Changes of its DAG's state.
        map_name: Name of an instance of a mapped task, of MAX_MAP_NAME characters at most; empty
            for none.
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
    emits: tuple[EmittedEvent, ...] = ()
    error: TaskError | None = None
    after: int = NO_NODE
    then: int = NO_NODE
    follow: tuple[str, ...] | None = None
    published: tuple[str, ...] = ()
    wait_set: bytes = b""
    over_time: bool = False
    retry_after: float | None = None
    outputs: bytes = b""
    peak_memory: int = 0
    state: tuple[StateChange, ...] = ()
    map_name: str = ""


class StartedMessage(Struct, frozen=True, array_like=True):
    """A task has been running for some time: its worker owns it now."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    worker: str
    started_at: float


class LogMessage(Struct, frozen=True, array_like=True):
    """A part of one attempt's output.

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
        epoch: Of the lease under which it ran. An event counts under any epoch, an error or an
            event of a watched dataset only under the present one.
        sequence: Of a watched dataset, counts its events from 1; an event is a duplicate unless it
            is above the stored one.
        run, node, map_index: The deferred task; -1 for a watched dataset.
        delivery: The deferred task's fence.
        slot: Index of the wait in the task's wait set.
        payload: Encoded JSON value.
        id: Identity of the event, if it has one.
        partition, time: Of a watched dataset's event.
        position: Of a watched dataset, encoded JSON value, stored with the event.
        error: The reason why it can never fire; nothing else counts then.
        reply: Core subject for an empty reply once this is durable.
        rejected: Of a watched dataset: why it becomes a dead letter, and no event. Managers of
            protocol 1 would make one.
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
    rejected: str | None = None


class TriggersChangedMessage(Struct, frozen=True, array_like=True):
    """The set of triggers has changed (core subject, best effort).

    Attributes:
        has_new: Whether triggers were added, which no triggerer runs, or cancelled by users.
        ended: Numbers of triggers that no task waits for: triggerers stop them.
    """

    has_new: bool
    ended: tuple[int, ...] = ()


class WorkerLostMessage(Struct, frozen=True, array_like=True):
    """A worker has died or left: its tasks go back to the queue."""

    worker: str


class CancelMessage(Struct, frozen=True, array_like=True):
    """Stop a run's tasks on all workers (core subject, best effort).

    Attributes:
        run: The run, or ALL_RUNS.
        tasks: Node and map index of the cleared tasks; all tasks of the run if empty.
        below_delivery: Only tasks of lower delivery numbers, unless it is 0.
    """

    run: int
    reason: str = "cancelled"
    tasks: tuple[tuple[int, int], ...] = ()
    below_delivery: int = 0


class NewEvent(Struct, frozen=True):
    """An event from outside, before it has an id.

    Its dataset's URI is normalised here, so all that follows may rely on it.

    Attributes:
        trace: The trace context of the span that emitted it, if the event carries one.
    """

    dataset: str
    extra: dict[str, Any] = {}
    partition: str | None = None
    time: datetime | None = None
    id: str | None = None
    trace: str | None = None

    def __post_init__(self) -> None:
        """Normalise the URI.

        Raises:
            DefinitionError: The URI is bad.
        """
        msgspec.structs.force_setattr(self, "dataset", normalise_uri(self.dataset))


class _ResultHeader(Struct, frozen=True, array_like=True):
    """The fence of a ResultMessage: its first fields, in any version."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int


def decode_result_fence(data: bytes) -> Fence:
    """Return the fence of an encoded ResultMessage.

    Raises:
        msgspec.DecodeError: It is malformed.
    """
    return msgspec.structs.astuple(_decode_result_header(data))


def encode(message: object) -> bytes:
    """Encode any message."""
    return _ENCODER.encode(message)


_ENCODER = msgspec.msgpack.Encoder()
decode_task = msgspec.msgpack.Decoder(TaskMessage).decode
decode_published = msgspec.msgpack.Decoder(PublishedEvent).decode
decode_result = msgspec.msgpack.Decoder(ResultMessage).decode
_decode_result_header = msgspec.msgpack.Decoder(_ResultHeader).decode
decode_started = msgspec.msgpack.Decoder(StartedMessage).decode
decode_log = msgspec.msgpack.Decoder(LogMessage).decode
decode_fired = msgspec.msgpack.Decoder(FiredMessage).decode
decode_triggers_changed = msgspec.msgpack.Decoder(TriggersChangedMessage).decode
decode_journal_entry = msgspec.msgpack.Decoder(JournalEntry).decode
decode_journal = msgspec.msgpack.Decoder(tuple[JournalEntry, ...]).decode
decode_worker_lost = msgspec.msgpack.Decoder(WorkerLostMessage).decode
decode_cancel = msgspec.msgpack.Decoder(CancelMessage).decode
decode_run_info = msgspec.msgpack.Decoder(RunInfo).decode
