"""Commands to the manager of a daemon; each is answered after the commit."""

from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.revisions import Revisions
from pubsubflow.model.wire.approvals import Vote
from pubsubflow.model.wire.audit_entries import AuditNote
from pubsubflow.model.wire.messages import Fence, NewEvent, TaskKey


class Timer(Struct, frozen=True, array_like=True):
    """A timer as it is stored.

    Attributes:
        kind: `retry` of a task, `run_timeout`; `tick` of a DAG's timetable in slot `node`; `late`:
            the deadline of slot `node` with number `attempt` passes in the condition state `key`;
            `flush`: the run that collects events in the condition state `key` starts; of a deferred
            task, whose delivery is `attempt`: `wait`: the time of the wait in slot `key` has come;
            `wait_timeout`; `task_timeout`; `rate_limit`: tasks that wait for the rate limit `key`
            may start.
        number: The row's id; 0 for one that is not stored yet.
    """

    due_at: datetime
    kind: str
    dag: int | None = None
    run: int | None = None
    node: int | None = None
    map_index: int | None = None
    attempt: int | None = None
    key: str | None = None
    number: int = 0


class RequestKey(Struct, frozen=True):
    """The idempotency key of a whole request, which stands for one body alone.

    Attributes:
        digest: Of its body.
    """

    key: str
    digest: bytes


class RecordEvents(Struct, frozen=True):
    """Record events from outside.

    Attributes:
        keys: Per event the idempotency key of its sender, or None.
        source: `api`, `cli`, `bus`, `task`.
        origin: The running task that publishes them.
        delivery: The delivery of that task.
        request: The key of the request that brings them, if it has one: another request under the
            same key is refused.
    """

    events: tuple[NewEvent, ...]
    keys: tuple[str | None, ...]
    source: str = "api"
    origin: TaskKey | None = None
    request: RequestKey | None = None
    delivery: int | None = None


class RecordedEvent(Struct, frozen=True):
    """An event is durable.

    Attributes:
        event_id: Its public UUID, as text.
        duplicate: It was recorded before; `event_id` is the first one's.
    """

    event_id: str
    duplicate: bool


class StartingTask(Struct, frozen=True):
    """The task that starts a run.

    Attributes:
        ancestry: Numbers of the DAGs whose runs led to the run that it starts, its own included.
    """

    run_id: str
    dag_id: str
    task_id: str
    ancestry: tuple[int, ...]

    @property
    def cause(self) -> str:
        """The cause of the run; `started_by` reads it back."""
        return f"{STARTED_BY_TASK}{self.task_id} of {self.dag_id} {self.run_id}"


STARTED_BY_TASK = "started by task "


class StartRun(Struct, frozen=True):
    """Start a run on request.

    Attributes:
        started_by: The task that starts it; its cause then.
        run_key: A further request with the same key returns the same run.
        answered: The caller waits for a result, so the DAG must have one.
        preset: Name of a set of params that the DAG declares; `params` are laid over it.
        tags: Tags of the run.
        request: The key of the request, if it has one: another body under it is refused.
        audit: The entry of the audit log that is written with it.
    """

    dag_id: str
    params: dict[str, Any] | None = None
    logical_time: datetime | None = None
    run_key: str | None = None
    cause: str = "requested"
    partition: str | None = None
    answered: bool = False
    preset: str | None = None
    tags: tuple[str, ...] = ()
    started_by: StartingTask | None = None
    request: RequestKey | None = None
    audit: AuditNote | None = None


class SetPaused(Struct, frozen=True):
    """Pause or unpause a DAG.

    Attributes:
        revisions: The revisions of the DAG that may be changed; None for any.
    """

    dag_id: str
    paused: bool
    revisions: Revisions = None


class CancelRun(Struct, frozen=True):
    """End a run and stop its tasks.

    Attributes:
        cleared: Only if its tasks were cleared this often; None for any number.
    """

    run_id: UUID
    reason: str = "cancelled"
    cleared: int | None = None


class AnnotateRun(Struct, frozen=True):
    """Change the tags and the note of a run.

    Attributes:
        tags: All of its tags; None to keep those that it has.
        add_tags, remove_tags: Tags to add, and to remove.
        note: Its note; empty for none, None to keep the one that it has.
    """

    run_id: UUID
    tags: tuple[str, ...] | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    note: str | None = None


class FireTimers(Struct, frozen=True):
    """Process timers that are due."""

    timers: tuple[Timer, ...]


class Replay(Struct, frozen=True):
    """Evaluate a DAG's schedule over past events once more.

    The present pending events are neither used nor changed. Runs that exist are not made again.

    Attributes:
        dataset: Only runs that consume an event of this URI; None for all.
        since, until: Bounds of the time at which the last event of a run was recorded; `until` is
            exclusive.
        dry_run: Only return the runs that would start.
        again: Make runs that exist once more.
    """

    dag_id: str
    since: datetime
    until: datetime | None = None
    dataset: str | None = None
    dry_run: bool = False
    again: bool = False


class Backfill(Struct, frozen=True):
    """Plan the runs of past ticks, or of partitions; they start as there is room for them.

    Attributes:
        since, until: Bounds of the ticks; `until` is exclusive.
        partitions: Partition keys, in place of ticks.
        dry_run, again: As for Replay.
        only_failed: Also make runs whose last one failed or was cancelled.
        newest_first: Begin with the latest tick, or the last partition.
        max_active_runs: How many of its runs may be active, apart from the other runs of the DAG;
            None if they count against the DAG's limit.
        description: A line for people.
        created_by: Who requests it.
    """

    dag_id: str
    since: datetime | None = None
    until: datetime | None = None
    partitions: tuple[str, ...] = ()
    params: dict[str, Any] | None = None
    dry_run: bool = False
    again: bool = False
    only_failed: bool = False
    newest_first: bool = False
    max_active_runs: int | None = None
    description: str | None = None
    created_by: str = ""


class ChangeBackfill(Struct, frozen=True):
    """Pause or resume a backfill, or cancel it: then it makes no more runs.

    Attributes:
        state: `paused`, `running` or `cancelled`.
        reason: Why, for people.
    """

    backfill_id: UUID
    state: str
    reason: str | None = None


class AdvanceBackfills(Struct, frozen=True):
    """Make the next runs of backfills of DAGs.

    Attributes:
        dags: Numbers of the DAGs.
    """

    dags: tuple[int, ...]


class StartQueuedRuns(Struct, frozen=True):
    """Start queued runs, of whatever DAG, as the limits of runs allow."""


class PlannedRun(Struct, frozen=True):
    """A run that a replay or a backfill starts, would start, or found to exist.

    Attributes:
        run_id: The new or existing run; None in a dry run, and for one that a backfill makes later.
        events: Ids of the events that it consumes: for a backfill, those pending in its partition.
    """

    run_key: str
    run_id: str | None
    exists: bool
    logical_time: datetime | None = None
    partition: str | None = None
    events: tuple[str, ...] = ()


class RunPlan(Struct, frozen=True):
    """The runs of a replay or a backfill.

    Attributes:
        runs: Those that it starts, would start, or found to exist.
        reason: Why it starts none, if so; and which events it could not find.
        backfill_id: The backfill that makes the runs.
        planned: How many runs there are, if `runs` does not hold all of them.
    """

    runs: list[PlannedRun]
    reason: str | None = None
    backfill_id: str | None = None
    planned: int | None = None


class RedriveDeadLetter(Struct, frozen=True):
    """Process a dead letter again, unchanged or edited.

    Attributes:
        dead_letter: Its number.
        payload: JSON in place of its own; None to keep it.
        revisions: The revisions of the dead letter that may be redriven; None for any.
        events: The events made of a dead letter of kind `hook`; recorded when it is redriven.
        dry_run: Only check it; the answer is a `RedrivePlan`.
    """

    dead_letter: int
    payload: bytes | None = None
    revisions: Revisions = None
    events: RecordEvents | None = None
    dry_run: bool = False


class RedrivePlan(Struct, frozen=True):
    """What a redrive would do.

    Attributes:
        text: One line for people.
        params: Those of the run that it would make.
        run_id: The run that exists already in place of one.
    """

    text: str
    params: dict[str, Any] | None = None
    run_id: str | None = None


class DiscardDeadLetters(Struct, frozen=True):
    """Discard dead letters: they are kept until they are old, and cannot be redriven.

    Attributes:
        dead_letters: Their numbers.
    """

    dead_letters: tuple[int, ...]


class CheckEventWaits(Struct, frozen=True):
    """Check whether the events that deferred tasks wait for are in the log."""

    tasks: tuple[TaskKey, ...]


class CheckPastWaits(Struct, frozen=True):
    """Check whether tasks that wait for the previous run may start.

    Attributes:
        runs: Runs whose tasks wait.
        changed: Runs that they may wait for.
    """

    runs: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()


class ReturnDirectOrders(Struct, frozen=True):
    """Hand out anew what a worker was given directly and gives back, or did not get.

    Attributes:
        worker: The worker.
        fences: Run, node, map index, attempt and delivery of each.
    """

    worker: str
    fences: tuple[Fence, ...]


class RequeueOrphans(Struct, frozen=True):
    """Hand out anew tasks that run at workers which do not have them, nor their results.

    Attributes:
        orphans: Of each its worker, and run, node, map index, attempt and delivery.
    """

    orphans: tuple[tuple[str, Fence], ...]


class RequeuedOrphan(Struct, frozen=True):
    """A task that was handed out anew: the answer to `RequeueOrphans` has those that were."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    worker: str


class StoreDeadLetter(Struct, frozen=True):
    """Store a request that could not be processed as a dead letter.

    A redrive of it carries the events that were made of it in `RedriveDeadLetter.events`.

    Attributes:
        kind: `hook`: a request to a webhook.
        subject: Its destination.
        payload: JSON that people may edit.
        reason: The failure.
    """

    kind: str
    subject: str
    payload: bytes
    reason: str


class ClearTasks(Struct, frozen=True):
    """Clear tasks of a run and run them again, with the run's own events and params.

    Attributes:
        tasks, downstream, upstream, only_failed: As for `clearing.TaskSelection`.
        newest: Continue with the DAG's newest version in place of the run's own.
        ended: Only if the run has ended.
        dry_run: Only return the tasks that would be cleared.
        cleared: Only if its tasks were cleared this often before; None for any number.
    """

    run_id: UUID
    tasks: tuple[str, ...] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False
    newest: bool = False
    ended: bool = False
    dry_run: bool = False
    cleared: int | None = None


class ClearedTask(Struct, frozen=True):
    """A cleared task instance, with the state that it had."""

    task_id: str
    map_index: int | None
    state: str


class ClearResult(Struct, frozen=True):
    """The cleared tasks of a run, or those of a dry run; `state` is the run's afterwards."""

    tasks: tuple[ClearedTask, ...]
    state: str


class MarkTasks(Struct, frozen=True):
    """Give tasks of a run a final state, or the run an outcome, and decide anew what follows.

    Attributes:
        state: `success`, `failed` or `skipped`.
        tasks, downstream, upstream: As for `clearing.TaskSelection`; without tasks the run is
            marked.
        result: The encoded result of the tasks, for `success`; empty for none.
        emit: Whether tasks marked as successful emit an event for each of their outlets.
        reason: One line for people; the error of what is marked as failed.
        dry_run: Only return what would be marked.
        cleared: Only if its tasks were cleared this often before; None for any number.
    """

    run_id: UUID
    state: str
    tasks: tuple[str, ...] = ()
    downstream: bool = False
    upstream: bool = False
    result: bytes = b""
    emit: bool = False
    reason: str = "marked"
    dry_run: bool = False
    cleared: int | None = None


class MarkResult(Struct, frozen=True):
    """The marked tasks of a run, each with its state before; `none` for one not started.

    Attributes:
        anew: Tasks that had not started because of what came before: they are decided anew.
        state: The run's state afterwards.
    """

    tasks: tuple[ClearedTask, ...]
    anew: tuple[ClearedTask, ...]
    state: str


class SetPool(Struct, frozen=True):
    """Limit the tasks of a pool that run at once to `slots`.

    Attributes:
        name: The pool; or `tag:<tag>` for the tasks of all DAGs with a tag, and
            `runs:tag:<tag>` for their active runs.
        revisions: The revisions of the pool that may be changed; None for any.
    """

    name: str
    slots: int
    revisions: Revisions = None


class DeletePool(Struct, frozen=True):
    """Remove a pool's limit.

    Attributes:
        revisions: As for SetPool.
    """

    name: str
    revisions: Revisions = None


class AnswerApproval(Struct, frozen=True):
    """Record a person's answer to an approval.

    Attributes:
        approval: Its id.
    """

    approval: str
    vote: Vote


class SettleHeldEvents(Struct, frozen=True):
    """Release or discard events that checks hold, or check them again.

    Attributes:
        action: `release`, `discard` or `run-again`.
        events: The events; those that are not held are left out.
        by: Who says so.
        note: Why, in one line.
        check: The id of the one check that checks them again; all that hold them if None.
    """

    action: Literal["release", "discard", "run-again"]
    events: tuple[UUID, ...]
    by: str
    note: str = ""
    check: str | None = None


class SweepChecks(Struct, frozen=True):
    """Release what checks that are gone hold, and begin or conclude what hangs.

    Attributes:
        dags: The numbers of the DAGs that the checks are.
    """

    dags: tuple[int, ...]


Command = (
    RecordEvents
    | StartRun
    | SetPaused
    | CancelRun
    | AnnotateRun
    | FireTimers
    | Replay
    | Backfill
    | ChangeBackfill
    | AdvanceBackfills
    | StartQueuedRuns
    | RedriveDeadLetter
    | DiscardDeadLetters
    | CheckEventWaits
    | CheckPastWaits
    | ReturnDirectOrders
    | RequeueOrphans
    | StoreDeadLetter
    | ClearTasks
    | MarkTasks
    | SetPool
    | DeletePool
    | AnswerApproval
    | SettleHeldEvents
    | SweepChecks
)


class CommandHandler(Protocol):
    """Executes commands: the manager of this daemon."""

    async def execute(self, command: Command) -> Any:
        """Execute a command and return its answer once its effect is durable.

        Returns:
            `list[RecordedEvent]` for RecordEvents and for the events of a RedriveDeadLetter, one
            per event, also for an AnswerApproval that decides;
            the run id (a string) for StartRun and for a RedriveDeadLetter that made a
            run; the numbers of those that were open for DiscardDeadLetters; `RunPlan` for
            Replay and Backfill; `ClearResult` for ClearTasks; `MarkResult` for
            MarkTasks; the ids of the events concerned for SettleHeldEvents; a list of
            `RequeuedOrphan` for RequeueOrphans; None for the others.

        Raises:
            NotFound: The DAG, run, dead letter or pool is unknown.
            InvalidInput: The params do not fit, the run has ended, or the answer is not accepted.
            StaleRevision: The thing to be changed has another revision.
            StoreUnavailable: Postgres is away and the command was not executed.
        """
