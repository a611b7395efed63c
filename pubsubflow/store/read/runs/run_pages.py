"""Pages of the list of runs, filtered."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from pubsubflow.errors import NotFound
from pubsubflow.model.runs.filters import RunFilter
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.specs import SpecReader

SCANNED_RUNS = 20_000
_FIRST, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
# A run's id begins with the time at which it was made, by the clock of the manager that made it.
_SKEW = timedelta(minutes=1)


class RunIds(Struct, frozen=True):
    """The runs of a page.

    Attributes:
        ids: Internal ids, in no order.
        end: The run at which the search stopped; None if it went to the end of the list.
    """

    ids: list[int]
    end: UUID | None = None


async def find_page(
    connection: Connection, specs: SpecReader, chosen: RunFilter, *, limit: int, after: UUID | None
) -> RunIds:
    """Return the runs of a page.

    Runs that have not ended are read from their own small tables; others by a scan of at most
    20,000 runs, between the bounds of time.

    Raises:
        NotFound: The DAG or the backfill does not exist.
    """
    dag = None if chosen.dag_id is None else await find_dag(connection, chosen.dag_id)
    first = _FIRST if chosen.since is None else id_at(chosen.since - _SKEW)
    before = after or LAST_ID
    if chosen.until is not None:
        before = min(before, id_at(chosen.until + _SKEW))
    arguments = await _arguments(connection, specs, chosen)
    among = None
    if chosen.among is not None and dag is None:
        rows = await connection.fetch(SQL["find_dag_numbers"], chosen.among)
        among = [row["id"] for row in rows]
    if chosen.backfill is not None:
        found = await connection.fetchrow(SQL["find_backfill"], chosen.backfill)
        if found is None or (among is not None and found["dag"] not in among):
            raise NotFound("backfill", str(chosen.backfill))
        arguments = [*arguments, dag, found["id"]]
        query = SQL["page_backfill_runs"]
        rows = await connection.fetch(query, before, first, limit, *arguments)
        return RunIds([row["id"] for row in rows])
    if chosen.live:
        rows = await connection.fetch(
            SQL["page_live_runs"], before, first, limit, *arguments, dag, among
        )
        return RunIds([row["id"] for row in rows])
    end = await _scan_end(connection, chosen, before, dag)
    if end is not None and end <= first:
        end = None
    query, *more = ("page_runs", among) if dag is None else ("page_dag_runs", dag)
    rows = await connection.fetch(SQL[query], before, end or first, limit, *arguments, *more)
    return RunIds([row["id"] for row in rows], end)


async def _arguments(connection: Connection, specs: SpecReader, chosen: RunFilter) -> Sequence[Any]:
    """Return the arguments that all queries of runs share."""
    tagged: list[tuple[int, str]] = []
    if chosen.tags:
        rows = await connection.fetch(SQL["list_dag_versions_in_force"])
        found = await specs.load(connection, [row["version"] for row in rows])
        tagged = [
            (row["dag"], tag)
            for row in rows
            for tag in chosen.tags
            if tag in found[row["version"]].tags
        ]
    return (
        list(chosen.states) or None,
        list(chosen.kinds) or None,
        chosen.partition,
        chosen.since,
        chosen.until,
        list(chosen.params),
        list(chosen.params.values()),
        list(chosen.tags),
        [dag for dag, _ in tagged],
        [tag for _, tag in tagged],
    )


async def _scan_end(
    connection: Connection, chosen: RunFilter, before: UUID, dag: int | None
) -> UUID | None:
    """Return the run where a search stops; None if it reaches the end."""
    named = chosen.states or chosen.kinds or chosen.tags or chosen.partition or chosen.params
    filtered = bool(named) or chosen.among is not None
    if not filtered and (dag is not None or not await connection.fetchval(SQL["has_checks"])):
        return None
    query, *more = ("find_scan_end",) if dag is None else ("find_dag_scan_end", dag)
    end: UUID | None = await connection.fetchval(SQL[query], before, SCANNED_RUNS, *more)
    return end


def id_at(moment: datetime) -> UUID:
    """Return the least id that a run made then may have (RFC 9562, version 7)."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)
