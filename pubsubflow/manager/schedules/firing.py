"""Folds events, ticks and deadlines into runs; decides by `model`, reads and writes nothing."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from uuid import UUID

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.schedules.cell_keys import WHOLE, cell_keys
from pubsubflow.manager.schedules.consuming import Consuming
from pubsubflow.manager.unit_of_work import CellWork, GateWork, Ledger, LoggedEvent, Start
from pubsubflow.model.expressions import holds
from pubsubflow.model.schedule.condition_state import (
    Firing,
    add,
    collected_at,
    deadline_due,
    decide,
    new_cell,
    pending_in,
    set_deadlines,
    take,
)
from pubsubflow.model.schedule.conditions import (
    Batch,
    Debounce,
    Input,
    Latest,
    OrAfter,
    Tick,
    deadlines,
    ticks,
)
from pubsubflow.model.schedule.timetable import next_tick
from pubsubflow.model.wire.commands import Timer

RERUN = "rerun"
INSTANT = 1e-6


class Scheduling:
    """Decides which runs exist; all gates it is given are locked, their cells loaded."""

    def __init__(
        self, ledger: Ledger, *, new_id: Callable[[], UUID], take_number: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._places = Consuming(ledger)
        self._new_id = new_id
        self._take_number = take_number
        self._now = ledger.now.timestamp()

    def elsewhere(self, ledger: Ledger) -> "Scheduling":
        """Return one like it that works on another ledger."""
        return Scheduling(ledger, new_id=self._new_id, take_number=self._take_number)

    def event(self, gate: GateWork, event: LoggedEvent) -> None:
        """Let one event through a gate whose DAG subscribes to its dataset."""
        if gate.since is not None:
            return  # it comes with all the others when the DAG catches up
        if not gate.paused:
            self.offer(gate, event)
        elif gate.version.spec.on_pause == "hold":
            gate.since = event.number
            gate.changed = True
        else:
            for place in gate.version.places(event.info.dataset):
                self._places.fate(gate, event, place.place, WHOLE, "skipped", "the DAG was paused")

    def offer(self, gate: GateWork, event: LoggedEvent) -> None:
        """Add one event to the places it matches, and make the runs that then fire."""
        schedule = gate.version.schedule
        if schedule is None:
            return
        try:
            touched = cell_keys(gate, event)
        except InvalidInput as error:
            for place in gate.version.places(event.info.dataset):
                self._places.fate(gate, event, place.place, WHOLE, "skipped", str(error))
            return
        for key, places in touched.items():
            self._offer_cell(gate, self.cell(gate, key), places, event)

    def cell(self, gate: GateWork, key: str) -> CellWork:
        """Return a cell; one that is not stored yet is new."""
        if key not in gate.cells:
            schedule = gate.version.schedule
            if schedule is None:
                raise TypeError("a DAG without a schedule has no cells")
            gate.cells[key] = CellWork(key, new_cell(schedule, key or None))
        return gate.cells[key]

    def _offer_cell(
        self,
        gate: GateWork,
        cell: CellWork,
        places: list[tuple[Input, str]],
        event: LoggedEvent,
    ) -> None:
        schedule = gate.version.schedule
        if schedule is None:
            return
        accepted = self._filtered(gate, cell, places, event)
        if not accepted:
            return
        if self._done(gate, cell):
            if event.info.extra.get(RERUN) is not True:
                reason = f"partition {cell.key} has run"
                for place, _ in accepted:
                    self._places.fate(gate, event, place.place, cell.key, "skipped", reason)
                return
            cell.cell.rounds = cell.cell.fired + 1
        cell.changed = True
        cell.cell.formed_last = self._now
        for place, own in accepted:
            moment = event.moment(self._ledger.now).timestamp()
            add(cell.cell, (place,), time=moment, now=self._now, key=own)
            cell.fresh[place.place].append(event)
        firing = decide(schedule, cell.cell)
        if firing is not None:
            self._fire(gate, cell, firing, self._start(gate, cell, event))
        self._set_deadlines(gate, cell)

    def _filtered(
        self,
        gate: GateWork,
        cell: CellWork,
        places: list[tuple[Input, str]],
        event: LoggedEvent,
    ) -> list[tuple[Input, str]]:
        """Return the places whose filter an event meets; note why of the others."""
        accepted = []
        for place, own in places:
            refusal = holds(place.where, event.info) if place.where is not None else None
            if refusal is None:
                accepted.append((place, own))
            else:
                self._places.fate(gate, event, place.place, cell.key, "filtered", refusal)
        return accepted

    def _start(self, gate: GateWork, cell: CellWork, event: LoggedEvent) -> Start:
        """Return the run that an event's satisfaction would make."""
        key = f"dataset:{event.event_id}"
        return self._rounded(
            cell,
            self.make(
                gate, cell.key, key, "dataset", f"{event.info.dataset} was updated", event=event
            ),
        )

    @staticmethod
    def _rounded(cell: CellWork, start: Start) -> Start:
        """Let a partition's run be known by its round."""
        if cell.key:
            start.round = cell.cell.fired
            start.run_key = f"partition:{cell.key}:{start.round}"
        return start

    def make(
        self,
        gate: GateWork,
        key: str,
        run_key: str,
        kind: str,
        cause: str,
        *,
        event: LoggedEvent | None = None,
        logical_time: datetime | None = None,
    ) -> Start:
        """Return a run that nobody has asked to start yet; it has no number."""
        partition = key or (event.info.partition if event is not None else None)
        return Start(
            0,
            self._new_id(),
            gate,
            run_key,
            kind,
            cause,
            self._ledger.now,
            cell=key,
            logical_time=logical_time,
            partition=partition,
        )

    def begin(self, start: Start) -> Start:
        """Put a run on its way: it will be admitted at the end of the round."""
        start.number = self._take_number()
        start.gate.coming += 1
        self._ledger.starts[start.number] = start
        return start

    def tick(self, gate: GateWork, timer: Timer) -> datetime | None:
        """A DAG's time has come: set the next tick, and return the one to act on.

        Without catch-up only the latest of several missed ticks counts. None when the DAG has no
        such timetable any more, or is paused.
        """
        part = find_tick(gate, timer.node or 0)
        if part is None:
            return None
        spec = gate.version.spec
        tick, now = timer.due_at, self._ledger.now
        following = next_tick(part.timetable, tick, spec.start, spec.end)
        while following is not None and following <= now and not spec.catchup:
            tick, following = (
                following,
                next_tick(part.timetable, following, spec.start, spec.end),
            )
        if following is not None:
            self._ledger.timers.append(Timer(following, "tick", gate.dag, node=part.slot))
        return None if gate.paused else tick

    def ticked(self, gate: GateWork, cell: CellWork, slot: int, moment: datetime) -> None:
        """Decide about a cell at a tick."""
        schedule = gate.version.schedule
        if schedule is None or self._done(gate, cell):
            return
        cell.changed = True
        cell.cell.watermark = max(cell.cell.watermark, moment.timestamp())
        firing = decide(schedule, cell.cell, ticked=slot)
        if firing is None:
            return
        start = self.make(
            gate,
            cell.key,
            tick_key(slot, moment, cell.key),
            "cron",
            f"its time came: {moment.isoformat()}",
            logical_time=moment,
        )
        self._fire(gate, cell, firing, start)
        self._set_deadlines(gate, cell)

    def late(self, gate: GateWork, cell: CellWork, slot: int) -> None:
        """A timer of a deadline is up: if it has passed, run with what is there, or drop it."""
        schedule = gate.version.schedule
        part = find_deadline(gate, slot)
        if schedule is None or part is None:
            return
        cell.changed = True
        cell.cell.timers[slot] = False
        due = deadline_due(part, cell.cell)
        if gate.paused or cell.cell.late[slot] or due is None or self._done(gate, cell):
            return
        if due <= self._now + INSTANT:
            firing = decide(schedule, cell.cell, late=slot)
            if firing is not None:
                key, cause = f"late:{cell.cell.fired}", "the missing inputs are late"
                start = self.make(gate, cell.key, key, "dataset", cause)
                self._fire(gate, cell, firing, self._rounded(cell, start))
        self._set_deadlines(gate, cell)

    def take_pending(self, gate: GateWork, cell: CellWork, start: Start) -> None:
        """Give a run that was asked for all that is pending in a cell."""
        schedule = gate.version.schedule
        if schedule is None:
            return
        cell.changed = True
        places = take(cell.cell, pending_in(schedule.condition, cell.cell))
        self._places.consume(gate, cell, places, start)
        self._set_deadlines(gate, cell)

    def flush_due(self, gate: GateWork, cell: CellWork) -> None:
        """A run that collects may have waited long enough: if so, let it start."""
        schedule = gate.version.schedule
        if gate.paused or not cell.cell.forming or schedule is None:
            return
        if isinstance(schedule.policy, Latest):
            if not gate.busy:
                self.flush(gate, cell)
            return
        due = collected_at(schedule.policy, cell.cell)
        if due > self._now + INSTANT:
            self._set_flush(gate, cell, due)
        else:
            self.flush(gate, cell)

    def flush(self, gate: GateWork, cell: CellWork) -> None:
        """Let the run that collects events start."""
        start = self._ledger.starts[cell.cell.forming]
        start.forming = False
        gate.coming += 1
        cell.cell.forming = cell.cell.formed = 0
        cell.changed = True

    def resume(self, gate: GateWork, cells: Iterable[CellWork]) -> None:
        """Set the timers of a DAG that was paused anew: some were up meanwhile."""
        for cell in cells:
            cell.changed = True
            cell.cell.timers = [False] * len(cell.cell.timers)
            self._set_deadlines(gate, cell)
            if cell.cell.forming:
                self._set_flush(gate, cell, self._now)

    def _done(self, gate: GateWork, cell: CellWork) -> bool:
        """Whether a cell is a partition that has run as often as it may."""
        schedule = gate.version.schedule
        partitioned = schedule is not None and schedule.partitioning is not None
        return partitioned and cell.cell.fired >= cell.cell.rounds

    def _fire(self, gate: GateWork, cell: CellWork, firing: Firing, start: Start) -> None:
        """Carry out what a condition does, by the schedule's policy."""
        if firing.kind == "skip":
            self._places.drop(gate, cell, firing.places, "skipped", "the missing inputs were late")
            return
        policy = gate.version.schedule.policy if gate.version.schedule is not None else None
        state = cell.cell
        if not isinstance(policy, Batch | Debounce | Latest) or (
            isinstance(policy, Latest) and not state.forming and not gate.busy
        ):
            self._places.consume(gate, cell, firing.places, self.begin(start))
            return
        if not state.forming:
            self._form(gate, cell, start, policy)
        run = self._ledger.starts[state.forming]
        state.formed += firing.events
        self._places.consume(gate, cell, firing.places, run)
        if isinstance(policy, Batch) and state.formed >= policy.max_events:
            self.flush(gate, cell)

    def _form(
        self, gate: GateWork, cell: CellWork, start: Start, policy: Batch | Debounce | Latest
    ) -> None:
        """Let a run begin to collect events."""
        start.number = self._take_number()
        start.forming = True
        self._ledger.starts[start.number] = start
        cell.cell.forming = start.number
        cell.cell.formed = 0
        cell.cell.formed_since = self._now
        if not isinstance(policy, Latest):
            self._set_flush(gate, cell, collected_at(policy, cell.cell))

    def _set_flush(self, gate: GateWork, cell: CellWork, due: float) -> None:
        self._ledger.timers.append(
            Timer(
                datetime.fromtimestamp(due, UTC),
                "flush",
                gate.dag,
                run=cell.cell.forming,
                cell=cell.key,
            )
        )

    def _set_deadlines(self, gate: GateWork, cell: CellWork) -> None:
        schedule = gate.version.schedule
        if schedule is None or not cell.cell.timers:
            return
        for deadline in set_deadlines(schedule, cell.cell):
            self._ledger.timers.append(
                Timer(
                    datetime.fromtimestamp(deadline.due, UTC),
                    "late",
                    gate.dag,
                    node=deadline.slot,
                    cell=cell.key,
                )
            )


def find_tick(gate: GateWork, slot: int) -> Tick | None:
    """Return the tick of a slot in the schedule in force, if there is one."""
    schedule = gate.version.schedule
    if schedule is None:
        return None
    return next((part for part in ticks(schedule.condition) if part.slot == slot), None)


def find_deadline(gate: GateWork, slot: int) -> OrAfter | None:
    """Return the deadline of a slot in the schedule in force, if there is one."""
    schedule = gate.version.schedule
    if schedule is None:
        return None
    return next((part for part in deadlines(schedule.condition) if part.slot == slot), None)


def tick_key(slot: int, moment: datetime, partition: str = WHOLE) -> str:
    """Return the key under which a tick's run exists once."""
    name = f"tick:{slot}:" if slot else "tick:"
    return f"{name}{moment.isoformat()}" + (f":{partition}" if partition else "")
