"""What a new version of a schedule takes over of what is pending under the old one."""

from datetime import UTC, datetime

from pubsubflow.model.schedule.condition_state import (
    Cell,
    carry_over,
    decode_cell,
    encode_cell,
    expiring_places,
    set_deadlines,
)
from pubsubflow.model.schedule.conditions import Schedule
from pubsubflow.model.wire.commands import Timer
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

CHANGED = "the schedule changed and does not ask for it any more"
Moves = list[tuple[str, int, int]]


async def carry(
    connection: Connection, dag: int, old: Schedule | None, new: Schedule | None, now: datetime
) -> list[str]:
    """Rewrite a DAG's cells for a new schedule; its gate is locked; return runs it cancelled.

    Events stay pending where the new schedule asks for the same dataset under the same filter.
    The others are noted as skipped; a run that collected events for nothing any more is cancelled.
    """
    cells: dict[str, Cell] = {}
    moves: Moves = []
    abandoned = []
    for row in await connection.fetch(SQL["read_dag_cells"], dag):
        before = decode_cell(row["state"])
        cell, moved = carry_over(old, new, before, row["key"] or None)
        cells[row["key"]] = cell
        moves += [(row["key"], place, to) for place, to in moved.items() if before.open]
        if before.forming and not cell.forming:
            abandoned.append(before.forming)
    if not cells:
        return []
    cancelled = await connection.fetch(SQL["cancel_collecting"], abandoned, CHANGED)
    await _move(connection, dag, moves)
    if new is not None:
        await _read_times(connection, dag, new, cells)
        await _set_timers(connection, dag, new, cells, now)
    await connection.execute(
        SQL["write_dag_cells"],
        dag,
        list(cells),
        [encode_cell(cell) for cell in cells.values()],
        [cell.open for cell in cells.values()],
    )
    return [str(row["run_id"]) for row in cancelled]


async def _move(connection: Connection, dag: int, moves: Moves) -> None:
    kept = [(cell, place) for cell, place, _ in moves]
    await connection.execute(
        SQL["skip_unasked"],
        dag,
        [cell for cell, _ in kept],
        [place for _, place in kept],
        CHANGED,
    )
    moved = [(cell, place, to) for cell, place, to in moves if place != to]
    if moved:
        cells, places, targets = zip(*moved, strict=True)
        await connection.execute(SQL["move_pending"], dag, list(cells), list(places), list(targets))


async def _read_times(
    connection: Connection, dag: int, schedule: Schedule, cells: dict[str, Cell]
) -> None:
    """Look up the times that places ask for which did not, or not for so many, before."""
    asked = [
        (key, place.place, place.at_least)
        for key, cell in cells.items()
        for place in expiring_places(schedule, cell)
    ]
    if not asked:
        return
    for key, place, _ in asked:
        cells[key].places[place].times = []
    columns = map(list, zip(*asked, strict=True))
    for row in await connection.fetch(SQL["read_pending_times"], dag, *columns):
        cells[row["cell"]].places[row["place"]].times.append(row["time"].timestamp())


async def _set_timers(
    connection: Connection, dag: int, schedule: Schedule, cells: dict[str, Cell], now: datetime
) -> None:
    """Start the deadlines of the new schedule; let a run that collects look at its own anew."""
    timers = []
    for key, cell in cells.items():
        for deadline in set_deadlines(schedule, cell):
            due = datetime.fromtimestamp(deadline.due, UTC)
            timers.append(Timer(due, "late", node=deadline.slot, cell=key))
        if cell.forming:
            timers.append(Timer(now, "flush", cell=key))
    await connection.execute(
        SQL["set_carried_timers"],
        dag,
        [timer.due_at for timer in timers],
        [timer.kind for timer in timers],
        [timer.node for timer in timers],
        [timer.cell for timer in timers],
    )
