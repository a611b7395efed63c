"""Why no run of a DAG starts."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import asyncpg
from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.explain import WaitingInput, WaitingPartition, WhyNot
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.schedule.condition_state import (
    UNREACHABLE,
    Cell,
    decode_cell,
    expiry,
    held,
    new_cell,
)
from pubsubflow.model.schedule.conditions import Input, Schedule, describe_schedule, inputs
from pubsubflow.model.schedule.explain import (
    Reason,
    as_clause,
    collecting,
    moment,
    parts,
    still_needed,
    usable,
)
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.read.runs import read_runs
from pubsubflow.store.specs import Specs

OPEN_CELLS = 1000
SHOWN_PARTITIONS = 20
HELD_BACK = 1000
LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)
SOON = datetime(9999, 12, 30, tzinfo=UTC)


class Found(Struct, frozen=True):
    """What the store knows of a DAG at one moment.

    Attributes:
        cell: The cell that is looked at; an empty one where there is none.
        open: Partition → cell, for those where something is pending; none when one is asked about.
        fates: (place, fate) → row with `events`, `last` and `reason`.
        last_events: Place → row with `event_id` and `recorded_at`.
        too_old: Place → pending events that are too old.
    """

    number: int
    gate: asyncpg.Record
    spec: DagSpec
    key: str | None
    cell: Cell
    open: dict[str, Cell]
    ticks: dict[int, datetime]
    fates: dict[tuple[int, str], asyncpg.Record]
    last_events: dict[int, asyncpg.Record]
    too_old: dict[int, int]
    held_back: asyncpg.Record | None
    last_run: RunView | None
    collecting_run: str | None

    @property
    def overview(self) -> bool:
        """Whether it is partitioned and no partition is asked about."""
        schedule = self.spec.schedule
        return schedule is not None and schedule.partitioning is not None and self.key is None


class ReadWaiting:
    """Queries about what DAGs still wait for."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    async def why_not(self, dag_id: str, partition: str | None = None) -> WhyNot:
        """Return why no run of a DAG starts now, all as it was at one moment.

        Args:
            dag_id: The DAG.
            partition: A partition key, when the DAG's schedule is partitioned.

        Raises:
            NotFound: There is no such DAG.
            InvalidInput: Its schedule has no partitions, or no such one.
        """
        async with self._database.connection() as connection:
            number = await find_dag(connection, dag_id)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                found = await self._find(connection, number, partition)
        return _tell(found)

    async def _find(self, connection: Connection, dag: int, key: str | None) -> Found:
        gate = await connection.fetchrow(SQL["read_standing_gate"], dag)
        if gate is None:
            raise InvalidInput("the DAG was never in force")
        spec = (await self._specs.load(connection, [gate["version"]]))[gate["version"]]
        schedule = spec.schedule
        if key is not None:
            _check_partition(spec, key)
        partitioned = schedule is not None and schedule.partitioning is not None
        rows = []
        if schedule is not None and partitioned and key is None:
            rows = await connection.fetch(SQL["list_open_cells"], dag, OPEN_CELLS)
        cell = Cell([]) if schedule is None else await _read_cell(connection, dag, schedule, key)
        ticks = await connection.fetch(SQL["read_next_ticks"], dag)
        fates = await connection.fetch(SQL["count_recent_fates"], dag, key)
        run = await connection.fetchval(SQL["find_last_run"], dag, key)
        forming = await connection.fetchval(SQL["name_run"], cell.forming) if cell.forming else None
        behind = None
        if gate["since"] is not None:
            behind = await connection.fetchrow(
                SQL["count_held_back"], dag, gate["since"], HELD_BACK
            )
        places = list(inputs(schedule.condition)) if schedule is not None else []
        return Found(
            dag,
            gate,
            spec,
            key,
            cell,
            {row["key"]: decode_cell(row["state"]) for row in rows},
            {row["slot"]: row["due_at"] for row in ticks},
            {(row["place"], row["fate"]): row for row in fates},
            await _last_events(connection, dag, places),
            await _too_old(connection, dag, key or "", places, cell),
            behind,
            None if run is None else (await read_runs(connection, [run]))[0].view,
            None if forming is None else str(forming),
        )


def _check_partition(spec: DagSpec, key: str) -> None:
    if spec.schedule is None or spec.schedule.partitioning is None:
        raise InvalidInput(f"DAG {spec.dag_id!r} has no partitions: leave --partition out")
    places = new_cell(spec.schedule, key).places
    if places and all(place.wanted == UNREACHABLE for place in places):
        raise InvalidInput(f"DAG {spec.dag_id!r} has no partition {key!r}: it is no such window")


async def _read_cell(connection: Connection, dag: int, schedule: Schedule, key: str | None) -> Cell:
    rows = await connection.fetch(SQL["read_cells"], [dag], [key or ""])
    return decode_cell(rows[0]["state"]) if rows else new_cell(schedule, key)


async def _last_events(
    connection: Connection, dag: int, places: Sequence[Input]
) -> dict[int, asyncpg.Record]:
    rows = await connection.fetch(
        SQL["read_last_events"],
        dag,
        [place.place for place in places],
        [place.uri for place in places],
        [pattern_expression(place.uri) if place.pattern else None for place in places],
    )
    return {row["place"]: row for row in rows}


async def _too_old(
    connection: Connection, dag: int, key: str, places: Sequence[Input], cell: Cell
) -> dict[int, int]:
    limits = {place.place: expiry(place, cell) for place in places}
    asked = {place: limit for place, limit in limits.items() if limit is not None and limit > 0}
    if not asked:
        return {}
    times = [datetime.fromtimestamp(limit, UTC) for limit in asked.values()]
    rows = await connection.fetch(SQL["count_too_old"], dag, key, list(asked), times)
    return {row["place"]: row["events"] for row in rows}


def _tell(found: Found) -> WhyNot:
    schedule, gate = found.spec.schedule, found.gate
    behind = found.held_back
    clause = None
    if schedule is not None and not found.overview:
        clause = as_clause(schedule.condition, found.cell, found.ticks)
    waiting = sorted(_partitions(found), key=lambda each: each.since or SOON)
    return WhyNot(
        dag_id=gate["dag_id"],
        schedule=describe_schedule(schedule) or None,
        partition=found.key,
        paused=gate["paused"],
        active_runs=gate["active"],
        queued_runs=gate["queued"],
        max_active_runs=found.spec.max_active_runs,
        reasons=_reasons(found),
        condition=clause,
        inputs=[]
        if schedule is None
        else [_input(found, schedule, place) for place in inputs(schedule.condition)],
        partitions=waiting[:SHOWN_PARTITIONS],
        open_partitions=len(found.open),
        held_back=behind["events"] if behind is not None else 0,
        held_back_since=behind["since"] if behind is not None else None,
        next_tick=min(found.ticks.values(), default=None),
        last_run=found.last_run,
        collecting_run=found.collecting_run,
    )


def _partitions(found: Found) -> list[WaitingPartition]:
    schedule = found.spec.schedule
    if schedule is None:
        return []
    return [
        WaitingPartition(
            partition=key,
            pending=sum(place.count for place in cell.places),
            waits_for=_partition_waits(schedule, cell, key),
            since=_oldest(cell),
        )
        for key, cell in found.open.items()
    ]


def _partition_waits(schedule: Schedule, cell: Cell, key: str) -> str:
    if cell.forming:
        return "a run collects its events"
    if cell.fired >= cell.rounds:
        return "nothing: it has run"
    return still_needed(schedule, cell, key)


def _oldest(cell: Cell) -> datetime | None:
    return moment(min((place.since for place in cell.places if place.count), default=0.0))


def _input(found: Found, schedule: Schedule, place: Input) -> WaitingInput:
    number, cell = place.place, found.cell
    state, last = cell.places[number], found.last_events.get(number)
    window = parts(schedule, place, cell, found.key or "")
    holds = not found.overview and held(place, cell) is not None
    lacking = place.at_least - usable(place, cell)
    count, since = state.count, state.since
    if found.overview:
        states = [each.places[number] for each in found.open.values()]
        count = sum(each.count for each in states)
        since = min((each.since for each in states if each.count), default=0.0)
    return WaitingInput(
        place=number,
        dataset=place.uri,
        pattern=place.pattern,
        where=place.where,
        holds=holds,
        pending=count,
        at_least=place.at_least,
        missing=window.wanted - window.there if window is not None else lacking,
        within_seconds=place.within_seconds,
        too_old=found.too_old.get(number, 0),
        parts=window,
        reachable=state.wanted != UNREACHABLE,
        waiting_since=moment(since),
        last_event_id=None if last is None else str(last["event_id"]),
        last_event_at=None if last is None else last["recorded_at"],
        last_reason=_last_reason(found.fates, number),
        **{
            fate: found.fates[number, fate]["events"] if (number, fate) in found.fates else 0
            for fate in ("filtered", "expired", "skipped")
        },
    )


def _last_reason(fates: Mapping[tuple[int, str], asyncpg.Record], place: int) -> str | None:
    rows = [row for (number, _), row in fates.items() if number == place]
    return max(rows, key=lambda row: row["last"])["reason"] if rows else None


def _reasons(found: Found) -> list[Reason]:
    """Return why no run starts, the most basic reason first."""
    gate, schedule = found.gate, found.spec.schedule
    told = []
    if not gate["present"]:
        told.append(Reason(kind="gone", text="it stands in no DAG file any more"))
    elif gate["error"] is not None:
        text = "its file cannot be imported; the last good version stays in force"
        told.append(Reason(kind="broken", text=text))
    if gate["paused"]:
        told.append(Reason(kind="paused", text=_paused(found)))
    elif found.held_back is not None:
        told.append(Reason(kind="behind", text="it is catching up with past events"))
    if gate["queued"]:
        most = found.spec.max_active_runs
        count = gate["queued"]
        text = f"{count} run{'s wait' if count > 1 else ' waits'} in line: {gate['active']} active"
        told.append(Reason(kind="capped", text=f"{text}, max_active_runs={most}"))
    if schedule is None:
        told.append(Reason(kind="unscheduled", text="it has no schedule: it runs only when asked"))
    else:
        told.extend(_open_reasons(found, schedule))
    return told


def _paused(found: Found) -> str:
    if found.held_back is None:
        drops = found.spec.on_pause == "drop"
        return "it is paused" + ("; events are skipped meanwhile" if drops else "")
    count = found.held_back["events"]
    more = "at least " if count == HELD_BACK else ""
    return f"it is paused; {more}{count} event{'s wait' if count > 1 else ' waits'} until it is not"


def _open_reasons(found: Found, schedule: Schedule) -> list[Reason]:
    cell = found.cell
    if found.overview:
        text = "nothing is pending in any partition"
        if found.open:
            more = "at least " if len(found.open) == OPEN_CELLS else ""
            plural = "s wait" if len(found.open) != 1 else " waits"
            text = f"{more}{len(found.open)} partition{plural}; ask about one with its key"
        return [Reason(kind="waiting", text=text)]
    if found.key is not None and cell.fired >= cell.rounds:
        text = f"partition {found.key} has run; later events are skipped unless their extra says "
        return [Reason(kind="done", text=text + '"rerun": true')]
    told = [collecting(schedule.policy, cell)] if cell.forming else []
    clause = as_clause(schedule.condition, cell, found.ticks)
    text = f"it waits for {still_needed(schedule, cell, found.key or '')}"
    return [*told, Reason(kind="waiting", text=text, until=clause.due_by_itself())]
