"""JSON types of the system: what it stores, how far behind it is, and who does what."""

from datetime import datetime

from msgspec import Struct


class TableSizeView(Struct, frozen=True, kw_only=True):
    """A table of the database.

    Attributes:
        bytes: With its indices and all of its partitions.
        rows: As Postgres has counted them last.
    """

    name: str
    bytes: int
    rows: int


class DatabaseView(Struct, frozen=True, kw_only=True):
    """The database.

    Attributes:
        version: Of Postgres.
        tables: The largest ones, the largest first.
    """

    name: str
    version: str
    bytes: int
    tables: list[TableSizeView]


class SliceView(Struct, frozen=True, kw_only=True):
    """A part of the history that retention removes as a whole.

    Attributes:
        series: `event` or `run`.
    """

    series: str
    number: int
    started_at: datetime


class ConsumerLagView(Struct, frozen=True, kw_only=True):
    """How far a consumer of a stream of NATS is behind.

    Attributes:
        waiting: Messages that are not delivered yet.
        unacknowledged: Messages that are delivered and not acknowledged.
        oldest_seconds: Age of the oldest waiting message; 0 if none waits.
    """

    stream: str
    consumer: str
    waiting: int
    unacknowledged: int
    oldest_seconds: float


class TriggererView(Struct, frozen=True, kw_only=True):
    """A triggerer, as of its last heartbeat.

    Attributes:
        capacity: How many triggers it runs at most.
        running: How many it runs.
    """

    name: str
    host: str
    pid: int
    capacity: int
    running: int
    started_at: datetime
    seen_at: datetime


class LeaseView(Struct, frozen=True, kw_only=True):
    """Who does what only one of several daemons may do."""

    name: str
    owner: str
    seen_at: datetime


class SystemView(Struct, frozen=True, kw_only=True):
    """What the system stores, how far behind it is, and who does what.

    Attributes:
        consumers: Empty while NATS does not answer; `trouble` says why.
        slices: The parts of the history that are kept, the oldest first.
        retention: The settings of retention: name → value.
        trouble: Why something is left out.
    """

    database: DatabaseView
    slices: list[SliceView]
    consumers: list[ConsumerLagView]
    triggerers: list[TriggererView]
    leases: list[LeaseView]
    retention: dict[str, float]
    trouble: str | None = None
