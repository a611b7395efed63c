"""What the inside of a daemon asks of the manager; the answers come after the commit."""

from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.revisions import Revisions
from pubsubflow.model.wire.messages import NewEvent


class Timer(Struct, frozen=True, array_like=True):
    """A timer as it is stored.

    Attributes:
        kind: `retry` of a task, `run_timeout`; `tick` of a DAG's timetable in slot `node`; `late`:
            the deadline of slot `node` with number `attempt` passes in `cell`; `flush`: the run
            that collects events in `cell` has waited; of a deferred task, whose delivery is
            `attempt`: `wait`: the time for which it waits in slot `cell`; `wait_timeout`;
            `task_timeout`.
        number: The row's id; 0 for one that is not stored yet.
    """

    due_at: datetime
    kind: str
    dag: int | None = None
    run: int | None = None
    node: int | None = None
    map_index: int | None = None
    attempt: int | None = None
    cell: str | None = None
    number: int = 0


class PostEvents(Struct, frozen=True):
    """Record events from outside.

    Attributes:
        keys: Per event the key under which its sender may send it again, or None.
        source: `api`, `cli`, `bus`, `task`.
        origin: The running task that publishes them: run number, node, map index.
    """

    events: tuple[NewEvent, ...]
    keys: tuple[str | None, ...]
    source: str = "api"
    origin: tuple[int, int, int] | None = None


class Recorded(Struct, frozen=True):
    """An event is durable.

    Attributes:
        duplicate: It was already; `event_id` is the first one's.
    """

    event_id: UUID
    duplicate: bool


class StartRun(Struct, frozen=True):
    """Start a run because somebody asks for it.

    Attributes:
        run_key: Asking again under the same key gives the same run.
    """

    dag_id: str
    params: dict[str, Any] | None = None
    logical_time: datetime | None = None
    run_key: str | None = None
    cause: str = "asked for"
    partition: str | None = None


class SetPaused(Struct, frozen=True):
    """Pause or unpause a DAG.

    Attributes:
        revisions: Only if its revision is one of these.
    """

    dag_id: str
    paused: bool
    revisions: Revisions = None


class CancelRun(Struct, frozen=True):
    """End a run and stop its tasks."""

    run_id: UUID
    reason: str = "cancelled"


class TimersDue(Struct, frozen=True):
    """The clock says that timers are due."""

    timers: tuple[Timer, ...]


class Replay(Struct, frozen=True):
    """Decide about a DAG's events of the past once more, from nothing pending.

    What is pending now is neither used nor changed. A run that exists is not made again.

    Attributes:
        dataset: Only events of this URI; None for all the DAG subscribes to.
        since, until: Bounds of the time at which events were recorded; `until` is exclusive.
        dry_run: Only tell what would start.
        again: Also make runs that exist.
    """

    dag_id: str
    since: datetime
    until: datetime | None = None
    dataset: str | None = None
    dry_run: bool = False
    again: bool = False


class Backfill(Struct, frozen=True):
    """Make the runs of past ticks, or of partitions.

    Attributes:
        since, until: Bounds of the ticks; `until` is exclusive.
        partitions: Partition keys, in place of ticks.
        dry_run, again: As for Replay.
    """

    dag_id: str
    since: datetime | None = None
    until: datetime | None = None
    partitions: tuple[str, ...] = ()
    params: dict[str, Any] | None = None
    dry_run: bool = False
    again: bool = False


class Planned(Struct, frozen=True):
    """A run that a replay or a backfill starts, would start, or found to exist.

    Attributes:
        run_id: The run that was made or that exists; None in a dry run.
        events: Ids of the events that a replay consumes; a backfill takes what waits for its key.
    """

    run_key: str
    run_id: str | None
    exists: bool
    logical_time: datetime | None = None
    partition: str | None = None
    events: tuple[str, ...] = ()


class Resend(Struct, frozen=True):
    """Try a dead letter again, as it is or edited.

    Attributes:
        number: The dead letter.
        payload: JSON in place of its own; None to leave it.
        revisions: Only if its revision is one of these.
        events: What a letter of kind `hook` has become; recorded when it is marked as sent.
    """

    number: int
    payload: bytes | None = None
    revisions: Revisions = None
    events: PostEvents | None = None


class LookForEvents(Struct, frozen=True):
    """Let deferred tasks look for the events that they wait for.

    Attributes:
        places: Run number, node and map index of each.
    """

    places: tuple[tuple[int, int, int], ...]


class KeepLetter(Struct, frozen=True):
    """Keep what an outsider sent and what could not be done about it as a dead letter.

    Resending such a letter records the events that whoever asks has made of it.

    Attributes:
        kind: `hook`: a request to a webhook.
        subject: Where it was going.
        payload: JSON that a person may edit.
        reason: Why it did not get there.
    """

    kind: str
    subject: str
    payload: bytes
    reason: str


class ClearTasks(Struct, frozen=True):
    """Clear tasks of a run and run them again, with the run's own events and params.

    Attributes:
        tasks, downstream, upstream, only_failed: As for `clearing.Selection`.
        newest: With the DAG's newest version in place of the one that the run had.
        ended: Only if the run has ended.
        dry_run: Only tell what would be cleared.
    """

    run_id: UUID
    tasks: tuple[str, ...] = ()
    downstream: bool = False
    upstream: bool = False
    only_failed: bool = False
    newest: bool = False
    ended: bool = False
    dry_run: bool = False


class ClearedTask(Struct, frozen=True):
    """A task instance that is cleared, and the state that it was in."""

    task_id: str
    map_index: int | None
    state: str


class Cleared(Struct, frozen=True):
    """What was cleared of a run, or would be; `state` is that of the run then."""

    tasks: tuple[ClearedTask, ...]
    state: str


class SetPool(Struct, frozen=True):
    """Let at most `slots` tasks of a pool run at once.

    Attributes:
        revisions: Those of the pool that will do; None for any.
    """

    name: str
    slots: int
    revisions: Revisions = None


class RemovePool(Struct, frozen=True):
    """Take a pool's limit away.

    Attributes:
        revisions: As for SetPool.
    """

    name: str
    revisions: Revisions = None


Call = (
    PostEvents
    | StartRun
    | SetPaused
    | CancelRun
    | TimersDue
    | Replay
    | Backfill
    | Resend
    | LookForEvents
    | KeepLetter
    | ClearTasks
    | SetPool
    | RemovePool
)


class Calls(Protocol):
    """Whoever carries out calls: the manager of this daemon."""

    async def call(self, call: Call) -> Any:
        """Carry out a call and return its answer once it is durable.

        Returns:
            `list[Recorded]` for PostEvents, also those of a Resend, one per event; the run id
            (text) for StartRun and for a Resend that made a run; `list[Planned]` for Replay and
            Backfill; `Cleared` for ClearTasks; None for the others.

        Raises:
            NotFound: There is no such DAG or run.
            InvalidInput: The params do not fit, or the run has ended.
            StaleRevision: What is to be changed has another revision.
            StoreUnavailable: Postgres is away and the call was not carried out.
        """
