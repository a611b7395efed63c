"""JSON types of overviews: what happens now, the grid of a DAG's runs, its next ticks."""

from datetime import datetime

from msgspec import Struct, field

from pubsubflow.model.api.resources import RunBrief


class RunsBucket(Struct, frozen=True, kw_only=True):
    """The runs that were made in a stretch of time.

    Attributes:
        at: When it begins.
        states: State now → number of these runs.
    """

    at: datetime
    states: dict[str, int]


class FailedTaskView(Struct, frozen=True, kw_only=True):
    """The first task of a run that failed, and why."""

    id: str
    task_id: str
    map_index: int | None = None
    error_type: str | None = None
    error: str | None = None


class FailureView(Struct, frozen=True, kw_only=True):
    """A run that failed.

    Attributes:
        error: Of the run itself, such as that it lasted too long.
        task: The first of its tasks that failed, if one did.
        succeeded_since: Whether a later run of the same DAG, and partition, succeeded.
        others: How many more runs of the DAG failed before it, of those that were looked at.
    """

    run_id: str
    dag_id: str
    kind: str
    cause: str
    partition: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    task: FailedTaskView | None = None
    succeeded_since: bool = False
    others: int = 0


class LongRunView(Struct, frozen=True, kw_only=True):
    """A run that has not ended."""

    run_id: str
    dag_id: str
    state: str
    kind: str
    cause: str
    partition: str | None = None
    created_at: datetime
    started_at: datetime | None = None


class StuckTaskView(Struct, frozen=True, kw_only=True):
    """A task that is ready and does not start.

    Attributes:
        since: When it was ready.
        waits_for: What has no free slot for it, or why no worker takes it.
    """

    id: str
    run_id: str
    dag_id: str
    task_id: str
    map_index: int | None = None
    state: str
    since: datetime
    waits_for: str | None = None


class WorkCount(Struct, frozen=True, kw_only=True):
    """How much there is of some unfinished work.

    Attributes:
        subject: `tasks`, `waits`, `timers`, `alerts`, `held_events`, `dead_letters`, `runs`,
            `paused`, `dags`, `import_errors`, `workers`, `slots`, `busy_slots`, `triggerers`,
            `capacity`, `running_triggers`, `unleased_triggers`.
        label: State or kind; empty for subjects that have neither.
        number: Counted up to 100,000.
    """

    subject: str
    label: str = ""
    number: int


class Summary(Struct, frozen=True, kw_only=True):
    """What happens now, and what became of the runs of late.

    Attributes:
        work: Counts of all that is not finished; they cost the same however long the history is.
        since, until: The runs in `history` were made then.
        counted_since: Runs before it are not counted, as there are too many; None if all are.
        bucket_seconds: Length of a bucket of the history.
        history: Buckets that have runs, the oldest first; runs of checks are not counted.
        failures: The newest run that failed of each DAG, the newest first; of the last 200 that
            failed.
        longest: Runs under way, the one that began first at the front.
        stuck: Tasks that have been ready longest, and for `stuck_seconds` at least.
    """

    work: list[WorkCount]
    since: datetime
    until: datetime
    counted_since: datetime | None = None
    bucket_seconds: float
    history: list[RunsBucket]
    failures: list[FailureView]
    longest: list[LongRunView]
    stuck: list[StuckTaskView]


class GridTaskView(Struct, frozen=True, kw_only=True):
    """A row of a grid.

    Attributes:
        groups: The groups that it is in, the outermost first.
        present: Whether the version in force has it.
    """

    task_id: str
    mapped: bool = False
    groups: tuple[str, ...] = ()
    present: bool = True


class GridRunView(RunBrief, frozen=True, kw_only=True):
    """A column of a grid.

    Attributes:
        marks: A character a row: the digit (0-9, a-z) of the task's state in `states` of the
            grid, `+` for a mapped task, whose instances are in `counts`, a space where its version
            lacks it.
        counts: Number of the row → state → number of instances.
    """

    kind: str
    version: int
    cause: str
    started_at: datetime | None = None
    logical_time: datetime | None = None
    partition: str | None = None
    marks: str
    counts: dict[int, dict[str, int]] = field(default_factory=dict)


class RunsGrid(Struct, frozen=True, kw_only=True):
    """The states of the tasks of a DAG's last runs.

    Attributes:
        states: The states that digits stand for.
        tasks: Rows: the tasks of the version in force in topological order, then those that only
            earlier versions have.
        runs: Columns, the oldest first.
        next: The `after` of the runs before these; None if there are none.
    """

    dag_id: str
    states: list[str]
    tasks: list[GridTaskView]
    runs: list[GridRunView]
    next: str | None = None


class TickView(Struct, frozen=True, kw_only=True):
    """A tick of a timetable.

    Attributes:
        timetable: As users write it.
    """

    at: datetime
    timetable: str


class PastTickView(RunBrief, frozen=True, kw_only=True):
    """A run that a tick made.

    Attributes:
        late_seconds: How long after its tick it was made.
    """

    logical_time: datetime | None = None
    late_seconds: float | None = None


class ScheduleView(Struct, frozen=True, kw_only=True):
    """When a DAG starts by itself.

    Attributes:
        schedule: As users write it; None if only a request starts it.
        paused: Whether it starts no runs.
        upcoming: The next ticks, in order; on a condition of several parts not each makes a run.
        past: The last runs of its ticks, the newest first.
    """

    dag_id: str
    schedule: str | None
    paused: bool
    upcoming: list[TickView]
    past: list[PastTickView]
