"""Filters of runs: which runs a list shows and an action on many runs takes."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from pubsubflow.model.runs.states import RunState, TaskState

LIVE_RUNS = frozenset({RunState.QUEUED, RunState.RUNNING})


class RunFilter(Struct, frozen=True):
    """A filter of runs; what is left out is not filtered by.

    Attributes:
        dag_id: Only runs of this DAG.
        states: Only those in one of these states now.
        kinds: Only those of one of these kinds, such as `manual` or `cron`.
        tags: Only those that have all of these tags, or whose DAG has them.
        since, until: Bounds of the time at which they were created; `until` is exclusive.
        partition: Only those of this partition.
        params: Only those with these params: name → value; of a value that is not a text, its JSON.
        backfill: Only those that this backfill has made.
        among: Only those of these DAGs, which the principal may see; None for any.
    """

    dag_id: str | None = None
    states: tuple[RunState, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    partition: str | None = None
    params: Mapping[str, str] = {}
    backfill: UUID | None = None
    among: tuple[str, ...] | None = None

    @property
    def live(self) -> bool:
        """Whether only runs that have not ended are meant."""
        return bool(self.states) and LIVE_RUNS.issuperset(self.states)

    @property
    def empty(self) -> bool:
        """Whether it takes every run."""
        return self == RunFilter(among=self.among)


class TaskFilter(Struct, frozen=True):
    """A filter of task instances over many runs; what is left out is not filtered by.

    Attributes:
        runs: Only those of these runs.
        task_ids: Only instances of tasks with one of these ids.
        states: Only those in one of these states now.
    """

    runs: RunFilter = RunFilter()
    task_ids: tuple[str, ...] = ()
    states: tuple[TaskState, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it takes every instance of every run."""
        return self == TaskFilter(RunFilter(among=self.runs.among))
