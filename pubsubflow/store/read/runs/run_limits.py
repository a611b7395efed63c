"""Limits of runs, read for the API: how much of them is used, and what a queued run waits for."""

from collections.abc import Sequence

from pubsubflow.model.limits.run_limits import DagRuns, LimitUse, count_use, limits_of_tags
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader


async def read_use(
    connection: Connection, specs: SpecReader, tags: Sequence[str] | None = None
) -> dict[str, LimitUse]:
    """Return the limits of runs by their names, with how much of them is used.

    Args:
        connection: To Postgres.
        specs: Reads definitions.
        tags: Only the limits of these; of all if None.
    """
    rows = await connection.fetch(SQL["list_run_limits"])
    limits = {row["name"]: row["slots"] for row in rows}
    if tags is not None:
        wanted = limits_of_tags(tags, limits)
        limits = {name: slots for name, slots in limits.items() if name in wanted}
    if not limits:
        return {}
    rows = await connection.fetch(SQL["list_dags_with_runs"])
    found = await specs.load(connection, [row["version"] for row in rows])
    dags = [
        DagRuns(
            row["dag"],
            limits_of_tags(found[row["version"]].tags, limits),
            row["active"],
            row["apart"],
            row["queued"],
        )
        for row in rows
    ]
    return count_use(limits, dags)


async def describe_full(
    connection: Connection, specs: SpecReader, tags: Sequence[str]
) -> list[str]:
    """Return the limits without room for a further run of a DAG with such tags."""
    use = await read_use(connection, specs, tags)
    return [each.describe() for each in use.values() if not each.free]


async def describe_queued(connection: Connection, specs: SpecReader, run: int) -> list[str]:
    """Return what a queued run waits for.

    Args:
        connection: To Postgres.
        specs: Reads definitions.
        run: Id of the run.
    """
    row = await connection.fetchrow(SQL["read_queued_run"], run)
    if row is None:
        return []
    if not row["in_queue"]:
        return ["further events, which it collects"]
    spec = (await specs.load(connection, [row["version"]]))[row["version"]]
    found = []
    if row["active"] - row["apart"] >= spec.max_active_runs:
        found.append(f"another run to end: max_active_runs={spec.max_active_runs}")
    found += await describe_full(connection, specs, spec.tags)
    return found or ["its turn"]
