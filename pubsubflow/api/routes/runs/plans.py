"""Answers of requests that plan runs: those of backfills and of replays."""

from typing import Annotated

from msgspec import Meta

from pubsubflow.model.api.explain import PlannedRuns
from pubsubflow.model.wire.commands import RunPlan

MOST_LISTED = 10_000
Listed = Annotated[int, Meta(ge=0, le=MOST_LISTED)]


def planned_runs(
    dag_id: str, plan: RunPlan, *, dry_run: bool, limit: int, counted: bool
) -> PlannedRuns:
    """Return what a request has planned for a DAG.

    Args:
        dag_id: The DAG.
        plan: What the manager has answered.
        dry_run: Whether nothing was made.
        limit: How many of the runs are listed at most.
        counted: Whether the number of planned runs is given though all of them are listed.
    """
    runs = plan.runs
    planned = len(runs) if plan.planned is None else plan.planned
    return PlannedRuns(
        dag_id=dag_id,
        dry_run=dry_run,
        runs=runs[:limit],
        reason=plan.reason,
        backfill_id=plan.backfill_id,
        planned=planned if counted or planned > limit else None,
        existing=sum(run.exists for run in runs),
        first=runs[0] if runs else None,
        last=runs[-1] if runs else None,
    )
