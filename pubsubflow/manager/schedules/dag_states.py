"""Works on the gates of DAGs: locks them, lets events, ticks and requests through."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.inbox import Item
from pubsubflow.manager.persistence.load_states import Cells
from pubsubflow.manager.persistence.run_ids import Numbers
from pubsubflow.manager.runs.clearing import Clearing, again_of
from pubsubflow.manager.runs.event_waits import note_events
from pubsubflow.manager.runs.lifecycle import Running
from pubsubflow.manager.runs.waits import WAIT_TIMERS
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.cell_keys import WHOLE, event_cells
from pubsubflow.manager.schedules.commands import NAMED, Requests
from pubsubflow.manager.schedules.firing import Scheduling, find_tick, tick_key
from pubsubflow.manager.schedules.redrive import find_letter
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import GateWork, Ledger, LoggedEvent, RunWork
from pubsubflow.model.schedule.conditions import Latest
from pubsubflow.model.wire.commands import (
    CancelRun,
    Resend,
    Timer,
    TimersDue,
)
from pubsubflow.store.manager_transaction import FoldTransaction, Row

MAX_ROUNDS = 1000
MAX_NEW_RUNS = 100_000
_TIMED = ("tick", "late", "flush", "subscribe")


class Gates:
    """The scheduling half of one batch."""

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        numbers: Numbers,
        *,
        scheduling: Scheduling,
        running: Running,
        admission: Admission,
        clearing: Clearing,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._cells = Cells(ledger, transaction)
        self._versions = versions
        self._numbers = numbers
        self._scheduling = scheduling
        self._running = running
        self._admission = admission
        self._clearing = clearing
        self._requests = Requests(
            ledger,
            transaction,
            versions,
            numbers,
            cells=self._cells,
            scheduling=scheduling,
            admission=admission,
        )
        self._subscribers: dict[str, list[GateWork]] = {}
        self._matching: list[GateWork] = []
        self._counted: set[int] = set()
        self._passing: list[tuple[LoggedEvent, list[GateWork]]] = []
        self._touched = 0

    async def settle(self, items: Sequence[Item]) -> None:
        """Carry out the batch's calls and events, and all that follows from them here."""
        timers = await self._due(items)
        named = await self._find_dags(items)
        dags = {row["id"] for row in named.values()}
        dags.update(self._clearing.dags)
        dags.update(timer.dag for timer in timers if timer.dag is not None)
        dags.update(
            item.answer["dag"]
            for item in items
            if isinstance(item.what, CancelRun) and item.answer is not None
        )
        for item in items:
            if isinstance(item.what, Resend):
                item.answer = await find_letter(item, item.what, self._transaction)
                if item.answer is not None and item.answer["dag"] is not None:
                    dags.add(item.answer["dag"])
        await self._round(dags)
        await self._requests.carry_out(items, named)
        await self._clearing.reopen()
        await self._act_on(timers)
        for _ in range(MAX_ROUNDS):
            await self._pass_events()
            await self._admission.admit()
            await self._count_ended()
            await self._fill()
            if not self._ledger.events and not self._uncounted() and not self._admission.waiting:
                return
            if len(self._ledger.starts) > MAX_NEW_RUNS:
                break
            await self._round(set())
        last = list(self._ledger.starts.values())[-100:]
        names = sorted({start.gate.version.spec.dag_id for start in last})
        raise InvalidInput(
            f"DAGs set each other off without end: {', '.join(names)}; "
            "break the circle of their datasets"
        )

    async def _due(self, items: Sequence[Item]) -> list[Timer]:
        """Take the due timers that nobody else took; act on those of runs, return the others."""
        asked = {
            timer.number: timer
            for item in items
            if isinstance(item.what, TimersDue)
            for timer in item.what.timers
        }
        if not asked:
            return []
        rows = await self._transaction.fetch("take_timers", sorted(asked))
        taken = {row["id"] for row in rows}
        timers = [timer for number, timer in asked.items() if number in taken]
        for timer in timers:
            if timer.kind == "retry":
                self._running.retry_due(timer)
            elif timer.kind == "run_timeout":
                self._running.run_late(timer)
            elif timer.kind in WAIT_TIMERS:
                self._running.deferring.due(timer)
        return [timer for timer in timers if timer.kind in _TIMED]

    async def _find_dags(self, items: Sequence[Item]) -> dict[str, Row]:
        names = {item.what.dag_id for item in items if isinstance(item.what, NAMED)}
        if not names:
            return {}
        rows = await self._transaction.fetch("find_dags", sorted(names))
        return {row["dag_id"]: row for row in rows if row["version"]}

    async def _round(self, dags: set[int]) -> None:
        """Lock the gates that the waiting events and ended runs concern; number the events."""
        ledger = self._ledger
        uris = {event.info.dataset for event in ledger.events}
        ledger.datasets.update(
            await self._versions.dataset_ids(self._transaction, uris - ledger.datasets.keys())
        )
        dags = dags | {run.version.dag for run in self._uncounted()}
        datasets = sorted(ledger.datasets[uri] for uri in uris)
        wanted = sorted(dags - ledger.gates.keys())
        if datasets or wanted:
            rows = await self._transaction.fetch("lock_gates", datasets, wanted)
            await self._versions.load(self._transaction, (row["version"] for row in rows))
            for row in rows:
                if row["dag"] not in ledger.gates:
                    self._add(GateWork(dict(row), self._versions.get(row["version"])))
        if ledger.events:
            await self._number(ledger.events, datasets)

    async def _number(self, events: Sequence[LoggedEvent], datasets: Sequence[int]) -> None:
        """Give the events their places in the log, and take in the cells that they touch."""
        self._passing = [(event, self._concerned(event)) for event in events]
        asked = [
            (gate, key)
            for event, gates in self._passing
            for gate in gates
            for key in event_cells(gate, event)
        ]
        self._touched = len(asked)
        numbers, rows, awaited = await self._transaction.number_events(
            len(events), self._cells.missing(asked), datasets
        )
        await self._cells.take_in(rows)
        for event, number in zip(events, numbers, strict=True):
            event.number = number
        if awaited:
            await note_events(events, datasets, self._ledger, self._transaction)

    def _add(self, gate: GateWork) -> None:
        self._ledger.gates[gate.dag] = gate
        if not gate.present:
            return
        for uri in gate.version.exact:
            self._subscribers.setdefault(uri, []).append(gate)
        if gate.version.patterns:
            self._matching.append(gate)

    def _concerned(self, event: LoggedEvent) -> list[GateWork]:
        """Return the locked gates whose DAGs subscribe to an event's dataset."""
        uri = event.info.dataset
        exact = self._subscribers.get(uri, [])
        if not self._matching:
            return exact
        return exact + [
            gate
            for gate in self._matching
            if uri not in gate.version.exact and gate.version.places(uri)
        ]

    async def _act_on(self, timers: Sequence[Timer]) -> None:
        """Act on the timers of DAGs."""
        for timer in timers:
            gate = self._ledger.gates.get(timer.dag or 0)
            if gate is None or not gate.present:
                continue  # if the DAG comes back, it gets its timers anew
            await self._numbers.reserve(self._transaction, 1)
            if timer.kind == "tick":
                await self._tick(gate, timer)
            elif timer.kind == "subscribe":
                await self._transaction.fetch("await_events_under_way")
                if not gate.paused:
                    await self._requests.catch_up(gate)
            else:
                await self._cells.load([(gate, timer.cell or WHOLE)])
                if (timer.cell or WHOLE) not in gate.cells:
                    continue
                cell = gate.cells[timer.cell or WHOLE]
                if timer.kind == "late":
                    self._scheduling.late(gate, cell, timer.node or 0)
                else:
                    self._scheduling.flush_due(gate, cell)

    async def _tick(self, gate: GateWork, timer: Timer) -> None:
        moment = self._scheduling.tick(gate, timer)
        part = find_tick(gate, timer.node or 0)
        if moment is None or part is None:
            return
        schedule = gate.version.schedule
        if schedule is not None and schedule.partitioning is not None:
            cells = await self._cells.open_of(gate)
        else:
            await self._cells.load([(gate, WHOLE)])
            cells = [self._scheduling.cell(gate, WHOLE)]
        await self._numbers.reserve(self._transaction, len(cells))
        keys = [tick_key(part.slot, moment, cell.key) for cell in cells]
        exist = await self._admission.existing(gate, keys)
        for cell, key in zip(cells, keys, strict=True):
            if key not in exist:
                self._scheduling.ticked(gate, cell, part.slot, moment)

    async def _pass_events(self) -> None:
        passing, self._passing = self._passing, []
        self._ledger.events = []
        await self._numbers.reserve(self._transaction, self._touched)
        self._touched = 0
        for event, gates in passing:
            for gate in gates:
                self._scheduling.event(gate, event)
            self._ledger.logged.append(event)

    def _uncounted(self) -> list[RunWork]:
        return [
            run
            for run in self._ledger.runs.values()
            if run.outcome is not None and run.number not in self._counted
        ]

    async def _count_ended(self) -> None:
        """Give back the slots of runs that ended, as far as their gates are locked."""
        for run in self._uncounted():
            gate = self._ledger.gates.get(run.version.dag)
            if gate is None:
                continue
            self._counted.add(run.number)
            gate.active -= 1
            gate.changed = True
            await self._next_of_latest(gate)
        for gate in self._admission.take_refused():
            await self._next_of_latest(gate)

    async def _next_of_latest(self, gate: GateWork) -> None:
        """Start the run that collected events while another one was active."""
        schedule = gate.version.schedule
        if schedule is None or not isinstance(schedule.policy, Latest):
            return
        if gate.busy or gate.paused or not gate.present:
            return
        for cell in await self._cells.open_of(gate):
            if cell.cell.forming:
                self._scheduling.flush(gate, cell)
                return

    async def _fill(self) -> None:
        """Start runs in line where there is room."""
        for gate in self._ledger.gates.values():
            room = gate.version.spec.max_active_runs - gate.active
            if room <= 0 or not gate.queued:
                continue
            rows = await self._transaction.fetch("take_queued_runs", gate.dag, room)
            if rows:
                await self._versions.load(self._transaction, (row["version"] for row in rows))
                await self._transaction.fetch("start_runs", [row["run"] for row in rows])
            for row in rows:
                gate.active += 1
                gate.queued -= 1
                gate.changed = True
                version = self._versions.get(row["version"])
                if row["progress"] is None:
                    self._running.start(row["run"], version, row["info"])
                else:
                    again = again_of(row["progress"])
                    self._running.resume(row["run"], version, row["info"], *again)
            self._admission.start_queued(gate)
