"""What the API tells of the daemon itself."""

from datetime import datetime
from typing import Literal

from msgspec import Struct


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker, by its last heartbeat."""

    worker: str
    host: str
    pid: int
    slots: int
    busy: int
    started_at: datetime
    seen_at: datetime


class Liveness(Struct, frozen=True, kw_only=True):
    """The process lives."""

    status: Literal["alive"] = "alive"


class IntakeView(Struct, frozen=True, kw_only=True):
    """Whether events from outside are taken in, or refused by 429 for a while.

    Attributes:
        reason: Why not.
        retry_seconds: When to try again.
        pending: Events and messages that are not folded yet.
        lag_seconds: How long the first of them waits.
        free_bytes: On the disk of the daemon's own servers; None if they are not its own.
    """

    accepting: bool
    reason: str | None = None
    retry_seconds: int | None = None
    pending: int = 0
    lag_seconds: float = 0.0
    free_bytes: int | None = None


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether the daemon can do its work, and what that hangs on.

    Attributes:
        intake: Whether it takes events in: it is ready while it asks senders to wait.
    """

    ready: bool
    checks: dict[str, bool]
    intake: IntakeView


class Info(Struct, frozen=True, kw_only=True):
    """What this server is."""

    version: str
    pid: int
    started_at: datetime
    workers: list[WorkerView]
    import_errors: int
