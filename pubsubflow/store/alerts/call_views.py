"""Calls of functions and notifiers, read for the API."""

from pubsubflow.model.api.resources import CallbackView
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

_MOST = 200


async def read_callbacks(
    connection: Connection, run: int, node: int | None = None, map_index: int | None = None
) -> list[CallbackView]:
    """Return the calls about a run, or about a task instance of it.

    Args:
        connection: Postgres.
        run: The number of the run.
        node: The task; None for calls about the run itself.
        map_index: The instance.
    """
    rows = await connection.fetch(SQL["list_callbacks_of_run"], run, node, map_index, _MOST)
    return [CallbackView(**dict(row)) for row in rows]
