"""The state of DAGs in Postgres, as people see and change it; tasks change it by their results."""

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.state import StateView
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.values.state import check_state_name, decode_state
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader


class StateStore:
    """The values that DAGs keep from run to run.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def list(
        self, dag_id: str, after: str, limit: int, name: str | None = None
    ) -> list[StateView]:
        """Return the values of a DAG by name.

        Args:
            dag_id: The DAG.
            after: The name before the first one.
            limit: How many at most.
            name: This one alone.

        Raises:
            NotFound: No DAG has this name.
        """
        async with self._database.search() as connection:
            dag = await _dag(connection, dag_id)
            rows = await connection.fetch(SQL["list_state"], dag, after, limit, name)
            specs = await self._specs.load(connection, (row["spec"] for row in rows))
        return [_view(row, specs) for row in rows]

    async def set(self, dag_id: str, name: str, value: str | None) -> None:
        """Set a value of a DAG, or reset it by None; tasks that have read the old one conflict.

        Raises:
            NotFound: No DAG has this name.
            InvalidInput: The name is invalid.
        """
        check_state_name(name)
        async with self._database.transaction() as connection:
            dag = await _dag(connection, dag_id)
            await connection.execute(SQL["set_state"], dag, name, value)


async def _dag(connection: Connection, dag_id: str) -> int:
    found: int | None = await connection.fetchval(SQL["find_dag"], dag_id)
    if found is None:
        raise NotFound("DAG", dag_id)
    return found


def _view(row: asyncpg.Record, specs: dict[int, DagSpec]) -> StateView:
    spec = specs.get(row["spec"])
    task = None if spec is None or row["node"] is None else spec.tasks[row["node"]].task_id
    return StateView(
        name=row["name"],
        value=decode_state(row["value"]),
        changes=row["version"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        task_id=task,
        updated_at=row["updated_at"],
    )
