"""Looks into the past: replays of events, backfills of ticks and partitions."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.inbox import check_key
from pubsubflow.manager.persistence.load_events import ReadEvents
from pubsubflow.manager.persistence.run_ids import Numbers
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.cell_keys import WHOLE, cell_keys
from pubsubflow.manager.schedules.firing import Scheduling, tick_key
from pubsubflow.manager.unit_of_work import GateWork, Ledger, LoggedEvent, Start
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.schedule.conditions import ticks
from pubsubflow.model.schedule.timetable import next_tick
from pubsubflow.model.wire.commands import Backfill, Planned, Replay
from pubsubflow.store.manager_transaction import FoldTransaction

MOST_EVENTS = 50_000
MOST_RUNS = 10_000
MOMENT = timedelta(microseconds=1)
LAST = 2**62
LoadCells = Callable[[Iterable[tuple[GateWork, str]]], Awaitable[None]]


class Past:
    """Works on one locked gate; what it makes is admitted like any other run.

    Args:
        ledger: What the transaction changes.
        transaction: Reads the past.
        numbers: Run numbers.
        scheduling: Makes runs.
        admission: Knows which exist.
        read_events: Turns rows into events.
        load_cells: Makes cells of gates available.
    """

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        numbers: Numbers,
        *,
        scheduling: Scheduling,
        admission: Admission,
        read_events: ReadEvents,
        load_cells: LoadCells,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._numbers = numbers
        self._scheduling = scheduling
        self._admission = admission
        self._read_events = read_events
        self._load_cells = load_cells

    async def replay(self, gate: GateWork, call: Replay) -> list[Planned]:
        """Decide about a DAG's past events once more, from nothing pending.

        Those that the DAG has not decided about at all yet, as it is paused, are left to it.

        Raises:
            InvalidInput: The DAG subscribes to nothing, or the range holds too many events.
        """
        if gate.version.schedule is None or not gate.version.inputs:
            raise InvalidInput(f"DAG {gate.version.spec.dag_id!r} subscribes to no dataset")
        rows = await self._transaction.fetch(
            "read_recorded",
            gate.dag,
            call.since,
            call.until,
            call.dataset,
            MOST_EVENTS + 1,
            LAST if gate.since is None else gate.since,
        )
        if len(rows) > MOST_EVENTS:
            raise InvalidInput(f"more than {MOST_EVENTS} events: choose a shorter time")
        starts = await self._rehearse(gate, await self._read_events(rows))
        await self._numbers.reserve(self._transaction, len(starts))
        return await self._settle(gate, starts, again=call.again, dry_run=call.dry_run)

    async def _rehearse(self, gate: GateWork, events: Iterable[LoggedEvent]) -> list[Start]:
        """Return the runs that the events would make in a gate where nothing is pending."""
        rehearsal = Ledger(self._ledger.now)
        scheduling = self._scheduling.elsewhere(rehearsal)
        empty = gate.empty()
        for event in events:
            try:
                keys = cell_keys(empty, event)
            except InvalidInput:
                continue
            await self._numbers.reserve(self._transaction, len(keys))
            scheduling.offer(empty, event)
        return [start for start in rehearsal.starts.values() if start.fresh]

    async def backfill(self, gate: GateWork, call: Backfill) -> list[Planned]:
        """Make the runs of past ticks, or of partitions.

        Raises:
            InvalidInput: The DAG has no timetable, the params do not fit, or it would be too many.
        """
        spec = gate.version.spec
        params = validate_params(spec, call.params)
        starts = []
        for key in dict.fromkeys(call.partitions):
            check_key(key)
            start = self._start(gate, f"partition:{key}:1", f"backfill of partition {key}")
            start.partition = key
            if gate.version.schedule is not None and gate.version.schedule.partitioning is not None:
                start.cell, start.round = key, 1
            starts.append(start)
        if not call.partitions:
            starts = [
                self._start(
                    gate, tick_key(slot, moment), f"backfill of {moment.isoformat()}", moment
                )
                for slot, moment in self._moments(gate, call)
            ]
        for start in starts:
            start.params = params
        await self._numbers.reserve(self._transaction, len(starts))
        return await self._settle(gate, starts, again=call.again, dry_run=call.dry_run)

    def _start(
        self, gate: GateWork, run_key: str, cause: str, moment: datetime | None = None
    ) -> Start:
        return self._scheduling.make(gate, WHOLE, run_key, "backfill", cause, logical_time=moment)

    def _moments(self, gate: GateWork, call: Backfill) -> list[tuple[int, datetime]]:
        schedule, spec = gate.version.schedule, gate.version.spec
        timed = list(ticks(schedule.condition)) if schedule is not None else []
        if not timed or call.since is None:
            raise InvalidInput(
                f"DAG {spec.dag_id!r} has no Cron or Every, or no --from was given: "
                "name the partitions instead"
            )
        until = min(call.until or self._ledger.now, self._ledger.now)
        found = []
        for part in timed:
            moment = next_tick(part.timetable, call.since - MOMENT, spec.start, spec.end)
            while moment is not None and moment < until:
                found.append((part.slot, moment))
                if len(found) > MOST_RUNS:
                    raise InvalidInput(f"more than {MOST_RUNS} runs: choose a shorter time")
                moment = next_tick(part.timetable, moment, spec.start, spec.end)
        return found

    async def _settle(
        self, gate: GateWork, starts: Sequence[Start], *, again: bool, dry_run: bool
    ) -> list[Planned]:
        """Begin the runs that do not exist yet; return all, as they are or would be."""
        existing = await self._admission.existing(gate, [start.run_key for start in starts])
        await self._load_cells((gate, start.cell) for start in starts)
        planned = []
        for start in starts:
            known = existing.get(start.run_key)
            make = known is None or again
            if known is not None and again:
                start.run_key = f"{start.run_key}:again:{start.run_id}"
            if make and not dry_run:
                self._begin(start, gate)
            run_id = str(start.run_id) if make and not dry_run else known
            events = tuple(str(event.event_id) for event, _ in start.fresh)
            planned.append(
                Planned(
                    start.run_key,
                    run_id,
                    known is not None and not again,
                    start.logical_time,
                    start.partition,
                    events,
                )
            )
        return planned

    def _begin(self, start: Start, gate: GateWork) -> None:
        start.gate = gate
        start.forming = False
        if start.kind == "dataset":
            start.kind = "replay"
            start.cause = f"replay: {start.cause}"
        if start.cell:
            cell = self._scheduling.cell(gate, start.cell)
            if start.kind == "backfill" and cell.cell.fired < start.round:
                self._scheduling.take_pending(gate, cell, start)
            cell.cell.fired = max(cell.cell.fired, start.round)
            cell.cell.rounds = max(cell.cell.rounds, cell.cell.fired)
            cell.changed = True
        self._scheduling.begin(start)
