"""The summary of what happens now, and of what became of the runs of late."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from pubsubflow.model.api.overviews.runs import (
    FailedTaskView,
    FailureView,
    LongRunView,
    RunsBucket,
    StuckTaskView,
    Summary,
    WorkCount,
)
from pubsubflow.model.runs.filters import RunFilter
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.codecs import decode_error_view
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.read.runs.run_pages import LAST_ID, find_page, id_at
from pubsubflow.store.read.runs.runs import FoundRun, read_runs
from pubsubflow.store.read.statistics import read_statistics
from pubsubflow.store.read.task_waits import read_wait_reasons
from pubsubflow.store.specs import SpecReader

COUNTED_RUNS = 200_000
LOOKED_AT = 200
SHOWN = 10
_MESSAGE_CHARACTERS = 500


class History(Struct, frozen=True):
    """The stretch of time whose runs are counted.

    Attributes:
        dag_id: Only runs of this DAG; all but those of checks if None.
        buckets: Into how many equal parts it is divided.
    """

    since: datetime
    until: datetime
    buckets: int
    dag_id: str | None = None

    @property
    def bucket(self) -> timedelta:
        """The length of a part."""
        return (self.until - self.since) / self.buckets


class ReadSummary:
    """Queries that sum up."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def summary(self, history: History, *, stuck_seconds: float) -> Summary:
        """Return what happens now, and what became of the runs of late.

        Args:
            history: Which runs are counted.
            stuck_seconds: Tasks that are ready for that long count as stuck.

        Raises:
            NotFound: The DAG does not exist.
        """
        async with self._database.search() as connection:
            buckets, counted_since = await _history(connection, history)
            failures = await self._failures(connection, history.dag_id)
            longest = await _longest(connection)
            stuck = await self._stuck(connection, stuck_seconds)
        return Summary(
            work=[
                # Without ages: they would make each answer, and its ETag, another one.
                WorkCount(subject=each.subject, label=each.label, number=each.number)
                for each in await read_statistics(self._database)
            ],
            since=history.since,
            until=history.until,
            counted_since=counted_since,
            bucket_seconds=history.bucket.total_seconds(),
            history=buckets,
            failures=failures,
            longest=longest,
            stuck=stuck,
        )

    async def _failures(self, connection: Connection, dag_id: str | None) -> list[FailureView]:
        chosen = RunFilter(dag_id=dag_id, states=(RunState.FAILED,))
        page = await find_page(connection, self._specs, chosen, limit=LOOKED_AT, after=None)
        found = await read_runs(connection, page.ids)
        counts = Counter(run.view.dag_id for run in found)
        # A DAG that fails again and again must not hide the others.
        newest = {run.view.dag_id: run for run in reversed(found)}.values()
        runs = sorted(newest, key=lambda run: run.view.run_id, reverse=True)[:SHOWN]
        tasks = await self._first_failures(connection, runs)
        rows = await connection.fetch(SQL["list_succeeded_since"], [run.number for run in runs])
        mended = {row["id"] for row in rows}
        return [
            FailureView(
                run_id=run.view.run_id,
                dag_id=run.view.dag_id,
                kind=run.view.kind,
                cause=run.view.cause,
                partition=run.view.partition,
                created_at=run.view.created_at,
                started_at=run.view.started_at,
                ended_at=run.view.ended_at,
                error=run.view.error,
                task=tasks.get(run.number),
                succeeded_since=run.number in mended,
                others=counts[run.view.dag_id] - 1,
            )
            for run in runs
        ]

    async def _first_failures(
        self, connection: Connection, runs: Sequence[FoundRun]
    ) -> dict[int, FailedTaskView]:
        specs = await self._specs.load(connection, (run.version for run in runs))
        known = {run.number: run for run in runs}
        found = {}
        for row in await connection.fetch(SQL["list_first_failures"], list(known)):
            run = known[row["run"]]
            error = decode_error_view(row["error"])
            task_id = specs[run.version].tasks[row["node"]].task_id
            key, index = _task_key(run, task_id, row["map_index"])
            found[run.number] = FailedTaskView(
                id=key,
                task_id=task_id,
                map_index=index,
                error_type=None if error is None else error.type,
                error=None if error is None else error.message[:_MESSAGE_CHARACTERS],
            )
        return found

    async def _stuck(self, connection: Connection, seconds: float) -> list[StuckTaskView]:
        rows = await connection.fetch(SQL["list_oldest_ready"], seconds, SHOWN)
        runs = await read_runs(connection, sorted({row["run"] for row in rows}))
        specs = await self._specs.load(connection, (run.version for run in runs))
        found = []
        for run in runs:
            own = [row for row in rows if row["run"] == run.number]
            # The reasons are looked up in the order of the graph.
            own.sort(key=lambda row: (row["node"], row["map_index"]))
            spec = specs[run.version]
            reasons = await read_wait_reasons(connection, run.number, spec, own)
            for row in own:
                task_id = spec.tasks[row["node"]].task_id
                key, index = _task_key(run, task_id, row["map_index"])
                stuck = StuckTaskView(
                    id=key,
                    run_id=run.view.run_id,
                    dag_id=run.view.dag_id,
                    task_id=task_id,
                    map_index=index,
                    state=row["state"],
                    since=row["queued_at"],
                    waits_for=reasons.get((row["node"], row["map_index"])),
                )
                found.append(stuck)
        return sorted(found, key=lambda each: each.since)


async def _history(
    connection: Connection, history: History
) -> tuple[list[RunsBucket], datetime | None]:
    """Return the buckets with runs, and since when runs are counted if not all are."""
    first, before = id_at(history.since), id_at(history.until)
    dag = None if history.dag_id is None else await find_dag(connection, history.dag_id)
    query, *more = ("find_scan_end",) if dag is None else ("find_dag_scan_end", dag)
    # Counting is linear in the runs: a busy month must not cost the page its second.
    end = await connection.fetchval(SQL[query], before, COUNTED_RUNS, *more)
    cut = end is not None and end > first
    query, *more = ("count_runs_over_time",) if dag is None else ("count_dag_runs_over_time", dag)
    rows = await connection.fetch(
        SQL[query],
        end if cut else first,
        min(before, LAST_ID),
        history.since.timestamp(),
        history.until.timestamp(),
        history.buckets,
        *more,
    )
    buckets: dict[int, dict[str, int]] = {}
    for row in rows:
        # The clock of the manager and that of Postgres may differ a little.
        at = min(max(row["bucket"], 0), history.buckets - 1)
        states = buckets.setdefault(at, {})
        states[row["state"]] = states.get(row["state"], 0) + row["runs"]
    counted_since = await connection.fetchval(SQL["read_made_at"], end) if cut else None
    return [
        RunsBucket(at=history.since + history.bucket * at, states=states)
        for at, states in sorted(buckets.items())
    ], counted_since


async def _longest(connection: Connection) -> list[LongRunView]:
    rows = await connection.fetch(SQL["list_longest_runs"], SHOWN)
    runs = await read_runs(connection, [row["id"] for row in rows])
    return [
        LongRunView(
            run_id=run.view.run_id,
            dag_id=run.view.dag_id,
            state=run.view.state,
            kind=run.view.kind,
            cause=run.view.cause,
            partition=run.view.partition,
            created_at=run.view.created_at,
            started_at=run.view.started_at,
        )
        for run in reversed(runs)
    ]


def _task_key(run: FoundRun, task_id: str, map_index: int) -> tuple[str, int | None]:
    """Return the public id of a task instance, and its index if it is mapped."""
    if map_index == NOT_MAPPED:
        return f"{run.view.run_id}.{task_id}", None
    return f"{run.view.run_id}.{task_id}.{map_index}", map_index
