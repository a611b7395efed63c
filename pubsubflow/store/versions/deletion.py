"""Deletion of DAGs that no file defines: the DAG at once, its history by retention."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.versions import DagDeletion
from pubsubflow.model.changes import DagChange, DagChanged, encode_records
from pubsubflow.model.schedule.condition_state import decode_condition_state
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

RUNS_CANCELLED = 1000
"""How many runs a deletion cancels: a DAG with more is paused first, and given time."""


class StillDefined(InvalidInput):
    """A file defines the DAG, so it cannot be deleted."""


class RunsUnderWay(InvalidInput):
    """Runs of the DAG have not ended, so it cannot be deleted."""


class DagDeletions:
    """Deletes DAGs.

    Args:
        database: Postgres.
        now: The time.
    """

    def __init__(
        self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._now = now

    async def live_runs(self, dag_id: str) -> list[str]:
        """Return the ids of a DAG's runs that have not ended, if it may be deleted.

        Raises:
            NotFound: The DAG is unknown.
            StillDefined: A file defines it.
        """
        async with self._database.transaction() as connection:
            dag, _ = await _find(connection, dag_id)
            rows = await connection.fetch(SQL["list_live_runs_of_dag"], dag, RUNS_CANCELLED)
        return [str(row["run_id"]) for row in rows]

    async def delete(
        self, dag_id: str, *, keep_history: bool, dry_run: bool, by: str
    ) -> DagDeletion:
        """Delete a DAG; return what goes.

        Its name is free at once. Its runs are removed by retention, slice by slice.

        Args:
            dag_id: The DAG.
            keep_history: Whether its runs and versions stay.
            dry_run: Whether to count only.
            by: Who does it.

        Raises:
            NotFound: The DAG is unknown.
            StillDefined: A file defines it.
            RunsUnderWay: Runs of it have not ended.
        """
        found: list[DagDeletion] = []

        async def work(connection: Connection) -> None:
            await connection.execute(SQL["lock_catalog"])
            dag, active = await _find(connection, dag_id)
            if active and not dry_run:
                raise RunsUnderWay(
                    f"{active} runs of DAG {dag_id!r} have not ended: wait for them, or delete it "
                    "with --cancel"
                )
            (counts,) = await connection.fetch(SQL["count_rows_of_dag"], dag)
            found[:] = [
                DagDeletion(
                    dag_id=dag_id,
                    dry_run=dry_run,
                    keeps_history=keep_history,
                    active_runs=active,
                    **dict(counts),
                )
            ]
            if not dry_run:
                await self._delete(connection, dag, dag_id, by, keep_history=keep_history)

        await self._database.in_transaction(work)
        return found[0]

    async def _delete(
        self, connection: Connection, dag: int, dag_id: str, by: str, *, keep_history: bool
    ) -> None:
        # Runs that collect events are of no queue: no end of another run would start them.
        states = await connection.fetch(SQL["read_dag_condition_states"], dag)
        collecting = [decode_condition_state(row["state"]).collecting_run for row in states]
        await connection.execute(SQL["end_collecting_runs"], [run for run in collecting if run])
        await connection.execute(SQL["retire_dag"], dag)
        await connection.execute(SQL["delete_schedule_of_dag"], dag)
        if not keep_history:
            # A name that no DAG can have in a file's place: two numbers are never the same.
            name = f"{dag_id} (deleted, {dag})"
            await connection.execute(SQL["delete_dag_with_history"], dag, name, dag_id, by)
        changed = DagChanged(dag_id=dag_id, change=DagChange.RETIRED, time=self._now())
        await connection.execute(SQL["record_changes"], encode_records([changed]))


async def _find(connection: Connection, dag_id: str) -> tuple[int, int]:
    """Return a DAG that may be deleted, its state locked, and how many runs have not ended.

    Raises:
        NotFound: The DAG is unknown.
        StillDefined: A file defines it.
    """
    row = await connection.fetchrow(SQL["read_dag_to_delete"], dag_id)
    if row is None:
        raise NotFound("DAG", dag_id)
    if row["defined"]:
        raise StillDefined(
            f"{row['file']} defines DAG {dag_id!r}, so it would come back: remove it from the file "
            f"first; `pubsubflow dags pause {dag_id}` stops it in the meantime"
        )
    return row["id"], row["active"] + row["queued"]


async def remove_deleted_dags(
    connection: Connection, delete_runs: Callable[[list[int]], Awaitable[int]], runs_at_once: int
) -> None:
    """Remove the runs of deleted DAGs, and forget those that have none left.

    Each step commits by itself, so whatever dies in between, the next call goes on.

    Args:
        connection: Outside of a transaction.
        delete_runs: Deletes ended runs with all that belongs to them; returns how many.
        runs_at_once: Size of a step.
    """
    for row in await connection.fetch(SQL["list_deleted_dags"]):
        dag = row["dag"]
        while True:
            rows = await connection.fetch(SQL["list_ended_runs_of_dag"], dag, runs_at_once)
            runs = [each["id"] for each in rows]
            # A run that was cleared meanwhile has not ended: a later call finds it.
            if not runs:
                break
            # Before the runs: they are found by these.
            await connection.execute(SQL["delete_alerts_of_runs"], runs)
            if not await delete_runs(runs):
                break
        await connection.fetch(SQL["forget_deleted_dag"], dag)
