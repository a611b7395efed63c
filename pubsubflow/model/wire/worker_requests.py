"""Requests of workers to managers, on behalf of their tasks; arrays in MessagePack."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.connections import Connection
from pubsubflow.model.values.variables import Variable
from pubsubflow.model.wire.messages import NOT_MAPPED, JournalEntry
from pubsubflow.model.wire.task_questions import TaskQuestion

LEASE_LOST = "lease lost: "
"""Prefix of the error of a request for a task that the worker has lost."""

ABSENT = "absent: "
"""Prefix of the error of a request for what does not exist."""

RETURN_VALUE = "return_value"
"""The key of what a task returns."""

RESULT_LOST = "result lost: "
"""Begins the error of a request for a result that its keeper does not have any more."""

REFUSED = "refused: "
"""Prefix of an error that stays the same when the request is repeated."""

LATER = "not now: "
"""Prefix of the error of a request that the manager cannot answer while Postgres is away."""

LATER_HEADER = "Psf-Later"
"""Header of a request whose sender understands `LATER`; others get no answer then."""

_LATER_MARK = LATER.encode()
_NO_DATA = b"\x93\xc4\x00\x00"


class SourceRequest(Struct, frozen=True, array_like=True, tag="source"):
    """Request a DagSource by its key, from byte `offset` of its encoded form."""

    hash: str
    offset: int = 0


class BundleRequest(Struct, frozen=True, array_like=True, tag="bundle"):
    """Request the Manifest of a bundle, from byte `offset` of its encoded form."""

    hash: str
    offset: int = 0


class FileRequest(Struct, frozen=True, array_like=True, tag="file"):
    """Request a file of a bundle by the hash of its content, from byte `offset` on."""

    hash: str
    offset: int = 0


class ResultRequest(Struct, frozen=True, array_like=True, tag="result"):
    """Request the result of a node: of one instance, or of all as one list.

    Attributes:
        map_index: An instance, or None for all of a mapped node; NOT_MAPPED for a plain one.
        element: One element of a list result only.
        offset: Bytes already received; replies come in chunks.
    """

    run: int
    node: int
    map_index: int | None = NOT_MAPPED
    element: int | None = None
    offset: int = 0


class EventsRequest(Struct, frozen=True, array_like=True, tag="events"):
    """Request the events that a run consumed, from number `offset`."""

    run: int
    offset: int = 0


class LeaseStatus(StrEnum):
    """The status of a task that a worker receives again.

    FREE: it may be run. VOID: it has ended, or has a newer delivery. TAKEN: another live worker
    runs it.
    """

    FREE = "free"
    VOID = "void"
    TAKEN = "taken"


class LeaseRequest(Struct, frozen=True, array_like=True, tag="lease"):
    """Request whether to run a task that was delivered before; the reply is a LeaseStatus."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    worker: str


class JournalRequest(Struct, frozen=True, array_like=True, tag="steps"):
    """Request the journal of a task, an encoded tuple of JournalEntry, from byte `offset`."""

    run: int
    node: int
    map_index: int
    offset: int = 0


class JournalEntryRequest(Struct, frozen=True, array_like=True, tag="step"):
    """Request to record a journal entry; the reply is the recorded entry.

    It is another one when the task runs twice for a moment and the other process was faster. The
    reply is empty (`total` 0) when the row of a chained task does not exist yet: request it again.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    entry: JournalEntry


class ConnectionRequest(Struct, frozen=True, array_like=True, tag="connection"):
    """Request a connection with its secrets, on behalf of a task that runs under this fence.

    The reply is an encoded Connection; it is empty (`total` 0) when the row of a chained task does
    not exist yet: repeat the request.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    name: str


class VariableRequest(Struct, frozen=True, array_like=True, tag="variable"):
    """Request a variable with its value, on behalf of a task that runs under this fence.

    The reply is an encoded Variable; it is empty as that to a ConnectionRequest.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    name: str


class StateRequest(Struct, frozen=True, array_like=True, tag="state"):
    """Request a value of the state of a run's DAG; the reply is an encoded StateValue."""

    run: int
    name: str


class PullRequest(Struct, frozen=True, array_like=True, tag="pull"):
    """Request what a task has left under a key; the reply is an encoded PulledValues.

    Attributes:
        run: The run of the task that requests it.
        map_index: One instance; None for all.
        run_id: The run to read; with neither it nor `dag_id` that of the task itself.
        dag_id: The DAG of that run; without `run_id` its last run that succeeded.
        offset: Bytes already received; replies come in chunks.
        early: Whether what running attempts have left counts, too; see `LeaveValue`.
    """

    run: int
    task_id: str
    key: str
    map_index: int | None = None
    run_id: str | None = None
    dag_id: str | None = None
    offset: int = 0
    early: bool = False


class WantedRun(Struct, frozen=True, array_like=True):
    """A run that a task starts.

    Attributes:
        run_key: The key under which its DAG has one such run; the task's own if left out.
    """

    dag_id: str
    params: dict[str, Any] = {}
    logical_time: datetime | None = None
    partition: str | None = None
    run_key: str | None = None


class StartRunRequest(Struct, frozen=True, array_like=True, tag="start"):
    """Request to start a run, on behalf of a task that runs under this fence; the reply is its id.

    However often an attempt sends it, with the same `run_key` it is one run. The reply is empty
    (`total` 0) when the row of a chained task does not exist yet: repeat the request.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    wanted: WantedRun


class LiveRunsRequest(Struct, frozen=True, array_like=True, tag="live"):
    """Request which of some runs have not ended; the reply is a tuple of these."""

    runs: tuple[int, ...]


class PreviousSuccessRequest(Struct, frozen=True, array_like=True, tag="previous"):
    """Request the last run before a run that has succeeded; the reply is a PreviousRun, or null."""

    run: int


class PreviousRun(Struct, frozen=True, array_like=True):
    """A run before another one of the same DAG.

    Attributes:
        logical_time: Its tick, for a run by time.
        started_at: When its first task started.
    """

    run_id: str
    logical_time: datetime | None
    created_at: datetime
    started_at: datetime | None


class TaskQuestionRequest(Struct, frozen=True, array_like=True, tag="question"):
    """A question of a task that runs under this fence; the reply is the encoded answer.

    The reply is empty (`total` 0) when the row of a chained task does not exist yet: repeat it.

    Attributes:
        offset: Bytes already received; replies come in chunks.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    question: TaskQuestion
    offset: int = 0


WorkerRequest = (
    SourceRequest
    | BundleRequest
    | FileRequest
    | ResultRequest
    | EventsRequest
    | LeaseRequest
    | JournalRequest
    | JournalEntryRequest
    | ConnectionRequest
    | VariableRequest
    | PullRequest
    | StartRunRequest
    | StateRequest
    | PreviousSuccessRequest
    | LiveRunsRequest
    | TaskQuestionRequest
)


class Chunk(Struct, frozen=True, array_like=True):
    """One chunk of a reply.

    Attributes:
        data: Bytes from the requested offset; for events an encoded tuple of EventInfo.
        total: Length of the whole (bytes, or number of events).
        error: One line when the request fails.
    """

    data: bytes
    total: int
    error: str | None = None


def is_later(reply: bytes) -> bool:
    """Return whether an encoded Chunk says that the request is to be repeated later."""
    # Replies are forwarded unread, and most are large.
    return reply.startswith(_NO_DATA) and _LATER_MARK in reply[:32]


def secrets_decoder(request: WorkerRequest) -> Callable[[bytes], Connection | Variable] | None:
    """Return what decodes the reply to a request if that may hold secrets."""
    if isinstance(request, ConnectionRequest):
        return decode_connection
    return decode_variable if isinstance(request, VariableRequest) else None


def fenced_run(request: WorkerRequest) -> int | None:
    """Return the run for whose task a request is made; None for one that anybody may make."""
    return request.run if isinstance(request, _FENCED) else None


_FENCED = (
    ConnectionRequest,
    VariableRequest,
    StartRunRequest,
    JournalEntryRequest,
    TaskQuestionRequest,
)
decode_worker_request = msgspec.msgpack.Decoder(WorkerRequest).decode
decode_lease_status = msgspec.msgpack.Decoder(LeaseStatus).decode
decode_chunk = msgspec.msgpack.Decoder(Chunk).decode
decode_previous_run = msgspec.msgpack.Decoder(PreviousRun | None).decode
decode_live_runs = msgspec.msgpack.Decoder(tuple[int, ...]).decode
decode_run_id = msgspec.msgpack.Decoder(str).decode
decode_connection = msgspec.msgpack.Decoder(Connection).decode
decode_variable = msgspec.msgpack.Decoder(Variable).decode
