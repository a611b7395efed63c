"""Looks into the past: replays of events, backfills of ticks and partitions."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.ledger import CellWork, GateWork, Ledger, LoggedEvent, Start
from pubsubflow.manager.numbers import Numbers
from pubsubflow.manager.scheduling import WHOLE, Scheduling, cell_keys, tick_key
from pubsubflow.model.calls import Backfill, Planned, Replay
from pubsubflow.model.cells import new_cell
from pubsubflow.model.conditions import ticks
from pubsubflow.model.params import validate_params
from pubsubflow.model.timetable import next_tick
from pubsubflow.store.fold import FoldTransaction, Row

MOST_EVENTS = 50_000
MOST_RUNS = 10_000
MOMENT = timedelta(microseconds=1)

ReadEvents = Callable[[Sequence[Row]], Awaitable[list[LoggedEvent]]]


class Past:
    """Works on one locked gate; what it makes is admitted like any other run."""

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        numbers: Numbers,
        scheduling: Scheduling,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._numbers = numbers
        self._scheduling = scheduling

    async def replay(self, gate: GateWork, call: Replay, read: ReadEvents) -> list[Planned]:
        """Decide about a DAG's past events once more, from nothing pending.

        Raises:
            InvalidInput: The DAG subscribes to nothing, or the range holds too many events.
        """
        if gate.version.schedule is None or not gate.version.inputs:
            raise InvalidInput(f"DAG {gate.version.spec.dag_id!r} subscribes to no dataset")
        rows = await self._transaction.fetch(
            "read_recorded", gate.dag, call.since, call.until, call.dataset, MOST_EVENTS + 1
        )
        if len(rows) > MOST_EVENTS:
            raise InvalidInput(f"more than {MOST_EVENTS} events: choose a shorter time")
        events = await read(rows)
        await self._numbers.reserve(self._transaction, 2 * len(events) + 1)
        starts = self._rehearse(gate, events)
        return await self._settle(gate, starts, again=call.again, dry_run=call.dry_run)

    def _rehearse(self, gate: GateWork, events: Iterable[LoggedEvent]) -> list[Start]:
        """Return the runs that the events would make in a gate where nothing is pending."""
        rehearsal = Ledger(self._ledger.now)
        scheduling = self._scheduling.elsewhere(rehearsal)
        empty = gate.empty()
        for event in events:
            try:
                keys = cell_keys(empty, event)
            except InvalidInput:
                continue
            for key in keys:
                if key not in empty.cells and gate.version.schedule is not None:
                    empty.cells[key] = CellWork(key, new_cell(gate.version.schedule, key or None))
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
        for key in call.partitions:
            start = self._start(gate, f"partition:{key}:1", f"backfill of partition {key}")
            start.partition = key
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
        keys = [start.run_key for start in starts]
        rows = await self._transaction.fetch("find_run_keys", [gate.dag] * len(keys), keys)
        existing = {row["run_key"]: str(row["run_id"]) for row in rows}
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
        self._scheduling.begin(start)
