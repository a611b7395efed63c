"""JSON types of backfills."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from pubsubflow.model.runs.states import RunState

PLANNED, PRUNED = "planned", "pruned"
"""States of planned runs: to be made, and removed by retention."""


class BackfillView(Struct, frozen=True, kw_only=True):
    """A backfill and its progress.

    Attributes:
        backfill_id: Its id.
        dag_id: The DAG.
        state: `running`, `paused`, `completed` or `cancelled`.
        reason: Why it is paused or cancelled.
        description: A line for people.
        created_by: Who requested it.
        ended_at: When it was cancelled, or all of its runs had ended.
        since, until: Bounds of its ticks; `to` is exclusive.
        partitions: How many partitions it is for, in place of ticks.
        params: Values in place of the DAG's defaults.
        newest_first: Whether it begins with the latest tick, or the last partition.
        reprocess: Which runs it makes: those that are `missing`, `failed` ones too, or `all`.
        max_active_runs: How many of its runs may be active, apart from the DAG's other runs; null
            if they count against the DAG's limit.
        planned: How many runs its plan has.
        left: Of these, those that it has not decided about yet.
        exists: Those that it found to exist.
        queued, running, succeeded, failed, cancelled: Those that it has made, by their state now.
        pruned: Those that it has made and retention has removed.
    """

    backfill_id: str
    dag_id: str
    state: str
    reason: str | None = None
    description: str | None = None
    created_by: str
    created_at: datetime
    ended_at: datetime | None = None
    since: datetime | None = field(name="from", default=None)
    until: datetime | None = field(name="to", default=None)
    partitions: int | None = None
    params: dict[str, Any] | None = None
    newest_first: bool
    reprocess: str
    max_active_runs: int | None = None
    planned: int
    left: int
    exists: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    pruned: int

    @property
    def over(self) -> bool:
        """Whether it has nothing left to do, and no run of it is active."""
        makes_more = self.state in ("running", "paused")
        return not makes_more and not self.queued + self.running


class PlannedRunView(Struct, frozen=True, kw_only=True):
    """A run of a backfill's plan.

    Attributes:
        number: Its place in the plan, from 1.
        state: That of the run; `planned` for one that does not exist yet, `pruned` for one that
            retention has removed.
        exists: Whether it exists without having been made by this backfill.
        run_id: The last run of this tick or partition.
    """

    number: int
    state: str
    exists: bool
    logical_time: datetime | None = None
    partition: str | None = None
    run_id: str | None = None


COUNTED = {
    RunState.QUEUED: "queued",
    RunState.RUNNING: "running",
    RunState.SUCCESS: "succeeded",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "cancelled",
}
"""State of a run → the count that it is in."""
