"""What one transaction works on: the locked state, changed in memory, written once at the end.

Messages of one batch that concern the same run, task or gate meet here, so that a chain of tasks
or a burst of events costs one row each, not one a step.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct, field

from pubsubflow.manager.spec_cache import Version
from pubsubflow.model.changes import RunNews
from pubsubflow.model.runs.concurrency import Limit
from pubsubflow.model.runs.progress import Progress
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.runs.waits import Wait
from pubsubflow.model.schedule.condition_state import Cell
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import (
    CancelOrder,
    EventInfo,
    ResultMessage,
    RunInfo,
    RunTrace,
    Step,
    TaskError,
    decode_run_info,
)

decode_progress = msgspec.msgpack.Decoder(Progress).decode
TaskKey = tuple[int, int]
Place = tuple[int, int, int]


class LiveTask(Struct):
    """A task instance that is not finished.

    Attributes:
        waiting: While it is deferred, the encoded `waits.Waiting`; see `deferring.WAIT_ANEW`.
        base: Attempts that it had before it was cleared.
        stored: The row exists in the store.
        slotted: It stands in line for what limits it, or has a slot.
        changed: The row must be written.
        before: Its state and attempt as they are in the store.
    """

    attempt: int = 1
    delivery: int = 1
    crashes: int = 0
    state: TaskState = TaskState.QUEUED
    chained: bool = False
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    waiting: bytes | None = None
    base: int = 0
    stored: bool = False
    slotted: bool = False
    changed: bool = True
    before: tuple[TaskState, int] | None = None


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


class LoggedEvent(Struct):
    """An event that is being decided about.

    Attributes:
        number: Its place in the log; 0 until it is taken, under the gates' locks.
        recorded_at: When it was recorded; None for one that is being recorded.
        trail: The DAGs whose runs led to it, from the origin on.
        accepted_at: When it came in, or when the task that emitted it ended; None for one of the
            past.
    """

    event_id: UUID
    info: EventInfo
    run: int | None = None
    node: int | None = None
    map_index: int | None = None
    number: int = 0
    recorded_at: datetime | None = None
    trail: tuple[int, ...] = ()
    accepted_at: datetime | None = None

    def moment(self, now: datetime) -> datetime:
        """Return its time, never later than it was recorded; that is now for a new one."""
        return min(self.info.time, self.recorded_at or now)


class CellWork:
    """A cell of a locked gate.

    Attributes:
        present: The DAG stands in its file; one that is gone takes no events.
        stored: Rows in the `pending` table per place, as far as not consumed here.
        fresh: Events of this transaction that nothing has consumed yet, per place.
        changed: The cell must be written.
    """

    def __init__(self, key: str, cell: Cell) -> None:
        self.key = key
        self.cell = cell
        self.stored = [place.count for place in cell.places]
        self.fresh: list[list[LoggedEvent]] = [[] for _ in cell.places]
        self.changed = False

    def pending(self, place: int) -> int:
        """Return the number of events that wait in a place."""
        return self.stored[place] + len(self.fresh[place])

    @property
    def open(self) -> bool:
        """Whether something is pending or a run is forming."""
        return self.cell.open


class GateWork:
    """A DAG's locked gate.

    Attributes:
        cells: Those that this transaction works on, by partition key; the whole is under "".
        coming: Runs made here that are not admitted yet.
        changed: The gate must be written.
    """

    def __init__(self, row: Mapping[str, Any], version: Version) -> None:
        self.dag: int = row["dag"]
        self.version = version
        self.present: bool = row["present"]
        self.paused: bool = row["paused"]
        self.active: int = row["active"]
        self.queued: int = row["queued"]
        self.since: int | None = row["since"]
        self.cells: dict[str, CellWork] = {}
        self.coming = 0
        self.changed = False

    def empty(self) -> "GateWork":
        """Return a gate of the same DAG that is open and where nothing is pending or active."""
        row = {
            "dag": self.dag,
            "present": True,
            "paused": False,
            "active": 0,
            "queued": 0,
            "since": None,
        }
        return GateWork(row, self.version)

    @property
    def busy(self) -> bool:
        """Whether a run is active, in line or on its way there."""
        return bool(self.active or self.queued or self.coming)


class Start(Struct):
    """A run that is about to start, or that collects events until it does.

    Attributes:
        cell: The partition key of the cell that fired.
        round: How many times the partition had fired then.
        stored: Its row exists: it has collected events in earlier transactions.
        forming: It still collects.
        fresh: Events at hand that it consumes, with their places.
        drained: Places whose stored pending events it consumes: (cell, place).
        drained_count: How many those are.
        state: Set when it is admitted.
        asked_by: The trace context of the request that asks for it.
        trace: Where it stands in a distributed trace; set when it is admitted.
    """

    number: int
    run_id: UUID
    gate: GateWork
    run_key: str
    kind: str
    cause: str
    created_at: datetime
    cell: str = ""
    round: int = 0
    params: dict[str, Any] | None = None
    logical_time: datetime | None = None
    partition: str | None = None
    stored: bool = False
    forming: bool = False
    fresh: list[tuple[LoggedEvent, int]] = field(default_factory=list)
    drained: list[tuple[str, int]] = field(default_factory=list)
    drained_count: int = 0
    state: RunState | None = None
    refused: str | None = None
    info: bytes = b""
    asked_by: str | None = None
    trace: RunTrace | None = None


class Fate(Struct, frozen=True, array_like=True):
    """What became of an event for a subscription, where no run consumed it."""

    event: LoggedEvent
    dag: int
    place: int
    cell: str
    fate: str
    reason: str


class DeadLetter(Struct, frozen=True):
    """Something that could not be done, kept for a person."""

    kind: str
    subject: str
    dag: int | None
    payload: bytes
    reason: str


class Ledger:
    """All that one transaction changes.

    Attributes:
        events: Events that wait to be decided about.
        logged: New events that were.
        starts: Runs made here, and stored ones that collect further events here.
        drops: Places that are emptied: (dag, cell, place, fate, reason).
        revived: Events that are dead no more for a DAG: (event, dag).
        republish: Messages to publish after the commit: (subject, payload).
        unqueued: Runs that were cancelled in line: (run id, DAG id).
        run_news: States that runs have entered, once all is decided.
        told: The log of news has got a row.
        paused: DAGs that were paused or unpaused: (DAG id, whether it is paused now).
        waits: What tasks begin to wait for: (run, node, map index, delivery, slot, wait).
        unwaited: Tasks that wait no more: (run, node, map index, whether a user cancelled it).
        steps: Additions to the records of tasks: (run, node, map index, step).
        retried: Tasks that fail and are tried again: they forget what failed last.
        looks: Tasks that are to look for events in a transaction of its own after this one.
        look_due: Waits that have an event to look at.
        traced: Events from outside with which a trace begins.
        finished: How attempts ended, as far as that counts: (run, message).
        looked: Waits, and up to where they have looked: (trigger, event number).
        epochs: Trigger → the epoch of its lease, for those that say that they failed.
        watched: Positions of watched datasets: (trigger, sequence, encoded position).
        stopped: Triggers that somebody may run and nobody waits for any more.
        cleared: Task instances that are cleared.
        lives: Run → how often tasks of it were cleared by now, for those cleared here.
        called_off: Which cleared tasks workers are to stop.
        requeued: Runs that go on once it is their turn: (run id, DAG id).
        lines: Lines that were looked up: limits → number.
        expiries: Places out of which older events are taken first: (dag, cell, place, before).
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.runs: dict[int, RunWork] = {}
        self.gates: dict[int, GateWork] = {}
        self.starts: dict[int, Start] = {}
        self.events: list[LoggedEvent] = []
        self.logged: list[LoggedEvent] = []
        self.fates: list[Fate] = []
        self.drops: list[tuple[int, str, int, str, str]] = []
        self.expiries: list[tuple[int, str, int, datetime]] = []
        self.timers: list[Timer] = []
        self.logs: list[tuple[int, int, int, int, int, int, str]] = []
        self.attempts: list[tuple[Any, ...]] = []
        self.dead_letters: list[DeadLetter] = []
        self.revived: list[tuple[int, int]] = []
        self.republish: list[tuple[str, bytes]] = []
        self.unqueued: list[tuple[str, str]] = []
        self.paused: list[tuple[str, bool]] = []
        self.run_news: list[RunNews] = []
        self.told = False
        self.waits: list[tuple[int, int, int, int, int, Wait]] = []
        self.unwaited: list[tuple[int, int, int, bool]] = []
        self.steps: list[tuple[int, int, int, Step]] = []
        self.retried: list[Place] = []
        self.looks: list[Place] = []
        self.look_due: list[int] = []
        self.looked: list[tuple[int, int]] = []
        self.epochs: dict[int, int] = {}
        self.watched: list[tuple[int, int, bytes]] = []
        self.stopped: list[int] = []
        self.datasets: dict[str, int] = {}
        self.cleared: list[Place] = []
        self.lives: dict[int, int] = {}
        self.called_off: list[CancelOrder] = []
        self.requeued: list[tuple[str, str]] = []
        self.lines: dict[tuple[Limit, ...], int] = {}
        self.traced: list[LoggedEvent] = []
        self.finished: list[tuple[RunWork, ResultMessage]] = []
