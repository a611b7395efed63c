"""The protocol between daemon and host process: one MessagePack array a frame.

The host is the child process in which triggers run. Triggers go by their id in the store.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import TaskError
from pubsubflow.model.wire.task_questions import TaskQuestion

PollKey = tuple[str, str, bytes, str | None]


class HostSettings(Struct, frozen=True, array_like=True):
    """The argument with which the host is forked.

    Attributes:
        recorder: Path of the flight recorder's file.

    The others are those of `TriggererSettings`.
    """

    recorder: str
    block_seconds: float
    stuck_seconds: float
    threads: int
    acknowledge_seconds: float
    cleanup_seconds: float


class TriggerSpec(Struct, frozen=True, array_like=True):
    """A trigger to run.

    Attributes:
        data: Its encoded fields.
        share_key: What its `share_key()` returned.
        watch: Whether it continues after its first event.
        started_at: When the wait began, seconds since 1970.
        position: Of a watched dataset, encoded.
        isolated: Whether it is known to block the event loop, and so runs apart from the others.
        dag_id: The DAG whose task waits; None for a watch.
    """

    trigger_id: int
    name: str
    data: bytes
    share_key: str | None
    watch: bool
    started_at: float
    position: bytes = b"\xc0"
    isolated: bool = False
    dag_id: str | None = None

    @property
    def poll_key(self) -> PollKey | None:
        """The key of the poll that equal triggers share; None for a poll of its own.

        Watches that continue from different positions see different events; and a poll may use a
        connection that is for some DAGs alone.
        """
        if self.share_key is None:
            return None
        return (self.name, self.share_key, self.position, self.dag_id)


class StartTriggers(Struct, frozen=True, array_like=True, tag=1):
    """Run these triggers."""

    triggers: tuple[TriggerSpec, ...]


class StopTriggers(Struct, frozen=True, array_like=True, tag=2):
    """Close these triggers: their waits have ended."""

    trigger_ids: tuple[int, ...]


class EventCommitted(Struct, frozen=True, array_like=True, tag=3):
    """A manager has committed the last event of a trigger."""

    trigger_id: int


class CleanUpTrigger(Struct, frozen=True, array_like=True, tag=4):
    """Close a trigger that a user cancelled, and run its clean-up."""

    trigger: TriggerSpec


class Ping(Struct, frozen=True, array_like=True, tag=5):
    """Reply, to show that the main loop runs."""


class Shutdown(Struct, frozen=True, array_like=True, tag=6):
    """Close everything and exit."""


class TriggerConnectionReply(Struct, frozen=True, array_like=True, tag=7):
    """The reply to a TriggerConnectionRequest: a connection, or the reason why there is none.

    Loop, request and name are the request's. A reply that was meant for an earlier host fits no
    request of this one, unless all three are the same, and then its answer is right as well.
    """

    loop: int
    request: int
    name: str
    connection: Connection | None = None
    error: str | None = None


class TriggerAnswer(Struct, frozen=True, array_like=True, tag=8):
    """The reply to a TriggerQuestion: the encoded answer, or the reason why there is none.

    Loop, request and trigger are the question's.
    """

    loop: int
    request: int
    trigger_id: int
    data: bytes = b""
    error: str | None = None


class TriggerFired(Struct, frozen=True, array_like=True, tag=1):
    """A trigger has an event; it gives no further one until this one is committed."""

    trigger_id: int
    payload: bytes
    id: str | None = None
    partition: str | None = None
    time: datetime | None = None
    position: bytes = b"\xc0"
    rejected: str | None = None


class TriggersFailed(Struct, frozen=True, array_like=True, tag=2):
    """Triggers raised, or ended without an event."""

    trigger_ids: tuple[int, ...]
    error: TaskError


class TriggerCleanedUp(Struct, frozen=True, array_like=True, tag=3):
    """A cancelled trigger has cleaned up."""

    trigger_id: int


class LoopBlocked(Struct, frozen=True, array_like=True, tag=4):
    """A trigger blocks the event loop, and with it all other triggers on that.

    Attributes:
        trigger_ids: Several that share one poll; empty if the trigger is unknown.
        stack: Where the loop stands.
        stuck: Whether it blocks for so long that the host has to be killed.
    """

    trigger_ids: tuple[int, ...]
    name: str
    seconds: float
    stack: str
    stuck: bool = False


class HostLogLine(Struct, frozen=True, array_like=True, tag=5):
    """A line for the daemon's log."""

    level: str
    event: str
    trigger_id: int
    name: str
    fields: dict[str, Any]


class PingReply(Struct, frozen=True, array_like=True, tag=6):
    """The reply to a Ping."""


class TriggerConnectionRequest(Struct, frozen=True, array_like=True, tag=7):
    """A trigger needs a connection.

    Attributes:
        loop: Index of the loop on which it runs.
        request: Number of the request on that loop.
        trigger_id: One of those that share its poll, which are all of one DAG.
    """

    loop: int
    request: int
    name: str
    trigger_id: int


class TriggerQuestion(Struct, frozen=True, array_like=True, tag=9):
    """A question of a trigger of Airflow's, on the loop that it runs on."""

    loop: int
    request: int
    trigger_id: int
    question: TaskQuestion


class TriggersTroubled(Struct, frozen=True, array_like=True, tag=8):
    """Triggers cannot see their source; with None for the error, they can again."""

    trigger_ids: tuple[int, ...]
    error: str | None


HostCommand = (
    StartTriggers
    | StopTriggers
    | EventCommitted
    | CleanUpTrigger
    | Ping
    | Shutdown
    | TriggerConnectionReply
    | TriggerAnswer
)
HostReport = (
    TriggerFired
    | TriggersFailed
    | TriggerCleanedUp
    | LoopBlocked
    | HostLogLine
    | PingReply
    | TriggerConnectionRequest
    | TriggersTroubled
    | TriggerQuestion
)


def _as_text(value: Any) -> str:
    return str(value)


encode = msgspec.msgpack.Encoder(enc_hook=_as_text).encode
decode_command = msgspec.msgpack.Decoder(HostCommand).decode
decode_report = msgspec.msgpack.Decoder(HostReport).decode
decode_settings = msgspec.msgpack.Decoder(HostSettings).decode
