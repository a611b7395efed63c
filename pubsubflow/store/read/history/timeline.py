"""Timelines of runs, read for the API."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.history.timeline import (
    RunTimeline,
    TimelineBand,
    TimelineLane,
    TimelineSpan,
    TimelineTask,
)
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.runs.runs import find_run
from pubsubflow.store.specs import SpecReader

MOST_SINGLE = 20
_PARTS = 120
_LANES = 500
_Rows = list[asyncpg.Record]
_ByTask = dict[tuple[int, int], _Rows]


class ReadTimelines:
    """Queries about the time that runs took."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def get(
        self,
        run_id: UUID,
        *,
        task: str | None = None,
        first: int = 0,
        skip: int = 0,
        limit: int = MOST_SINGLE,
    ) -> RunTimeline:
        """Return the timeline of a run.

        Args:
            run_id: The run.
            task: Only the lane of this task.
            first: The number of the first task.
            skip: How many instances of each task are left out.
            limit: Tasks with more instances are a band, unless a task is named: then of so many.

        Raises:
            NotFound: No run has this id, or it does not have the task.
        """
        async with self._database.connection() as connection:
            run = await find_run(connection, run_id)
            specs = await self._specs.load(connection, [run.version])
            spec = specs[run.version]
            nodes = await connection.fetch(
                SQL["summarise_run_nodes"], run.number, _node(spec, task, first), _LANES + 1
            )
            if task is not None:
                nodes = [row for row in nodes if spec.tasks[row["node"]].task_id == task]
            counts = await connection.fetch(SQL["count_run_tasks"], run.number)
            shown = nodes[:_LANES]
            single = [row["node"] for row in shown if task is not None or row["instances"] <= limit]
            tasks = await _read_tasks(connection, run.number, single, skip, limit)
            bands = await _read_bands(
                connection, run.number, [row for row in shown if row["instances"] > limit]
            )
        states: dict[int, dict[str, int]] = {}
        for row in counts:
            of_node = states.setdefault(row["node"], {})
            of_node[row["state"]] = of_node.get(row["state"], 0) + row["instances"]
        view = run.view
        return RunTimeline(
            run_id=view.run_id,
            dag_id=view.dag_id,
            state=view.state,
            created_at=view.created_at,
            started_at=view.started_at,
            ended_at=view.ended_at,
            lanes=[
                _lane(row, spec, states, tasks.get(row["node"], []), bands.get(row["node"]))
                for row in shown
            ],
            next=nodes[_LANES]["node"] if len(nodes) > _LANES else None,
        )


def _node(spec: DagSpec, task: str | None, first: int) -> int:
    if task is None:
        return first
    for each in spec.tasks:
        if each.task_id == task:
            return each.node
    raise NotFound(f"task in DAG {spec.dag_id}", task)


def _lane(
    row: asyncpg.Record,
    spec: DagSpec,
    states: dict[int, dict[str, int]],
    tasks: list[TimelineTask],
    band: TimelineBand | None,
) -> TimelineLane:
    task = spec.tasks[row["node"]]
    return TimelineLane(
        task_id=task.task_id,
        mapped=bool(task.mapped),
        instances=row["instances"],
        states=states.get(row["node"], {}),
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        ended_at=None if row["live"] else row["ended_at"],
        median_seconds=row["median_seconds"],
        longest_seconds=row["longest_seconds"],
        tasks=tasks,
        band=band,
    )


async def _read_tasks(
    connection: Connection, run: int, nodes: list[int], skip: int, limit: int
) -> dict[int, list[TimelineTask]]:
    rows = await connection.fetch(SQL["read_timeline_tasks"], run, nodes, skip, limit)
    keys = [row["node"] for row in rows], [row["map_index"] for row in rows]
    attempts = _by_task(await connection.fetch(SQL["read_timeline_attempts"], run, *keys))
    waits = _by_task(await connection.fetch(SQL["read_timeline_waits"], run, *keys))
    found: dict[int, list[TimelineTask]] = {}
    for row in rows:
        key = row["node"], row["map_index"]
        found.setdefault(row["node"], []).append(
            TimelineTask(
                map_index=None if row["map_index"] == NOT_MAPPED else row["map_index"],
                state=row["state"],
                spans=spans_of(row, attempts.get(key, []), waits.get(key, [])),
            )
        )
    return found


def _by_task(rows: _Rows) -> _ByTask:
    found: _ByTask = {}
    for row in rows:
        found.setdefault((row["node"], row["map_index"]), []).append(row)
    return found


def spans_of(task: Any, attempts: Sequence[Any], waits: Sequence[Any]) -> list[TimelineSpan]:
    """Return the parts of a task instance's time, in order.

    Args:
        task: Its attempt, state, queued_at, started_at and ended_at.
        attempts: The attempts before, in order.
        waits: Its waits: label, since and until.
    """
    spans: list[TimelineSpan] = []
    paused_at: datetime | None = None
    for each in attempts:
        if each["started_at"] is None:
            continue
        if paused_at is not None and each["started_at"] > paused_at:
            spans.append(TimelineSpan(kind="pause", start=paused_at, end=each["started_at"]))
        spans.append(
            TimelineSpan(
                kind="running",
                start=each["started_at"],
                end=each["ended_at"],
                attempt=each["attempt"],
                state=each["state"],
            )
        )
        paused_at = each["ended_at"]
    queued, started, attempt = task["queued_at"], task["started_at"], task["attempt"]
    if task["state"] == TaskState.UP_FOR_RETRY:
        if paused_at is not None:
            spans.append(TimelineSpan(kind="pause", start=paused_at, attempt=attempt))
    else:
        if paused_at is not None and queued is not None and queued > paused_at:
            spans.append(TimelineSpan(kind="pause", start=paused_at, end=queued, attempt=attempt))
        if queued is not None and (started is None or queued < started):
            until = started or task["ended_at"]
            spans.append(TimelineSpan(kind="queued", start=queued, end=until, attempt=attempt))
        if started is not None:
            spans.append(
                TimelineSpan(
                    kind="running",
                    start=started,
                    end=task["ended_at"],
                    attempt=attempt,
                    state=task["state"],
                )
            )
    spans += [
        TimelineSpan(
            kind="waiting", start=each["since"], end=each["until"], label=each["label"] or None
        )
        for each in waits
    ]
    return sorted(spans, key=lambda each: each.start)


async def _read_bands(
    connection: Connection, run: int, nodes: Sequence[asyncpg.Record]
) -> dict[int, TimelineBand]:
    """Return how many instances ran when, of nodes with too many to show them one by one."""
    now = datetime.now(UTC)
    times = {
        row["node"]: (row["started_at"], now if row["live"] else row["ended_at"])
        for row in nodes
        if row["started_at"] is not None
    }
    if not times:
        return {}
    starts, ends = zip(*times.values(), strict=True)
    rows = await connection.fetch(
        SQL["count_timeline_bands"], run, list(times), list(starts), list(ends), _PARTS
    )
    moves: dict[int, dict[int, tuple[int, int]]] = {}
    for row in rows:
        # What is at the very end counts for the last part.
        part = min(max(row["part"], 1), _PARTS) - 1
        before = moves.setdefault(row["node"], {}).get(part, (0, 0))
        moves[row["node"]][part] = (before[0] + row["started"], before[1] + row["ended"])
    return {
        node: TimelineBand(
            start=since,
            end=max(until, since + timedelta(microseconds=1)),
            running=_at_once(moves.get(node, {})),
        )
        for node, (since, until) in times.items()
    }


def _at_once(moves: dict[int, tuple[int, int]]) -> list[int]:
    """Return the most that ran at once in each part."""
    found, running = [], 0
    for part in range(_PARTS):
        started, ended = moves.get(part, (0, 0))
        found.append(int(running + started))
        running += started - ended
    return found
