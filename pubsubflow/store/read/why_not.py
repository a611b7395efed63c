"""Reasons why a DAG's schedule has not fired, read for the API."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import asyncpg
from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.explain import WaitingInput, WaitingPartition, WhyNot
from pubsubflow.model.api.resources import RunView
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.schedule.condition_state import (
    UNREACHABLE,
    ConditionState,
    check_partition,
    decode_condition_state,
    expiry,
    has_run,
    new_condition_state,
    satisfied_inputs,
)
from pubsubflow.model.schedule.conditions import (
    DatasetInput,
    ScheduleSpec,
    describe_schedule,
    inputs,
)
from pubsubflow.model.schedule.explain import (
    Reason,
    as_clause,
    collecting,
    moment,
    parts,
    still_needed,
    usable_events,
)
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.read.runs.run_limits import describe_full
from pubsubflow.store.read.runs.runs import read_runs
from pubsubflow.store.read.schedule_troubles import read_troubles
from pubsubflow.store.read.task_waits import describe_unserved
from pubsubflow.store.specs import SpecReader

MAX_OPEN_PARTITIONS = 1000
SHOWN_PARTITIONS = 20
MAX_UNPROCESSED_EVENTS = 1000
_FAR_FUTURE = datetime(9999, 12, 30, tzinfo=UTC)


class ScheduleSnapshot(Struct, frozen=True):
    """The stored state of a DAG's schedule at one moment.

    Attributes:
        dag: Row with the DAG, its state and the error of its file.
        key: The partition in question, if one is.
        state: The condition state in question; an empty one if none is stored.
        open_states: Partition → condition state, where events are pending; for an overview.
        ticks: Which tick of the schedule → when it is due.
        outcomes: (input, outcome) → row with `events`, `last` and `reason`.
        last_events: Input → row with `event_id` and `recorded_at`.
        too_old: Input → number of pending events that are too old.
        unprocessed: Row with `events` and `since`, of a DAG that is paused or catches up.
        full_limits: Limits of runs without room for another one, while runs are queued.
    """

    dag: asyncpg.Record
    spec: DagSpec
    key: str | None
    state: ConditionState
    open_states: dict[str, ConditionState]
    ticks: dict[int, datetime]
    outcomes: dict[tuple[int, str], asyncpg.Record]
    last_events: dict[int, asyncpg.Record]
    too_old: dict[int, int]
    unprocessed: asyncpg.Record | None
    last_run: RunView | None
    collecting_run: str | None
    full_limits: list[str]

    @property
    def overview(self) -> bool:
        """Whether the schedule is partitioned and no partition is in question."""
        schedule = self.spec.schedule
        return schedule is not None and schedule.partitioning is not None and self.key is None


class ReadWhyNot:
    """Queries about schedules that have not fired."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def why_not(self, dag_id: str, partition: str | None = None) -> WhyNot:
        """Return why no run of a DAG starts.

        Args:
            dag_id: The DAG.
            partition: A partition key, for a DAG with a partitioned schedule.

        Raises:
            NotFound: The DAG does not exist.
            InvalidInput: Its schedule has no partitions, or not this one.
        """
        # Counts and states read at different moments would contradict each other.
        async with self._database.search(snapshot=True) as connection:
            dag = await find_dag(connection, dag_id)
            snapshot = await self._read(connection, dag, partition)
            unserved = await describe_unserved(connection, self._specs, dag)
            troubles = await read_troubles(connection, dag, dag_id)
        found = _why_not(snapshot)
        held = [*(Reason(kind="unserved", text=text) for text in unserved), *troubles]
        # Before the last one, which says what the schedule itself waits for.
        return replace(found, reasons=[*found.reasons[:-1], *held, *found.reasons[-1:]])

    async def _read(self, connection: Connection, dag: int, key: str | None) -> ScheduleSnapshot:
        row = await connection.fetchrow(SQL["read_dag_state"], dag)
        if row is None:
            raise InvalidInput("no version of the DAG was ever in force")
        spec = (await self._specs.load(connection, [row["version"]]))[row["version"]]
        schedule = spec.schedule
        if key is not None:
            _check_partition(spec, key)
        places = list(inputs(schedule.condition)) if schedule is not None else []
        state = await _read_state(connection, dag, schedule, key)
        ticks = await connection.fetch(SQL["list_next_ticks"], dag)
        outcomes = await connection.fetch(SQL["count_recent_outcomes"], dag, key)
        return ScheduleSnapshot(
            row,
            spec,
            key,
            state,
            await _open_states(connection, dag, schedule) if key is None else {},
            {tick["slot"]: tick["due_at"] for tick in ticks},
            {(each["input"], each["outcome"]): each for each in outcomes},
            await _last_events(connection, dag, places),
            await _too_old(connection, dag, key or "", places, state),
            await _unprocessed(connection, dag, row["catch_up_from"]),
            await _last_run(connection, dag, key),
            await _run_id(connection, state.collecting_run),
            await describe_full(connection, self._specs, spec.tags) if row["queued"] else [],
        )


def _check_partition(spec: DagSpec, key: str) -> None:
    if spec.schedule is None or spec.schedule.partitioning is None:
        raise InvalidInput(f"DAG {spec.dag_id!r} has no partitions: leave --partition out")
    check_partition(spec.dag_id, spec.schedule, key)


async def _read_state(
    connection: Connection, dag: int, schedule: ScheduleSpec | None, key: str | None
) -> ConditionState:
    if schedule is None:
        return ConditionState([])
    rows = await connection.fetch(SQL["read_condition_states"], [dag], [key or ""])
    return decode_condition_state(rows[0]["state"]) if rows else new_condition_state(schedule, key)


async def _open_states(
    connection: Connection, dag: int, schedule: ScheduleSpec | None
) -> dict[str, ConditionState]:
    if schedule is None or schedule.partitioning is None:
        return {}
    rows = await connection.fetch(SQL["list_open_condition_states"], dag, MAX_OPEN_PARTITIONS)
    return {row["partition_key"]: decode_condition_state(row["state"]) for row in rows}


async def _last_events(
    connection: Connection, dag: int, places: Sequence[DatasetInput]
) -> dict[int, asyncpg.Record]:
    rows = await connection.fetch(
        SQL["read_last_events"],
        dag,
        [each.index for each in places],
        [each.uri for each in places],
        [pattern_expression(each.uri) if each.pattern else None for each in places],
    )
    return {row["input"]: row for row in rows}


async def _too_old(
    connection: Connection,
    dag: int,
    key: str,
    places: Sequence[DatasetInput],
    state: ConditionState,
) -> dict[int, int]:
    limits = {
        each.index: expiry(each.within_seconds, state)
        for each in places
        if each.within_seconds is not None
    }
    expiring = {index: limit for index, limit in limits.items() if limit > 0}
    if not expiring:
        return {}
    times = [datetime.fromtimestamp(limit, UTC) for limit in expiring.values()]
    rows = await connection.fetch(SQL["count_expired_events"], dag, key, list(expiring), times)
    return {row["input"]: row["events"] for row in rows}


async def _unprocessed(
    connection: Connection, dag: int, catch_up_from: int | None
) -> asyncpg.Record | None:
    if catch_up_from is None:
        return None
    return await connection.fetchrow(
        SQL["count_unprocessed_events"], dag, catch_up_from, MAX_UNPROCESSED_EVENTS
    )


async def _last_run(connection: Connection, dag: int, key: str | None) -> RunView | None:
    run = await connection.fetchval(SQL["find_last_run"], dag, key)
    return None if run is None else (await read_runs(connection, [run]))[0].view


async def _run_id(connection: Connection, run: int) -> str | None:
    run_id = await connection.fetchval(SQL["read_run_id"], run) if run else None
    return None if run_id is None else str(run_id)


def _why_not(snapshot: ScheduleSnapshot) -> WhyNot:
    schedule, dag = snapshot.spec.schedule, snapshot.dag
    unprocessed = snapshot.unprocessed
    clause = None
    if schedule is not None and not snapshot.overview:
        clause = as_clause(schedule.condition, snapshot.state, snapshot.ticks)
    # Those that wait longest come first; only some are shown.
    waiting = sorted(_partitions(snapshot), key=lambda each: each.since or _FAR_FUTURE)
    return WhyNot(
        dag_id=dag["dag_id"],
        schedule=describe_schedule(schedule) or None,
        partition=snapshot.key,
        paused=dag["paused"],
        active_runs=dag["active"],
        queued_runs=dag["queued"],
        max_active_runs=snapshot.spec.max_active_runs,
        reasons=_reasons(snapshot),
        condition=clause,
        inputs=[]
        if schedule is None
        else [_input(snapshot, schedule, each) for each in inputs(schedule.condition)],
        partitions=waiting[:SHOWN_PARTITIONS],
        open_partitions=len(snapshot.open_states),
        held_back=unprocessed["events"] if unprocessed is not None else 0,
        held_back_since=unprocessed["since"] if unprocessed is not None else None,
        next_tick=min(snapshot.ticks.values(), default=None),
        last_run=snapshot.last_run,
        collecting_run=snapshot.collecting_run,
    )


def _partitions(snapshot: ScheduleSnapshot) -> list[WaitingPartition]:
    schedule = snapshot.spec.schedule
    if schedule is None:
        return []
    return [
        WaitingPartition(
            partition=key,
            pending=sum(each.count for each in state.inputs),
            waits_for=_partition_waits(schedule, state, key),
            since=_oldest(state),
        )
        for key, state in snapshot.open_states.items()
    ]


def _partition_waits(schedule: ScheduleSpec, state: ConditionState, key: str) -> str:
    if state.collecting_run:
        return "a run collects its events"
    if has_run(schedule, state):
        return "nothing: it has run"
    return still_needed(schedule, state, key)


def _oldest(state: ConditionState) -> datetime | None:
    return moment(min((each.since for each in state.inputs if each.count), default=0.0))


def _input(
    snapshot: ScheduleSnapshot, schedule: ScheduleSpec, dataset: DatasetInput
) -> WaitingInput:
    index, state = dataset.index, snapshot.state
    pending, last = state.inputs[index], snapshot.last_events.get(index)
    window = parts(schedule, dataset, state, snapshot.key or "")
    holds = not snapshot.overview and satisfied_inputs(dataset, state) is not None
    lacking = dataset.at_least - usable_events(dataset, state)
    count, since = pending.count, pending.since
    if snapshot.overview:
        states = [each.inputs[index] for each in snapshot.open_states.values()]
        count = sum(each.count for each in states)
        since = min((each.since for each in states if each.count), default=0.0)
    outcomes = {
        outcome: row for (number, outcome), row in snapshot.outcomes.items() if number == index
    }
    return WaitingInput(
        place=index,
        dataset=dataset.uri,
        pattern=dataset.pattern,
        where=dataset.where,
        holds=holds,
        pending=count,
        at_least=dataset.at_least,
        missing=window.wanted - window.there if window is not None else lacking,
        within_seconds=dataset.within_seconds,
        too_old=snapshot.too_old.get(index, 0),
        parts=window,
        reachable=pending.required_keys != UNREACHABLE,
        waiting_since=moment(since),
        last_event_id=None if last is None else str(last["event_id"]),
        last_event_at=None if last is None else last["recorded_at"],
        last_reason=_last_reason(outcomes),
        filtered=_count(outcomes, "filtered"),
        expired=_count(outcomes, "expired"),
        skipped=_count(outcomes, "skipped"),
    )


def _count(outcomes: Mapping[str, asyncpg.Record], outcome: str) -> int:
    return outcomes[outcome]["events"] if outcome in outcomes else 0


def _last_reason(outcomes: Mapping[str, asyncpg.Record]) -> str | None:
    last = max(outcomes.values(), key=lambda row: row["last"], default=None)
    return None if last is None else last["reason"]


def _reasons(snapshot: ScheduleSnapshot) -> list[Reason]:
    """Return why no run starts, the most basic reason first."""
    dag, schedule = snapshot.dag, snapshot.spec.schedule
    reasons = []
    if not dag["present"]:
        reasons.append(Reason(kind="gone", text="no DAG file defines it any more"))
    elif dag["missing_since"] is not None:
        text = f"no DAG file defines it since {dag['missing_since']:%Y-%m-%d %H:%M} UTC"
        reasons.append(Reason(kind="missing", text=f"{text}: its events and ticks wait"))
    elif dag["error"] is not None:
        text = "its file cannot be imported; the last good version stays in force"
        reasons.append(Reason(kind="broken", text=text))
    if dag["paused"]:
        reasons.append(Reason(kind="paused", text=_paused(snapshot)))
    elif snapshot.unprocessed is not None:
        reasons.append(Reason(kind="behind", text="it is catching up with past events"))
    if dag["queued"]:
        count, most = dag["queued"], snapshot.spec.max_active_runs
        text = f"{count} run{'s are' if count > 1 else ' is'} queued: {dag['active']} active"
        text = ", ".join([text, f"max_active_runs={most}", *snapshot.full_limits])
        reasons.append(Reason(kind="capped", text=text))
    if schedule is None:
        text = "it has no schedule: it runs only when triggered"
        reasons.append(Reason(kind="unscheduled", text=text))
    else:
        reasons.extend(_open_reasons(snapshot, schedule))
    return reasons


def _paused(snapshot: ScheduleSnapshot) -> str:
    if snapshot.unprocessed is None:
        drops = snapshot.spec.on_pause == "drop"
        return "it is paused" + ("; events are skipped meanwhile" if drops else "")
    count = snapshot.unprocessed["events"]
    more = "at least " if count == MAX_UNPROCESSED_EVENTS else ""
    return f"it is paused; {more}{count} event{'s wait' if count > 1 else ' waits'} until it is not"


def _open_reasons(snapshot: ScheduleSnapshot, schedule: ScheduleSpec) -> list[Reason]:
    state = snapshot.state
    if snapshot.overview:
        text = "nothing is pending in any partition"
        if snapshot.open_states:
            count = len(snapshot.open_states)
            more = "at least " if count == MAX_OPEN_PARTITIONS else ""
            plural = "s wait" if count != 1 else " waits"
            text = f"{more}{count} partition{plural}; name one to see what it waits for"
        return [Reason(kind="waiting", text=text)]
    if snapshot.key is not None and has_run(schedule, state):
        text = f"partition {snapshot.key} has run; later events are skipped"
        return [Reason(kind="done", text=f'{text} unless their extra says "rerun": true')]
    reasons = [collecting(schedule.policy, state)] if state.collecting_run else []
    clause = as_clause(schedule.condition, state, snapshot.ticks)
    text = f"it waits for {still_needed(schedule, state, snapshot.key or '')}"
    return [*reasons, Reason(kind="waiting", text=text, until=clause.due_by_itself())]
