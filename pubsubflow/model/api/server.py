"""JSON types of the daemon's own state: health, readiness, ingestion and workers."""

from datetime import datetime
from typing import Literal

from msgspec import Struct


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker, as of its last heartbeat.

    Attributes:
        queues: Those that it serves.
        free_sync, free_async: Slots without a task.
        version: Of its pubsubflow; empty if that was before workers said it.
        protocol: The newest protocol of messages that it understands.
        memory, cpu: Bytes and CPUs for tasks that declare resources; None without a bound.
        free_memory, free_cpu: Of that, what no running task has declared.
    """

    worker: str
    host: str
    pid: int
    slots: int
    busy: int
    queues: list[str] = []
    free_sync: int = 0
    free_async: int = 0
    memory: int | None = None
    cpu: float | None = None
    free_memory: int | None = None
    free_cpu: float | None = None
    started_at: datetime
    seen_at: datetime
    version: str = ""
    protocol: int = 1


class Liveness(Struct, frozen=True, kw_only=True):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class IntakeView(Struct, frozen=True, kw_only=True):
    """Whether events from outside are accepted, or refused with 429 for a while.

    Attributes:
        reason: Why they are refused.
        retry_seconds: After how long senders should try again.
        pending: Events and messages that are not processed yet.
        lag_seconds: How long the oldest of them has waited.
        free_bytes: On the disk of the daemon's own servers; None if they are not its own.
    """

    accepting: bool
    reason: str | None = None
    retry_seconds: int | None = None
    pending: int = 0
    lag_seconds: float = 0.0
    free_bytes: int | None = None


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether the daemon is ready, and the conditions of that.

    Attributes:
        checks: Whether each condition holds; `progress` is that nothing has waited too long.
        oldest_seconds: How long the oldest that is due has waited: commands to the manager,
            messages to the managers, publications that JetStream has not stored, timers, and an
            answer of JetStream itself.
        intake: Whether events are accepted; a daemon that refuses them for a while is still ready.
        stores: Whether each object store took what it was given last; a daemon is ready without.
        left_to_newer: How often since its start it left something to a daemon of a newer version,
            because it cannot read it; ready all the same.
    """

    ready: bool
    checks: dict[str, bool]
    oldest_seconds: dict[str, float] = {}
    intake: IntakeView
    stores: dict[str, bool] = {}
    left_to_newer: int = 0


class Info(Struct, frozen=True, kw_only=True):
    """Version and process of this server, and its workers.

    Attributes:
        protocol: The newest protocol of messages that this daemon understands.
        schema: The number of the newest migration that it knows.
    """

    version: str
    pid: int
    started_at: datetime
    workers: list[WorkerView]
    import_errors: int
    protocol: int = 1
    schema: int = 1
