"""What worker and runner say to each other: frames whose first byte tells their kind.

To the runner:

======= ======================================================================================
TASK    ticket, then a TaskMessage as it came from the bus
SOURCE  a SourceBundle; always before the first task that needs it
ANSWER  number of the question, then a Piece
CANCEL  ticket
DRAIN   nothing: go on with no chain
======= ======================================================================================

From the runner:

======== =====================================================================================
RESULT   ticket, node, the node it goes straight on with (or NO_NODE), then a ResultMessage
LOG      ticket, then lines of output
QUESTION number, then an Ask
PUBLISH  number, then a PublishedEvent; answered, with nothing, when the bus has stored it
======== =====================================================================================

A ticket is the worker's number of a task message; it stays the same along the chain.
"""

import struct

from msgspec import Struct

from pubsubflow.model.wire.messages import PublishedEvent, encode
from pubsubflow.model.wire.worker_requests import Ask

TASK, SOURCE, ANSWER, CANCEL, DRAIN = b"TSACD"
RESULT, LOG, QUESTION, PUBLISH = b"RLQP"

Question = Ask | PublishedEvent

NUMBERED = struct.Struct(">BI")
RESULT_HEAD = struct.Struct(">BIii")
DRAIN_FRAME = bytes((DRAIN,))
SOURCE_HEAD = bytes((SOURCE,))


class RunnerSettings(Struct, frozen=True, array_like=True):
    """What a runner is told at its start.

    Attributes:
        kind: `sync` runs one task at a time in its main thread, `async` many on a loop.
        worker: Id of its worker.
        max_result_bytes: A larger encoded result fails its task.
        grace_seconds: How long a cancelled async task may take to end.
    """

    kind: str
    worker: str
    max_result_bytes: int
    grace_seconds: float


def question_frame(number: int, question: Question) -> bytes:
    """Return the frame of something that is answered."""
    kind = PUBLISH if isinstance(question, PublishedEvent) else QUESTION
    return NUMBERED.pack(kind, number) + encode(question)
