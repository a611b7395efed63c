"""`LatestOnlyOperator`: what follows it runs in the newest run of a timetable alone."""

from datetime import datetime
from typing import Any, ClassVar

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.graph import Role
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import next_tick


class LatestOnlyOperator(Operator):
    """Skips the tasks right after it in a run that a later tick has overtaken.

    A run of a tick is the latest until the next tick of its DAG's timetables; a run that was
    requested, or that events started, always is. So a backfill and a catch-up leave out what makes
    sense only now, such as a message.
    """

    role: ClassVar[Role] = "branch"

    def execute(self, ctx: Context) -> list[str]:
        """Return the ids of the tasks right after it, or none."""
        graph: Any = self._node.graph
        if _is_overtaken(graph, ctx):
            ctx.log.info("latest_only.overtaken", logical_time=str(ctx.run.logical_time))
            return []
        return [node.task_id for node in graph.nodes.values() if self._node in node.upstream]


def _is_overtaken(dag: Any, ctx: Context) -> bool:
    tick = ctx.run.logical_time
    if tick is None or ctx.run.kind == "manual" or dag.schedule is None:
        return False
    now = ctx.now()
    schedule = dag.schedule_at(now)
    return any(
        _passed(next_tick(part.timetable, tick, dag.start, dag.end), now)
        for part in ticks(schedule.condition)
    )


def _passed(tick: datetime | None, now: datetime) -> bool:
    return tick is not None and tick <= now
