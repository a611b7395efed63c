"""What one transaction works on: the locked state, changed in memory, written once at the end.

Messages of one batch that concern the same run, task or gate meet here, so that a chain of tasks
or a burst of events costs one row each, not one a step.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct, field

from pubsubflow.manager.versions import Version
from pubsubflow.model.calls import Timer
from pubsubflow.model.messages import EventInfo, RunInfo, TaskError, TaskMessage, decode_run_info
from pubsubflow.model.progress import Progress
from pubsubflow.model.states import RunState, TaskState

decode_progress = msgspec.msgpack.Decoder(Progress).decode
TaskKey = tuple[int, int]


class LiveTask(Struct):
    """A task instance that is not finished.

    Attributes:
        stored: The row exists in the store.
        changed: The row must be written.
    """

    attempt: int = 1
    delivery: int = 1
    crashes: int = 0
    state: TaskState = TaskState.QUEUED
    chained: bool = False
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    stored: bool = False
    changed: bool = True


class EndedTask(Struct, frozen=True):
    """A task instance that ended in this transaction."""

    node: int
    map_index: int
    attempt: int
    state: TaskState
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    length: int | None = None
    value: bytes | None = None
    error: TaskError | None = None


class RunWork:
    """A run that is being worked on, under its lock or newly made.

    Attributes:
        number: Its number in the store.
        live: Live tasks known here, by (node, map index).
        ended_tasks: Those that ended here.
        dispatch: Those to be handed out after the commit.
        orders: Called-off tasks' fences are void; True when workers must be told to stop.
        outcome: Its final state, when it ended here.
        new: It was made here.
    """

    def __init__(
        self, number: int, version: Version, progress: Progress, info: bytes, *, new: bool
    ) -> None:
        self.number = number
        self.version = version
        self.progress = progress
        self.info = info
        self.new = new
        self.live: dict[TaskKey, LiveTask] = {}
        self.removed: list[TaskKey] = []
        self.ended_tasks: list[EndedTask] = []
        self.dispatch: list[TaskKey] = []
        self.values: dict[int, bytes] = {}
        self.outcome: RunState | None = None
        self.error: str | None = None
        self.changed = new
        self.cancelled = False
        self._facts: RunInfo | None = None

    @property
    def facts(self) -> RunInfo:
        """Return the decoded info."""
        if self._facts is None:
            self._facts = decode_run_info(self.info)
        return self._facts

    def line_before(self, node: int) -> Iterator[int]:
        """Yield a node's only upstream node, and so on: where a chain may have come from."""
        tasks = self.version.spec.tasks
        while len(tasks[node].upstream) == 1:
            (node,) = tasks[node].upstream
            yield node


class GateWork:
    """A DAG's locked gate.

    Attributes:
        present: The DAG stands in its file; one that is gone takes no events.
        stored: Rows in the `pending` table per place, as far as not consumed here.
        fresh: Events of this transaction that nothing has consumed yet, per place.
        changed: The gate must be written.
    """

    def __init__(self, row: Any, version: Version) -> None:
        self.dag: int = row["dag"]
        self.version = version
        self.present: bool = row["present"]
        self.paused: bool = row["paused"]
        self.active: int = row["active"]
        self.queued: int = row["queued"]
        places = sum(map(len, version.places.values()))
        stored = list(row["pending"])[:places]
        self.stored = stored + [0] * (places - len(stored))
        self.fresh: list[list[LoggedEvent]] = [[] for _ in self.stored]
        self.freed = 0
        self.changed = False

    @property
    def pending(self) -> list[int]:
        """Return the number of pending events per place."""
        return [old + len(new) for old, new in zip(self.stored, self.fresh, strict=True)]


class LoggedEvent(Struct):
    """An event of this transaction, on its way into the log.

    Attributes:
        number: Its place in the log; 0 until it is taken, under the gates' locks.
    """

    event_id: UUID
    info: EventInfo
    run: int | None = None
    node: int | None = None
    map_index: int | None = None
    number: int = 0


class NewRun(Struct):
    """A run made in this transaction.

    Attributes:
        consumed: Events of this transaction that it consumes: (event, place).
        drained: Places whose stored pending events it consumes.
    """

    number: int
    run_id: UUID
    version: Version
    run_key: str
    kind: str
    state: RunState
    params: dict[str, Any]
    cause: str
    logical_time: datetime | None = None
    partition: str | None = None
    consumed: list[tuple[LoggedEvent, int]] = field(default_factory=list)
    drained: list[int] = field(default_factory=list)
    drained_count: int = 0
    info: bytes = b""


class Ledger:
    """All that one transaction changes."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.runs: dict[int, RunWork] = {}
        self.gates: dict[int, GateWork] = {}
        self.new_runs: list[NewRun] = []
        self.events: list[LoggedEvent] = []
        self.logged: list[LoggedEvent] = []
        self.timers: list[Timer] = []
        self.logs: list[tuple[int, int, int, int, int, int, str]] = []
        self.attempts: list[tuple[Any, ...]] = []
        self.dead_letters: list[tuple[str, bytes, str]] = []
        self.datasets: dict[str, int] = {}
        self.orders: list[TaskMessage] = []
