"""Unit of work of one transaction: the locked state, changed in memory and written once at the end.

Messages of one batch that concern the same run, task or DAG meet here, so that a chain of tasks or
a burst of events costs one row each, not one a step.
"""

from datetime import datetime
from uuid import UUID

from msgspec import Struct, field

from pubsubflow.manager.working_state import EndedTask, LockedDag, LoggedEvent, RunDraft, RunWork
from pubsubflow.model.changes import CheckChanged, DagChanged, RunChanged
from pubsubflow.model.runs.concurrency import Limit
from pubsubflow.model.wire.audit_entries import AuditNote
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import (
    CancelMessage,
    JournalEntry,
    LogMessage,
    ResultMessage,
    TaskError,
    TaskKey,
    TaskMessage,
)
from pubsubflow.model.wire.waits import Wait


class AttemptRow(Struct, frozen=True, array_like=True):
    """An attempt that another one follows."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    worker: str
    started_at: datetime
    ended_at: datetime
    error: TaskError | None
    peak_memory: int | None = None


class RunAnnotation(Struct, frozen=True, array_like=True):
    """A change of what people put on a run; see `commands.AnnotateRun`."""

    run: int
    tags: list[str] | None = None
    add_tags: list[str] = []
    remove_tags: list[str] = []
    note: str | None = None


class LoadedRuns(Struct):
    """The runs of a transaction.

    Attributes:
        by_id: Runs that are locked or were made here.
        attempts: Attempts that another one follows.
        output: Pieces of tasks' output.
        cleared_tasks: Task instances that are cleared.
        clear_numbers: Run → how often tasks of it have been cleared, for those cleared here.
        wait_queues: Wait queues that were registered here: their limits → id.
        tag_limits: Limits of tags: `tag:<tag>`; of DAGs with the tag every task needs a slot.
        woken_rate_limits: Rate limits whose waiting tasks may start by now.
        annotations: Changes of tags and notes.
        marked: Run and marked task, of runs that wait to be opened again.
        named: Instances of mapped tasks that ended here, with their names.
    """

    by_id: dict[int, RunWork] = field(default_factory=dict)
    attempts: list[AttemptRow] = field(default_factory=list)
    output: list[LogMessage] = field(default_factory=list)
    cleared_tasks: list[TaskKey] = field(default_factory=list)
    clear_numbers: dict[int, int] = field(default_factory=dict)
    wait_queues: dict[tuple[Limit, ...], int] = field(default_factory=dict)
    woken_rate_limits: set[str] = field(default_factory=set)
    tag_limits: frozenset[str] = frozenset()
    annotations: list[RunAnnotation] = field(default_factory=list)
    marked: list[tuple[int, EndedTask]] = field(default_factory=list)
    named: list[tuple[int, int, int, str]] = field(default_factory=list)


class CallbackRow(Struct, frozen=True, array_like=True):
    """A call of a function or notifier, after an outcome."""

    kind: str
    position: int
    name: str
    dag_id: str
    run: int
    node: int | None
    task_id: str | None
    map_index: int
    attempt: int
    outcome: str
    reason: str | None
    source: str


class StateRow(Struct, frozen=True, array_like=True):
    """A value of a DAG's state as a task has set it."""

    dag: int
    name: str
    value: str | None
    version: int
    run: int
    node: int
    map_index: int


class StateValues(Struct):
    """The values of DAGs' state that a transaction changes.

    Attributes:
        versions: DAG and name → present version, of locked rows.
        rows: DAG and name → row to write.
    """

    versions: dict[tuple[int, str], int] = field(default_factory=dict)
    rows: dict[tuple[int, str], StateRow] = field(default_factory=dict)


class EventOutcome(Struct, frozen=True, array_like=True):
    """What became of an event for an input, where no run consumed it."""

    event: LoggedEvent
    dag: int
    input: int
    condition_key: str
    outcome: str
    reason: str


class DroppedInput(Struct, frozen=True, array_like=True):
    """An input whose stored pending events are dropped."""

    dag: int
    condition_key: str
    input: int
    outcome: str
    reason: str


class ExpiredInput(Struct, frozen=True, array_like=True):
    """An input out of which stored pending events older than `before` are taken."""

    dag: int
    condition_key: str
    input: int
    before: datetime


class UndeadEvent(Struct, frozen=True, array_like=True):
    """An event that a redriven run consumes after all: it is not dead any more for the DAG."""

    event: int
    dag: int


class Schedules(Struct):
    """The DAGs of a transaction, and which runs they make.

    Attributes:
        dags: DAGs whose state is locked.
        drafts: Runs made here, and stored ones that collect further events here.
        outcomes: What became of events that no run consumed.
        expired: Applied before runs consume stored events.
        dropped: Inputs that are emptied.
        undead: Events that are not dead any more.
        advancing: DAGs whose backfills have more to do, in another transaction.
        run_limits: Limits of runs: `runs:tag:<tag>`; see `queued_runs`.
        start_queued: Queued runs may start, in another transaction.
    """

    dags: dict[int, LockedDag] = field(default_factory=dict)
    drafts: dict[int, RunDraft] = field(default_factory=dict)
    outcomes: list[EventOutcome] = field(default_factory=list)
    expired: list[ExpiredInput] = field(default_factory=list)
    dropped: list[DroppedInput] = field(default_factory=list)
    undead: list[UndeadEvent] = field(default_factory=list)
    advancing: list[int] = field(default_factory=list)
    run_limits: frozenset[str] = frozenset()
    start_queued: bool = False


class BegunWait(Struct, frozen=True, array_like=True):
    """One of the waits of a task that begins to wait."""

    run: int
    node: int
    map_index: int
    delivery: int
    slot: int
    wait: Wait


class EndedWait(Struct, frozen=True, array_like=True, order=True):
    """A task that does not wait any more; `cancelled` when a user cancelled it."""

    run: int
    node: int
    map_index: int
    cancelled: bool


class JournalRow(Struct, frozen=True, array_like=True):
    """An addition to a task's journal."""

    run: int
    node: int
    map_index: int
    entry: JournalEntry


class CheckedWait(Struct, frozen=True, array_like=True):
    """An event wait, and the last event that it was checked against."""

    trigger: int
    event: int


class WatchPosition(Struct, frozen=True, array_like=True):
    """How far the trigger of a watched dataset has come."""

    trigger: int
    sequence: int
    position: bytes


class PastCheck(Struct, frozen=True, array_like=True):
    """What a task was found to wait for in the previous run."""

    run: int
    node: int
    on_run: int
    on_task: str


class Waits(Struct):
    """What tasks begin to wait for and wait for no longer, in one transaction.

    Attributes:
        journal: Additions to tasks' journals.
        retried: Tasks that fail and are tried again: their journal drops what failed last.
        to_check: Tasks whose event waits are checked after the commit, in another transaction.
        due: Triggers of event waits for which there is an event to check.
        checked: How far event waits were checked here.
        lease_epochs: Trigger → epoch of its lease, for triggers that report a failure.
        watch_positions: Positions of watched datasets.
        stopped: Triggers that may be running and are not needed any more.
        held: Tasks that wait for the previous run from now on: run and node.
        past_checks: What such tasks were found to wait for.
        released: Such tasks that wait no longer.
        past_to_check: Runs whose such tasks are checked after the commit.
        past_changed: Runs for whose tasks such tasks may wait: these are checked, too.
    """

    begun: list[BegunWait] = field(default_factory=list)
    ended: list[EndedWait] = field(default_factory=list)
    journal: list[JournalRow] = field(default_factory=list)
    retried: list[TaskKey] = field(default_factory=list)
    to_check: list[TaskKey] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    checked: list[CheckedWait] = field(default_factory=list)
    lease_epochs: dict[int, int] = field(default_factory=dict)
    watch_positions: list[WatchPosition] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)
    past_checks: list[PastCheck] = field(default_factory=list)
    released: list[tuple[int, int]] = field(default_factory=list)
    past_to_check: list[int] = field(default_factory=list)
    past_changed: list[int] = field(default_factory=list)


class EventLog(Struct):
    """The events of a transaction.

    Attributes:
        undecided: New events that are not decided about yet.
        recorded: New events that were.
        datasets: URI → id of the datasets concerned.
    """

    undecided: list[LoggedEvent] = field(default_factory=list)
    recorded: list[LoggedEvent] = field(default_factory=list)
    datasets: dict[str, int] = field(default_factory=dict)


class BegunCheck(Struct, frozen=True, array_like=True):
    """A check of an event that has come; without a run while the check's DAG is paused."""

    event: LoggedEvent
    dag: int
    blocking: bool
    severity: str
    run: int | None
    run_id: UUID | None


class Checks(Struct):
    """The events of a transaction that checks concern.

    Attributes:
        held: New events that are held.
        begun: Checks of new events.
        released: Held events that get a position in the log.
        changes: Checks that have begun or come out.
    """

    held: list[LoggedEvent] = field(default_factory=list)
    begun: list[BegunCheck] = field(default_factory=list)
    released: list[LoggedEvent] = field(default_factory=list)
    changes: list[CheckChanged] = field(default_factory=list)


class DeadLetter(Struct, frozen=True, array_like=True):
    """Something that could not be done, kept for a person."""

    kind: str
    subject: str
    dag: int | None
    payload: bytes
    reason: str


class OutgoingMessage(Struct, frozen=True):
    """A message to publish after the commit."""

    subject: str
    payload: bytes = b""
    headers: dict[str, str] | None = None


class FinishedAttempt(Struct, frozen=True):
    """An attempt whose result counted."""

    run: RunWork
    result: ResultMessage


class Outbox(Struct):
    """What others learn of a transaction, with it or after its commit.

    Attributes:
        dead_letters: What could not be done.
        messages: Messages to publish.
        cancellations: Which tasks workers are to stop.
        dag_changes: DAGs that were paused or unpaused.
        queue_changes: Runs that were queued again or cancelled in the queue.
        run_changes: States that runs have entered, once all is decided.
        has_changes: The change log has got a row.
        has_alerts: Alerts have opened or ended.
        trace_roots: Events from outside with which a trace begins.
        attempts: Attempts that ended, for their spans.
        audits: Requests that are carried out: their entries get their numbers as they are written.
    """

    dead_letters: list[DeadLetter] = field(default_factory=list)
    messages: list[OutgoingMessage] = field(default_factory=list)
    cancellations: list[CancelMessage] = field(default_factory=list)
    dag_changes: list[DagChanged] = field(default_factory=list)
    queue_changes: list[RunChanged] = field(default_factory=list)
    run_changes: list[RunChanged] = field(default_factory=list)
    has_changes: bool = False
    has_alerts: bool = False
    trace_roots: list[LoggedEvent] = field(default_factory=list)
    attempts: list[FinishedAttempt] = field(default_factory=list)
    audits: list[AuditNote] = field(default_factory=list)


class UnitOfWork(Struct):
    """All that one transaction changes, in groups.

    Attributes:
        now: The moment of all its decisions.
        epoch: The epoch of the database; see `model.runs.fences`.
        timers: Timers that it sets.
        callbacks: Calls that follow from its outcomes.
        checks: Events that checks concern.
    """

    now: datetime
    epoch: int = 0
    runs: LoadedRuns = field(default_factory=LoadedRuns)
    schedule: Schedules = field(default_factory=Schedules)
    waits: Waits = field(default_factory=Waits)
    log: EventLog = field(default_factory=EventLog)
    outbox: Outbox = field(default_factory=Outbox)
    timers: list[Timer] = field(default_factory=list)
    state: StateValues = field(default_factory=StateValues)
    callbacks: list[CallbackRow] = field(default_factory=list)
    checks: Checks = field(default_factory=Checks)


class CommittedBatch(Struct):
    """What a committed transaction leaves to do.

    Attributes:
        orders: Tasks to hand out: queue and order.
        uow: What was written, for those who learn of it.
    """

    orders: list[tuple[str, TaskMessage]]
    uow: UnitOfWork
