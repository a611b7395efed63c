"""Putting versions in force: pending events, subscriptions and ticks follow their schedules."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg
from msgspec.structs import astuple

from pubsubflow.model.changes import Change, DagChange, DagChanged, RunChanged
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.conditions import DatasetInput, ScheduleSpec, inputs, ticks
from pubsubflow.model.schedule.timetable import OnceSpec, first_tick
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.schedule_changes import SCHEDULE_CHANGED, migrate_schedule

_MOMENT = timedelta(microseconds=1)


def dataset_inputs(spec: DagSpec) -> list[DatasetInput]:
    """Return the inputs of a version's schedule."""
    return list(inputs(spec.schedule.condition)) if spec.schedule is not None else []


async def declare_rate_limits(connection: Connection, specs: Sequence[DagSpec]) -> None:
    """Store rate limits as they are declared; of one name, the last one counts."""
    found = {
        task.rate_limit.name: task.rate_limit
        for spec in specs
        for task in spec.tasks
        if task.rate_limit is not None
    }
    if found:
        # The last of all locks, as in a manager: it reads the limits under it.
        await connection.fetch(SQL["lock_slots"])
        columns = zip(*(astuple(found[name]) for name in sorted(found)), strict=True)
        await connection.execute(SQL["declare_rate_limits"], *map(list, columns))


async def put_states_in_force(
    connection: Connection, versions: dict[int, int], specs: dict[int, DagSpec], now: datetime
) -> list[Change]:
    """Put versions in force for scheduling: pending events, subscriptions and ticks.

    Args:
        connection: In a transaction that holds the lock of the catalog.
        versions: DAG → version.
        specs: DAG → its spec.
        now: The time.

    Returns:
        Changes of collecting runs that are cancelled.
    """
    changes: list[Change] = []
    dags = sorted(versions)
    before: dict[int, ScheduleSpec] = {}
    # From here on the managers of these DAGs wait: no event is decided under two schedules.
    for row in await connection.fetch(SQL["lock_changed_dags"], dags):
        old, new = STORED_SPEC.decode(row["spec"]).schedule, specs[row["dag"]].schedule
        if old is not None:
            before[row["dag"]] = old
        dag_id = specs[row["dag"]].dag_id
        for run_id in await migrate_schedule(connection, row["dag"], old, new, now):
            state = RunState.CANCELLED
            changes.append(
                RunChanged(
                    run_id=run_id, dag_id=dag_id, state=state, error=SCHEDULE_CHANGED, time=now
                )
            )
    since = [specs[dag].subscribe_from for dag in dags]
    await connection.execute(SQL["save_dag_states"], dags, [versions[dag] for dag in dags], since)
    await _subscribe(
        connection, [(dag, each) for dag in dags for each in dataset_inputs(specs[dag])], dags
    )
    await connection.execute(SQL["schedule_catch_up"], dags)
    await _set_ticks(connection, {dag: specs[dag] for dag in dags}, before, now)
    return changes


async def _subscribe(
    connection: Connection, subscribed: Sequence[tuple[int, DatasetInput]], dags: Sequence[int]
) -> None:
    await connection.execute(SQL["delete_subscriptions"], dags)
    exact = [(dag, each.uri) for dag, each in subscribed if not each.pattern]
    await connection.execute(
        SQL["subscribe_dags"], [dag for dag, _ in exact], [uri for _, uri in exact]
    )
    matching = [(dag, each.uri) for dag, each in subscribed if each.pattern]
    if matching:
        # A transaction that adds a dataset reads the patterns: it sees ours, or we see its dataset.
        await connection.execute(SQL["lock_datasets"])
    await connection.execute(
        SQL["subscribe_patterns"],
        [dag for dag, _ in matching],
        [pattern for _, pattern in matching],
        [pattern_expression(pattern) for _, pattern in matching],
    )


async def _set_ticks(
    connection: Connection,
    specs: dict[int, DagSpec],
    before: dict[int, ScheduleSpec],
    now: datetime,
) -> None:
    """Set the next tick of every timetable.

    The tick of an unchanged timetable is kept, even if it is due already. With catch-up, a DAG
    that never ticked begins at its start; otherwise time counts from now.
    """
    dropped = await connection.fetch(SQL["delete_ticks"], sorted(specs))
    due = {(row["dag"], row["node"]): row["due_at"] for row in dropped}
    rows = []
    for dag, spec in sorted(specs.items()):
        old = list(ticks(before[dag].condition)) if dag in before else []
        for part in ticks(spec.schedule.condition) if spec.schedule is not None else ():
            since, key = now, (dag, part.slot)
            same = any(part.continues(each) for each in old)
            # A moment before the due time, as first_tick returns the first tick after it.
            if isinstance(part.timetable, OnceSpec) and same:
                # It has ticked, or is still to tick when it was going to.
                moment = due.get(key)
            else:
                if spec.catchup and spec.start is not None:
                    since = due.get(key, spec.start) - _MOMENT
                elif key in due and same:
                    since = min(due[key] - _MOMENT, now)
                moment = first_tick(part.timetable, since, spec.start, spec.end)
            if moment is not None:
                rows.append((dag, part.slot, moment))
    await connection.execute(
        SQL["set_ticks"],
        [dag for dag, _, _ in rows],
        [slot for _, slot, _ in rows],
        [moment for _, _, moment in rows],
    )


async def resume_pins(
    connection: Connection, pins: Sequence[asyncpg.Record], now: datetime
) -> list[Change]:
    """Put pinned versions in force whose DAGs have come back after they had been retired.

    Args:
        connection: In a transaction that holds the lock of the catalog.
        pins: Rows of `list_pins`.
        now: The time.

    Returns:
        The changes.
    """
    # The pin's trigger has kept the version of the file out; its own passes.
    back = {row["dag"]: row for row in pins if row["retired"]}
    if not back:
        return []
    for dag, row in back.items():
        await connection.execute(SQL["put_version_in_force"], dag, row["version"])
    specs = {dag: STORED_SPEC.decode(row["spec"]) for dag, row in back.items()}
    versions = {dag: row["version"] for dag, row in back.items()}
    changes: list[Change] = [
        DagChanged(dag_id=row["dag_id"], change=DagChange.VERSION, version=row["number"], time=now)
        for row in back.values()
    ]
    return changes + await put_states_in_force(connection, versions, specs, now)
