"""Runs of a DAG, counted by version."""

from datetime import datetime

from pubsubflow.model.api.version_shares import VersionRuns
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

RUNS_COUNTED = 10_000
"""The newest runs of a DAG that are counted: a bound for what a DAG with millions of them costs."""


async def count_runs(
    connection: Connection, dag: int, since: datetime | None = None
) -> dict[int, VersionRuns]:
    """Return version → its runs, of the newest runs of a DAG.

    Args:
        connection: Postgres.
        dag: The DAG.
        since: Only runs made then or later.
    """
    rows = await connection.fetch(SQL["count_runs_of_versions"], dag, RUNS_COUNTED, since)
    return {
        row["version"]: VersionRuns(**{name: row[name] for name in VersionRuns.__struct_fields__})
        for row in rows
    }
