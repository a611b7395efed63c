"""What daemon and host process say to each other: one MessagePack array a frame.

The host is the child process in which triggers run. Triggers go by their number in the store.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import TaskError

ShareKey = tuple[str, str, bytes]


class HostSettings(Struct, frozen=True, array_like=True):
    """What the host is told at its start.

    Attributes:
        recorder: Path of the file in which it notes which triggers it runs; see `Recorder`.

    The others are those of `TriggererSettings`.
    """

    recorder: str
    block_seconds: float
    stuck_seconds: float
    threads: int
    acknowledge_seconds: float
    cleanup_seconds: float


class Job(Struct, frozen=True, array_like=True):
    """A trigger to run.

    Attributes:
        data: Its encoded fields.
        share: Its share key.
        watch: Whether it goes on after its first event.
        started_at: When the wait began, seconds since 1970.
        position: Of a watched dataset, encoded.
        apart: Whether it is known to hold up others.
    """

    number: int
    name: str
    data: bytes
    share: str | None
    watch: bool
    started_at: float
    position: bytes = b"\xc0"
    apart: bool = False

    @property
    def key(self) -> ShareKey | None:
        """What must be the same for triggers to share one poll.

        Watches that go on from different positions see different things.
        """
        return None if self.share is None else (self.name, self.share, self.position)


class Start(Struct, frozen=True, array_like=True, tag=1):
    """Run these."""

    jobs: tuple[Job, ...]


class Stop(Struct, frozen=True, array_like=True, tag=2):
    """Close these; nobody waits for them any more."""

    numbers: tuple[int, ...]


class Durable(Struct, frozen=True, array_like=True, tag=3):
    """The last event of a trigger is durable."""

    number: int


class CleanUp(Struct, frozen=True, array_like=True, tag=4):
    """A user cancelled: close the trigger and let it clean up."""

    job: Job


class Ping(Struct, frozen=True, array_like=True, tag=5):
    """Say that you live."""


class Finish(Struct, frozen=True, array_like=True, tag=6):
    """Close everything and exit."""


class Given(Struct, frozen=True, array_like=True, tag=7):
    """The answer to Wanted: a connection, or why there is none.

    One that was meant for a host before names another question, or another name.
    """

    lane: int
    question: int
    name: str
    connection: Connection | None = None
    error: str | None = None


class Fired(Struct, frozen=True, array_like=True, tag=1):
    """A trigger has seen something; nothing more comes of it until that is durable."""

    number: int
    payload: bytes
    id: str | None = None
    partition: str | None = None
    time: datetime | None = None
    position: bytes = b"\xc0"


class Failed(Struct, frozen=True, array_like=True, tag=2):
    """Triggers ended without an event, or raised."""

    numbers: tuple[int, ...]
    error: TaskError


class CleanedUp(Struct, frozen=True, array_like=True, tag=3):
    """A cancelled trigger has cleaned up."""

    number: int


class Blocked(Struct, frozen=True, array_like=True, tag=4):
    """A trigger holds up all others.

    Attributes:
        numbers: Who; several share one poll, none if it cannot be told.
        stack: Where.
        stuck: Whether it did not come back in time, so that the host has to be killed.
    """

    numbers: tuple[int, ...]
    name: str
    seconds: float
    stack: str
    stuck: bool = False


class Said(Struct, frozen=True, array_like=True, tag=5):
    """A line for the daemon's log."""

    level: str
    event: str
    number: int
    name: str
    fields: dict[str, Any]


class Wanted(Struct, frozen=True, array_like=True, tag=7):
    """A trigger asks for a connection."""

    lane: int
    question: int
    name: str


class Pong(Struct, frozen=True, array_like=True, tag=6):
    """The host lives."""


Order = Start | Stop | Durable | CleanUp | Ping | Finish | Given
Report = Fired | Failed | CleanedUp | Blocked | Said | Pong | Wanted


def _plain(value: Any) -> str:
    return str(value)


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_settings = msgspec.msgpack.Decoder(HostSettings).decode
