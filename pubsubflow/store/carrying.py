"""What a new version of a schedule takes over of what is pending under the old one."""

from datetime import UTC, datetime

from pubsubflow.model.cells import Cell, carry_over, decode_cell, encode_cell, run_deadlines
from pubsubflow.model.conditions import Schedule
from pubsubflow.store.database import Connection
from pubsubflow.store.queries import SQL

CHANGED = "the schedule changed and does not ask for it any more"


async def carry(
    connection: Connection, dag: int, old: Schedule, new: Schedule | None, now: datetime
) -> None:
    """Rewrite a DAG's cells for a new schedule; its gate is locked.

    Events stay pending where the new schedule asks for the same dataset under the same filter.
    The others are noted as skipped; a run that collected events for nothing any more is cancelled.
    """
    rows = await connection.fetch(SQL["read_dag_cells"], dag)
    if new is None or (old.partitioning is None) != (new.partitioning is None):
        await connection.execute(SQL["drop_cells"], dag, CHANGED)
        forming = [decode_cell(row["state"]).forming for row in rows]
        await connection.execute(SQL["cancel_collecting"], forming, CHANGED)
        return
    for row in rows:
        cell, moves = carry_over(old, new, decode_cell(row["state"]), row["key"] or None)
        await _renumber(connection, dag, row["key"], moves)
        await _set_timers(connection, dag, row["key"], new, cell, now)
        is_open = bool(cell.forming) or any(place.count for place in cell.places)
        await connection.execute(SQL["write_cell"], dag, row["key"], encode_cell(cell), is_open)


async def _renumber(connection: Connection, dag: int, key: str, moves: dict[int, int]) -> None:
    await connection.execute(SQL["skip_unasked"], dag, key, list(moves), CHANGED)
    await connection.execute(SQL["move_pending"], dag, key, list(moves), list(moves.values()))


async def _set_timers(
    connection: Connection, dag: int, key: str, schedule: Schedule, cell: Cell, now: datetime
) -> None:
    """Start the deadlines of the new schedule; let a run that collects look at its own anew."""
    for deadline in run_deadlines(schedule, cell, now.timestamp()):
        due = datetime.fromtimestamp(deadline.due, UTC)
        await connection.execute(
            SQL["set_late_timer"], due, dag, deadline.slot, deadline.number, key
        )
    if cell.forming:
        await connection.execute(SQL["set_flush_timer"], now, dag, cell.forming, key)
