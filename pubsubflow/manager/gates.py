"""Works on the gates of DAGs: locks them, lets events, ticks and requests through, fills slots."""

from collections.abc import Callable, Sequence
from uuid import UUID

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inputs import Item, check_key
from pubsubflow.manager.ledger import GateWork, Ledger, LoggedEvent, RunWork
from pubsubflow.manager.numbers import Numbers
from pubsubflow.manager.running import Running
from pubsubflow.manager.scheduling import INLINE_EVENTS, Scheduling, tick_key
from pubsubflow.manager.versions import Versions
from pubsubflow.model.calls import CancelRun, SetPaused, StartRun, Timer, TimersDue
from pubsubflow.model.messages import EventInfo
from pubsubflow.model.states import RunState
from pubsubflow.store.database import printable
from pubsubflow.store.fold import FoldTransaction, Row

MAX_ROUNDS = 1000
MAX_NEW_RUNS = 100_000


class Gates:
    """The scheduling half of one batch."""

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        numbers: Numbers,
        scheduling: Scheduling,
        *,
        new_id: Callable[[], UUID],
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._versions = versions
        self._numbers = numbers
        self._scheduling = scheduling
        self._new_id = new_id
        self._subscribers: dict[str, list[GateWork]] = {}
        self._counted: set[int] = set()

    async def settle(self, items: Sequence[Item], running: Running) -> None:
        """Carry out the batch's calls and events, and all that follows from them here."""
        timers = await self._due(items, running)
        named = await self._find_dags(items)
        dags = {row["id"] for row in named.values()}
        dags.update(timer.dag for timer in timers if timer.dag is not None)
        dags.update(
            item.answer["dag"]
            for item in items
            if isinstance(item.what, CancelRun) and item.answer is not None
        )
        await self._round(dags)
        await self._call(items, named, [t for t in timers if t.kind == "tick"])
        for _ in range(MAX_ROUNDS):
            await self._pass_events()
            await self._open_runs()
            self._count_ended()
            await self._fill()
            if not self._ledger.events and not self._uncounted():
                return
            if len(self._ledger.new_runs) > MAX_NEW_RUNS:
                break
            await self._round(set())
        names = sorted({run.version.spec.dag_id for run in self._ledger.new_runs[-100:]})
        raise InvalidInput(
            f"DAGs set each other off without end: {', '.join(names)}; "
            "break the circle of their datasets"
        )

    async def _due(self, items: Sequence[Item], running: Running) -> list[Timer]:
        """Take the due timers that nobody else took; act on those of runs."""
        asked = {
            timer.number: timer
            for item in items
            if isinstance(item.what, TimersDue)
            for timer in item.what.timers
        }
        if not asked:
            return []
        rows = await self._transaction.fetch("take_timers", sorted(asked))
        timers = [asked[row["id"]] for row in rows]
        for timer in timers:
            if timer.kind == "retry":
                running.retry_due(timer)
            elif timer.kind == "run_timeout":
                running.run_late(timer)
        return timers

    async def _find_dags(self, items: Sequence[Item]) -> dict[str, Row]:
        calls = [item for item in items if isinstance(item.what, StartRun | SetPaused)]
        names = {item.what.dag_id for item in calls if isinstance(item.what, StartRun | SetPaused)}
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
                    self._add(GateWork(row, self._versions.get(row["version"])))
        if ledger.events:
            numbers = await self._transaction.take_event_ids(len(ledger.events))
            for event, number in zip(ledger.events, sorted(numbers), strict=True):
                event.number = number

    def _add(self, gate: GateWork) -> None:
        self._ledger.gates[gate.dag] = gate
        for uri in gate.version.places if gate.present else ():
            self._subscribers.setdefault(uri, []).append(gate)

    async def _call(
        self, items: Sequence[Item], named: dict[str, Row], ticks: Sequence[Timer]
    ) -> None:
        """Carry out pauses, requests, cancellations of queued runs, and ticks."""
        for item in items:
            what = item.what
            if isinstance(what, StartRun | SetPaused):
                row = named.get(what.dag_id)
                if row is None:
                    item.error = NotFound("DAG", what.dag_id)
                elif isinstance(what, StartRun):
                    await self._start(item, what, self._ledger.gates[row["id"]])
                else:
                    await self._pause(self._ledger.gates[row["id"]], paused=what.paused)
            elif isinstance(what, CancelRun) and item.answer is not None:
                await self._unqueue(item, what)
        for timer in ticks:
            gate = self._ledger.gates.get(timer.dag or 0)
            tick = self._scheduling.tick(gate, timer) if gate is not None else None
            if gate is None or tick is None or await self._known(gate, tick_key(tick)):
                continue
            await self._numbers.reserve(self._transaction, 1)
            self._scheduling.ticked(gate, tick)

    async def _start(self, item: Item, what: StartRun, gate: GateWork) -> None:
        item.ids = item.ids or [self._new_id()]
        key = what.run_key or f"manual:{item.ids[0]}"
        if what.run_key is not None or item.tried:
            item.answer = await self._known(gate, key)
            if item.answer is not None:
                return
        await self._numbers.reserve(self._transaction, 1)
        try:
            check_key(what.run_key)
            item.answer = str(self._scheduling.asked(gate, what, key).run_id)
        except InvalidInput as error:
            item.error = error

    async def _known(self, gate: GateWork, run_key: str) -> str | None:
        """Return the run that has a key already, made in this batch or before."""
        for run in self._ledger.new_runs:
            if run.run_key == run_key and run.version.dag == gate.dag:
                return str(run.run_id)
        rows = await self._transaction.fetch("find_run_keys", [gate.dag], [run_key])
        return str(rows[0]["run_id"]) if rows else None

    async def _pause(self, gate: GateWork, *, paused: bool) -> None:
        if gate.paused == paused:
            return
        gate.paused = paused
        await self._transaction.fetch("set_paused", gate.dag, paused)
        if not paused and any(gate.stored):
            await self._catch_up(gate)

    async def _catch_up(self, gate: GateWork) -> None:
        """Decide about the events that a paused DAG held, one by one, as if they came now.

        What a place had consumed before the pause stays consumed there.
        """
        rows = await self._transaction.fetch("read_pending", gate.dag)
        await self._transaction.fetch("drop_pending", gate.dag)
        gate.stored = [0] * len(gate.stored)
        gate.changed = True
        await self._numbers.reserve(self._transaction, len(rows))
        for row in rows:
            event = LoggedEvent(row["event_id"], await self._info(row), number=row["id"])
            self._scheduling.offer(gate, event, row["places"])

    async def _unqueue(self, item: Item, what: CancelRun) -> None:
        """Cancel a run that is still in line."""
        number = item.answer["id"]
        if number in self._ledger.runs:
            return
        if not await self._transaction.fetch("unqueue_run", number):
            item.error = InvalidInput(f"run {what.run_id} is just changing; ask again")
            return
        gate = self._ledger.gates[item.answer["dag"]]
        gate.queued -= 1
        gate.changed = True
        reason = printable(what.reason)
        await self._transaction.fetch("close_runs", [number], ["cancelled"], [reason])

    async def _pass_events(self) -> None:
        events, self._ledger.events = self._ledger.events, []
        fan_out = sum(len(self._subscribers.get(event.info.dataset, ())) for event in events)
        await self._numbers.reserve(self._transaction, fan_out)
        for event in events:
            for gate in self._subscribers.get(event.info.dataset, ()):
                self._scheduling.event(gate, event)
        self._ledger.logged.extend(events)

    async def _open_runs(self) -> None:
        """Complete the runs made in this round with what they consumed."""
        made = [run for run in self._ledger.new_runs if not run.info]
        drained = [
            (run.version.dag, place, run.number)
            for run in made
            if run.drained_count <= INLINE_EVENTS
            for place in run.drained
        ]
        stored: dict[int, dict[UUID, EventInfo]] = {}
        for row in await self._transaction.fetch_rows("read_consumable", drained):
            found = stored.setdefault(row["consumer"], {})
            found[row["event_id"]] = await self._info(row)
        for run in made:
            known = run.drained_count <= INLINE_EVENTS
            self._scheduling.open(run, list(stored.get(run.number, {}).values()) if known else None)

    async def _info(self, row: Row) -> EventInfo:
        task_id = None
        if row["node"] is not None and row["version"] is not None:
            await self._versions.load(self._transaction, [row["version"]])
            task_id = self._versions.get(row["version"]).spec.tasks[row["node"]].task_id
        return EventInfo(
            str(row["event_id"]),
            row["uri"],
            row["extra"],
            row["partition"],
            row["time"],
            row["source"],
            None if row["run_id"] is None else str(row["run_id"]),
            row["dag_id"],
            task_id,
        )

    def _uncounted(self) -> list[RunWork]:
        return [
            run
            for run in self._ledger.runs.values()
            if run.outcome is not None and run.number not in self._counted
        ]

    def _count_ended(self) -> None:
        """Give back the slots of runs that ended, as far as their gates are locked."""
        for run in self._uncounted():
            gate = self._ledger.gates.get(run.version.dag)
            if gate is not None:
                self._counted.add(run.number)
                gate.active -= 1
                gate.changed = True

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
                self._scheduling.start(row["run"], version, row["info"])
            self._start_new(gate)

    def _start_new(self, gate: GateWork) -> None:
        """Start runs that were made in this batch and are not in line in the store yet."""
        for run in self._ledger.new_runs:
            if gate.active >= gate.version.spec.max_active_runs or not gate.queued:
                return
            if run.version.dag == gate.dag and run.state is RunState.QUEUED:
                run.state = RunState.RUNNING
                gate.active += 1
                gate.queued -= 1
                self._scheduling.start(run.number, run.version, run.info)
