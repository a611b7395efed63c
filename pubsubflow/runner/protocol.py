"""The protocol between worker and runner: frames whose first byte is their kind.

To the runner:

======= ======================================================================================
TASK    assignment, then a TaskMessage as it came from the bus
SOURCE  a RunnerSource; always before the first task that needs it
REPLY   number of the request, then a Chunk
CANCEL  assignment
DRAIN   nothing: start no further node of a chain
======= ======================================================================================

From the runner:

======== =====================================================================================
RESULT   assignment, node, the next node of the chain (or NO_NODE), then a ResultMessage
LOG      assignment, then lines of output
LEFT     assignment: its task goes on although its result is sent, so replace this process
RETURNED assignment that was revoked before it began
REQUEST  number, then a WorkerRequest
PUBLISH  number, then a PublishedEvent; its reply, an empty Chunk, comes when the bus has stored it
======== =====================================================================================

An assignment is the worker's number of a task message; it stays the same along the chain.
"""

import struct

from msgspec import Struct

from pubsubflow.model.source.bundles import DagSource
from pubsubflow.model.wire.messages import PublishedEvent, encode
from pubsubflow.model.wire.worker_requests import WorkerRequest
from pubsubflow.runner.limits import ProcessLimits

TASK, SOURCE, REPLY, CANCEL, DRAIN = b"TSACD"
RESULT, LOG, REQUEST, PUBLISH, LEFT, RETURNED = b"RLQPFB"

RunnerRequest = WorkerRequest | PublishedEvent

NUMBERED = struct.Struct(">BI")
RESULT_HEADER = struct.Struct(">BIii")
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
        recorder: The file of an async runner's flight recorder.
        limits: The limits of the process.
        alone: Whether one task at a time runs in it.
    """

    kind: str
    worker: str
    max_result_bytes: int
    grace_seconds: float
    max_log_bytes: int = 10 << 20
    recorder: str = ""
    limits: ProcessLimits = ProcessLimits()
    alone: bool = False


class RunnerSource(Struct, frozen=True):
    """The code of runs, as it is on this machine.

    Attributes:
        folder: The folder of its bundle.
        root: The folder that users know it by.
        source: What the runs need of it.
    """

    folder: str
    root: str
    source: DagSource


def request_frame(number: int, request: RunnerRequest) -> bytes:
    """Return the frame of a request."""
    kind = PUBLISH if isinstance(request, PublishedEvent) else REQUEST
    return NUMBERED.pack(kind, number) + encode(request)
