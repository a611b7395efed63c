"""Working copies of runs, tasks, DAGs, conditions and events, changed in memory by one batch."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
from msgspec import Raw, Struct, field

from pubsubflow.manager.spec_cache import Canary, DagVersion
from pubsubflow.model.json_values import json_text
from pubsubflow.model.runs.progress import Progress
from pubsubflow.model.runs.states import RunState, TaskState, advance_state
from pubsubflow.model.schedule.condition_state import ConditionState
from pubsubflow.model.schedule.conditions import Latest
from pubsubflow.model.wire.messages import (
    EventInfo,
    RunInfo,
    RunTrace,
    TaskError,
    TaskKey,
    decode_run_info,
    encode,
)

if TYPE_CHECKING:
    from pubsubflow.store.batches.manager_transaction import Row

_json = msgspec.json.Encoder().encode
INLINE_EVENTS = 500
_INLINE_EVENT_BYTES = 128 * 1024
InstanceKey = tuple[int, int]
"""A task instance within its run: node and map index."""


class LiveTask(Struct):
    """A task instance that has not ended.

    Attributes:
        wait_set: While it is deferred, the encoded `WaitSet`; see `waits.WAIT_FROM_START`.
        prior_attempts: Attempts that it had before it was cleared.
        direct: Its worker was given it directly: no message covers it.
        stored: Its row exists.
        uses_slot: It stands in the wait queue of its limits, or has a slot.
        changed: Its row must be written.
        stored_as: Its state and attempt in the store.
    """

    attempt: int = 1
    delivery: int = 1
    crashes: int = 0
    state: TaskState = TaskState.QUEUED
    chained: bool = False
    worker: str | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    wait_set: bytes | None = None
    prior_attempts: int = 0
    direct: bool = False
    stored: bool = False
    uses_slot: bool = False
    changed: bool = True
    stored_as: tuple[TaskState, int] | None = None

    def enter(self, state: TaskState) -> None:
        """Enter a state.

        Raises:
            IllegalTransition: The transition table does not allow it.
        """
        self.state = advance_state(self.state, state)
        self.changed = True

    def withhold(self) -> None:
        """Wait for a slot instead of being handed out: `queued` has not been stored yet."""
        stored = None if self.stored_as is None else self.stored_as[0]
        self.state = TaskState.READY if stored is None else advance_state(stored, TaskState.READY)


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
    outputs: bytes | None = None
    error: TaskError | None = None
    peak_memory: int | None = None


class RunWork:
    """A run that is being worked on, under its lock or newly made.

    Attributes:
        live: Live tasks known here.
        ended_tasks: Those that ended here.
        removed: Those whose rows are to be deleted.
        dispatch: Those to hand out after the commit.
        results: Node → encoded result of the tasks that ended here.
        instance_results: Likewise of instances of mapped groups, by node and map index.
        outcome: Its final state, when it ended here.
        uncounted: It has ended, and its DAG still counts it as active.
        new: It was made here.
        cancelled: Workers are to stop its tasks.
        source: The bundle and version that it is pinned to; see `model.source.bundles.source_key`.
        limits: As of its plan; with those of the tags of its DAG, where some are limited.
        chains: Per node, the nodes that its runner may run directly afterwards.
    """

    def __init__(
        self,
        run_id: int,
        version: DagVersion,
        progress: Progress,
        encoded_info: bytes,
        info: RunInfo | None = None,
        *,
        source: str,
        new: bool,
    ) -> None:
        self.id = run_id
        self.version = version
        self.limits = version.plan.limits
        self.chains = version.plan.chains
        self.source = source
        self.progress = progress
        self.encoded_info = encoded_info
        self.new = new
        self.live: dict[InstanceKey, LiveTask] = {}
        self.removed: list[InstanceKey] = []
        self.ended_tasks: list[EndedTask] = []
        self.dispatch: list[InstanceKey] = []
        self.results: dict[int, bytes] = {}
        self.instance_results: dict[InstanceKey, bytes] = {}
        self.outcome: RunState | None = None
        self.error: str | None = None
        self.uncounted = False
        self.changed = new
        self.cancelled = False
        if info is not None:
            self.info = info

    @cached_property
    def info(self) -> RunInfo:
        """What every task of the run may know about it; here its events may be encoded."""
        return decode_run_info(self.encoded_info)

    def chain_before(self, node: int) -> Iterator[int]:
        """Yield a node's only upstream node, and so on: where a chain may have come from."""
        tasks = self.version.spec.tasks
        # With two upstream nodes no runner could have gone straight on.
        while len(tasks[node].upstream) == 1:
            (node,) = tasks[node].upstream
            yield node


class LoggedEvent(Struct):
    """An event that is being decided about.

    Attributes:
        moment: Its time, never later than it was recorded.
        id: Its position in the log; 0 until it is allocated, under the locks of the DAG states.
        recorded_at: When it was recorded; None for one that is being recorded.
        ancestry: The DAGs whose runs led to it, from the origin on.
        accepted_at: When it came in, or when the task that emitted it ended; None for one of the
            past.
        encoded: The encoded `info`, as it travels with tasks; empty for one of the past.
        extra: The JSON of its extra, as tables, streams and messages take it.
        held: Checks hold it: it enters no condition, and its id stands for no position in the log.
        held_as: Of one that is released: the id that it was held under.
    """

    info: EventInfo
    moment: datetime
    run: int | None = None
    node: int | None = None
    map_index: int | None = None
    id: int = 0
    recorded_at: datetime | None = None
    ancestry: tuple[int, ...] = ()
    accepted_at: datetime | None = None
    encoded: bytes = b""
    extra: Raw = Raw(b"{}")
    held: bool = False
    held_as: int = 0


def new_event(
    info: EventInfo,
    task: TaskKey | None = None,
    *,
    now: datetime,
    ancestry: tuple[int, ...] = (),
    accepted_at: datetime | None = None,
) -> LoggedEvent:
    """Return an event that is to be recorded, encoded once for all who pass it on.

    Args:
        info: What tasks see of it.
        task: The task that emitted or published it.
        now: When it is recorded.
        ancestry: See `LoggedEvent`.
        accepted_at: See `LoggedEvent`.
    """
    run, node, map_index = task or (None, None, None)
    extra = _json(info.extra)
    if b"\\u0000" in extra:
        extra = json_text(info.extra).encode()
    return LoggedEvent(
        info,
        min(info.time, now),
        run,
        node,
        map_index,
        ancestry=ancestry,
        accepted_at=accepted_at,
        # MessagePack travels with tasks; the JSON goes to tables, streams and subscribers.
        encoded=encode(info),
        extra=Raw(extra),
    )


def longest_ancestry(events: Sequence[LoggedEvent], dag: int) -> tuple[int, ...]:
    """Return the ancestry of a run that consumes events: the one in which its DAG occurs most."""
    found = (event.ancestry for event in events)
    return max(found, key=lambda ancestry: (ancestry.count(dag), len(ancestry)), default=())


def inline_events(
    events: Sequence[LoggedEvent], *, always: bool = False
) -> tuple[EventInfo, ...] | None:
    """Return the events of a run as they travel with its tasks, or None when they are too many.

    Args:
        events: The events.
        always: They are few, and cannot be read from the log.
    """
    if len(events) > INLINE_EVENTS:
        return None
    encoded = [event.encoded or encode(event.info) for event in events]
    if not always and sum(map(len, encoded)) > _INLINE_EVENT_BYTES:
        return None
    # Each was encoded when it was accepted: an encoder takes Raw for what it stands for.
    return cast("tuple[EventInfo, ...]", tuple(map(Raw, encoded)))


class ConditionWork:
    """The state of a condition of a locked DAG, or of one partition of it.

    Attributes:
        key: The partition key; empty for the condition as a whole.
        stored: Per input the stored pending events that nothing has consumed here.
        new_events: Per input the events of this transaction that nothing has consumed yet.
        changed: Its row must be written.
    """

    def __init__(self, key: str, state: ConditionState) -> None:
        self.key = key
        self.state = state
        self.stored = [each.count for each in state.inputs]
        self.new_events: list[list[LoggedEvent]] = [[] for _ in state.inputs]
        self.changed = False


class LockedDag:
    """A DAG whose state is locked.

    Attributes:
        catch_up_from: The first event that it has not decided about yet, as it is paused or has
            just subscribed; it decides about all from there on when it catches up.
        conditions: States of its condition that this transaction works on, by partition key.
        unadmitted: Runs made here that are not admitted yet.
        source: What its new runs are pinned to.
        canary: The version that takes a share of them, if one does.
        missing: It is not in the DAGs folder, for a moment or for good: its events wait.
        backfills: How many backfills of it are open.
        apart: Those active runs that a limit of their backfill counts, not `max_active_runs`.
        ended_runs: Runs that ended here, while it has backfills.
        advancing: Its backfills may have room for runs.
        backfilled: Runs that its backfills have made here.
        changed: Its row must be written.
        run_limits: Limits of its tags that hold its runs, `runs:tag:<tag>`: it starts none itself.
        recheck: A run of it was queued or has ended: under such limits another one may start.
    """

    def __init__(
        self,
        row: "Mapping[str, Any] | Row",
        version: DagVersion,
        canary: DagVersion | None = None,
    ) -> None:
        self.id: int = row["dag"]
        self.version = version
        self.source: str = row["source"]
        self.canary: Canary | None = None
        if canary is not None:
            self.canary = Canary(canary, row["canary_share"], row["canary_source"])
        self.present: bool = row["present"]
        self.missing: bool = row["missing"]
        self.paused: bool = row["paused"]
        self.active: int = row["active"]
        self.queued: int = row["queued"]
        self.catch_up_from: int | None = row["catch_up_from"]
        self.conditions: dict[str, ConditionWork] = {}
        self.unadmitted = 0
        self.backfills: int = row["backfills"]
        self.apart: int = row["apart"]
        self.ended_runs: list[int] = []
        self.advancing = False
        self.backfilled = 0
        self.changed = False
        self.run_limits: frozenset[str] = frozenset()
        self.recheck = False

    @classmethod
    def idle(cls, version: DagVersion) -> "LockedDag":
        """Return a DAG that is not paused and where nothing is pending or active."""
        row = {"present": True, "missing": False, "paused": False, "active": 0, "queued": 0}
        row |= {"backfills": 0, "apart": 0}
        return cls({"dag": version.dag, "source": "", "catch_up_from": None, **row}, version)

    @property
    def held(self) -> bool:
        """Whether its schedule starts no runs now."""
        return self.paused or self.missing

    @property
    def busy(self) -> bool:
        """Whether a run is active, queued or not admitted yet; those of backfills apart."""
        return bool(self.active > self.apart or self.queued or self.unadmitted)

    @property
    def open_conditions(self) -> list[ConditionWork]:
        """Those of its conditions here in which events are pending or a run collects them."""
        return [each for _, each in sorted(self.conditions.items()) if each.state.open]

    @property
    def starts_latest(self) -> bool:
        """Whether a run that collected events meanwhile starts now, as none is active."""
        schedule = self.version.schedule
        if schedule is None or not isinstance(schedule.policy, Latest):
            return False
        return self.present and not self.held and not self.busy

    def admit(self, *, ahead: bool = False) -> RunState:
        """Count a run in: return whether it starts now or is queued, as the DAG is at its limit.

        Args:
            ahead: Whether it starts whatever the limit: active runs wait for it, or another limit
                counts it.
        """
        self.changed = True
        if ahead:
            self.active += 1
            return RunState.RUNNING
        # Not before those that are queued, even if there is room: they were first.
        room = self.active - self.apart < self.version.spec.max_active_runs
        if room and not self.queued and not self.run_limits:
            self.active += 1
            return RunState.RUNNING
        self.queued += 1
        self.recheck = True
        return RunState.QUEUED

    def start_queued(self, runs: int = 1) -> None:
        """Count queued runs as active."""
        self.queued -= runs
        self.active += runs
        self.changed = True

    def end_run(self) -> None:
        """Count an active run out."""
        self.active -= 1
        self.changed = self.recheck = True


class ConsumedEvent(Struct, frozen=True, array_like=True):
    """An event at hand that a run consumes from an input."""

    event: LoggedEvent
    input: int


class RunDraft(Struct):
    """A run that is about to start, or that collects events until it does.

    Attributes:
        condition_key: The partition key of the condition that fired.
        firings: How many times the partition had fired then.
        stored: Its row exists: it has collected events in earlier transactions.
        collecting: It still collects.
        events: Events at hand that it consumes.
        stored_inputs: Inputs whose stored pending events it consumes: partition key and input.
        stored_events: How many those are.
        state: Set when it is admitted.
        refused: Why it is not admitted.
        requested_by: The trace context of the request for it.
        trace: Its position in a distributed trace; set when it is admitted.
        ancestry: The DAGs whose runs led to the task that starts it.
        apart: A limit of its backfill counts it, not that of its DAG.
        canary: The version that it takes in place of the one in force; set when it is admitted.
    """

    id: int
    run_id: UUID
    dag: LockedDag
    run_key: str
    kind: str
    cause: str
    created_at: datetime
    condition_key: str = ""
    firings: int = 0
    params: dict[str, Any] | None = None
    logical_time: datetime | None = None
    partition: str | None = None
    stored: bool = False
    collecting: bool = False
    events: list[ConsumedEvent] = field(default_factory=list)
    stored_inputs: list[tuple[str, int]] = field(default_factory=list)
    stored_events: int = 0
    state: RunState | None = None
    refused: str | None = None
    encoded_info: bytes = b""
    info: RunInfo | None = None
    requested_by: str | None = None
    trace: RunTrace | None = None
    ancestry: tuple[int, ...] = ()
    apart: bool = False
    canary: Canary | None = None
