"""The protocol between worker and runner: frames whose first byte is their kind.

To the runner:

======= ======================================================================================
TASK    assignment, then a TaskMessage as it came from the bus
AHEAD   the same, while another task runs there that ends before: its output begins with a mark
SOURCE  a RunnerSource; always before the first task that needs it
REPLY   number of the request, then a Chunk
CANCEL  assignment
DRAIN   nothing: start no further node of a chain
======= ======================================================================================

From the runner:

======== =====================================================================================
RESULT   assignment, node, the next node of the chain (or NO_NODE), then a ResultMessage
STORED   the same with the length of the ResultMessage before it, then the result to be stored
LOG      assignment, then lines of output
LEFT     assignment: its task goes on although its result is sent, so replace this process
RETURNED assignment that was revoked before it began
REQUEST  number, then a WorkerRequest
FETCH    number, then a StoredResult; its reply is a Chunk with all of it
PUBLISH  number, then a PublishedEvent; its reply, an empty Chunk, comes when the bus has stored it
======== =====================================================================================

An assignment is the place of a task message among those of this process, from 1; it stays the same
along the chain, and a message that comes to the process once more has another one.
"""

import struct

import msgspec
from msgspec import Struct

from pubsubflow.model.source.bundles import DagSource
from pubsubflow.model.wire.messages import PublishedEvent, encode
from pubsubflow.model.wire.stored_results import StoredResult
from pubsubflow.model.wire.worker_requests import WorkerRequest
from pubsubflow.runner.limits import ProcessLimits

TASK, SOURCE, REPLY, CANCEL, DRAIN, AHEAD = b"TSACDN"
RESULT, LOG, REQUEST, PUBLISH, LEFT, RETURNED, STORED, FETCH = b"RLQPFBOG"

StoredObjects = list[tuple[int, bytes]]
"""Values that go to the result store, by their parts; see `stored_part`."""

_decode_objects = msgspec.msgpack.Decoder(StoredObjects).decode

RunnerRequest = WorkerRequest | PublishedEvent | StoredResult

NUMBERED = struct.Struct(">BI")
RESULT_HEADER = struct.Struct(">BIii")
STORED_HEADER = struct.Struct(">BIiiI")
DRAIN_FRAME = bytes((DRAIN,))
SOURCE_HEADER = bytes((SOURCE,))


class RunnerSettings(Struct, frozen=True, array_like=True):
    """The argument with which a runner is forked.

    Attributes:
        kind: `sync` runs one task at a time in its main thread, `async` many on a loop.
        worker: Id of its worker.
        max_result_bytes: A larger encoded result fails its task.
        grace_seconds: How long a cancelled async task may take to end.
        max_log_bytes: Output of an async task beyond that is dropped.
        recorder: The file of the flight recorder; of a sync runner the numbers alone are used, and
            one that gets nothing ahead has none.
        limits: The limits of the process.
        alone: Whether one task at a time runs in it.
        inline_bytes: A larger encoded result goes to the result store, if there is one.
        max_stored_bytes: A larger one fails its task; 0 without a store.
        keeper: The name of what keeps large results of tasks that say so; empty for nothing.
        max_kept_bytes: A larger one is not kept there.
    """

    kind: str
    worker: str
    max_result_bytes: int
    grace_seconds: float
    max_log_bytes: int = 10 << 20
    recorder: str = ""
    limits: ProcessLimits = ProcessLimits()
    alone: bool = False
    inline_bytes: int = 0
    max_stored_bytes: int = 0
    keeper: str = ""
    max_kept_bytes: int = 0


_KINDS: dict[type, int] = {PublishedEvent: PUBLISH, StoredResult: FETCH}


class RunnerSource(Struct, frozen=True):
    """The code of runs, as it is on this machine.

    Attributes:
        folder: The folder of its bundle.
        root: The folder that users know it by.
        source: What the runs need of it.
        kind: Of the bundle; see `Manifest`.
    """

    folder: str
    root: str
    source: DagSource
    kind: str = ""


def split_stored(frame: bytes) -> tuple[int, bytes, StoredObjects]:
    """Return assignment, ResultMessage and what is stored of a frame of the kind STORED."""
    _, number, _, _, size = STORED_HEADER.unpack_from(frame)
    end = STORED_HEADER.size + size
    return number, frame[STORED_HEADER.size : end], _decode_objects(frame[end:])


def request_frame(number: int, request: RunnerRequest) -> bytes:
    """Return the frame of a request."""
    kind = _KINDS.get(type(request), REQUEST)
    return NUMBERED.pack(kind, number) + encode(request)
