"""Schedule changes: pending events and condition states migrate to the new schedule."""

from datetime import UTC, datetime

from pubsubflow.model.schedule.condition_state import (
    ConditionState,
    decode_condition_state,
    encode_condition_state,
    expiring_inputs,
    migrate_state,
    start_deadlines,
)
from pubsubflow.model.schedule.conditions import ScheduleSpec
from pubsubflow.model.wire.commands import Timer
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

SCHEDULE_CHANGED = "the schedule changed and no longer has this input"
_Moves = list[tuple[str, int, int]]
"""Partition, input under the old schedule, input under the new one."""


async def migrate_schedule(
    connection: Connection,
    dag: int,
    old: ScheduleSpec | None,
    new: ScheduleSpec | None,
    now: datetime,
) -> list[str]:
    """Migrate a DAG's condition states to a new schedule; its dag_state is locked.

    Events stay pending where the new schedule has the same dataset under the same filter. The
    others are skipped; a run that was collecting events for a policy that is gone is cancelled.

    Returns:
        The ids of the cancelled runs.
    """
    states: dict[str, ConditionState] = {}
    moves: _Moves = []
    abandoned = []
    for row in await connection.fetch(SQL["read_dag_condition_states"], dag):
        before = decode_condition_state(row["state"])
        key = row["partition_key"]
        state, moved = migrate_state(old, new, before, key or None)
        states[key] = state
        moves += [(key, index, to) for index, to in moved.items() if before.open]
        if before.collecting_run and not state.collecting_run:
            abandoned.append(before.collecting_run)
    if not states:
        return []
    cancelled = await connection.fetch(SQL["cancel_collecting_runs"], abandoned, SCHEDULE_CHANGED)
    await _move(connection, dag, moves)
    if new is not None:
        await _read_times(connection, dag, new, states)
        await _set_timers(connection, dag, new, states, now)
    await connection.execute(
        SQL["update_condition_states"],
        dag,
        list(states),
        [encode_condition_state(state) for state in states.values()],
        [state.open for state in states.values()],
    )
    return [str(row["run_id"]) for row in cancelled]


async def _move(connection: Connection, dag: int, moves: _Moves) -> None:
    await connection.execute(
        SQL["skip_pending_events"],
        dag,
        [key for key, _, _ in moves],
        [index for _, index, _ in moves],
        SCHEDULE_CHANGED,
    )
    moved = [(key, index, to) for key, index, to in moves if index != to]
    if moved:
        columns = map(list, zip(*moved, strict=True))
        await connection.execute(SQL["move_pending_events"], dag, *columns)


async def _read_times(
    connection: Connection, dag: int, schedule: ScheduleSpec, states: dict[str, ConditionState]
) -> None:
    """Read the event times of inputs that expire now, or that require more events than before."""
    expiring = [
        (key, each.index, each.at_least)
        for key, state in states.items()
        for each in expiring_inputs(schedule, state)
    ]
    if not expiring:
        return
    for key, index, _ in expiring:
        states[key].inputs[index].times = []
    columns = map(list, zip(*expiring, strict=True))
    for row in await connection.fetch(SQL["read_pending_times"], dag, *columns):
        times = states[row["partition_key"]].inputs[row["input"]].times
        times.append(row["time"].timestamp())


async def _set_timers(
    connection: Connection,
    dag: int,
    schedule: ScheduleSpec,
    states: dict[str, ConditionState],
    now: datetime,
) -> None:
    """Start the deadlines of the new schedule, and have collecting runs checked at once."""
    timers = []
    for key, state in states.items():
        for deadline in start_deadlines(schedule, state):
            due = datetime.fromtimestamp(deadline.due, UTC)
            timers.append(Timer(due, "late", node=deadline.slot, key=key))
        if state.collecting_run:
            timers.append(Timer(now, "flush", key=key))
    await connection.execute(
        SQL["set_schedule_timers"],
        dag,
        [timer.due_at for timer in timers],
        [timer.kind for timer in timers],
        [timer.node for timer in timers],
        [timer.key for timer in timers],
    )
