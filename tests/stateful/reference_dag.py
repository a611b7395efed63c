"""What schedules promise of one DAG: policies, partitions, pauses, new versions, the past.

A `Reference` is told what happened in the order in which it happened. What holds and what is
consumed says `reference`.
"""

from datetime import UTC, datetime

from reference import Cell, Event, Run, busy, due, held, recent

from pubsubflow.model.schedule.conditions import (
    Batch,
    Debounce,
    Input,
    Latest,
    Schedule,
    deadlines,
    inputs,
    ticks,
)  # fmt: skip
from pubsubflow.model.schedule.partitions import RollUp

FILTERS = {
    None: lambda _: True,
    "event.extra.v > 2": lambda extra: extra.get("v", 0) > 2,
}


class Reference:
    def __init__(self, schedule: Schedule | None, *, hold=True, refuses=None, since=None):
        self.schedule, self.hold, self.refuses = schedule, hold, refuses or (lambda _: False)
        self.cells: dict[str, Cell] = {}
        self.log: list[Event] = []
        self.runs: dict[str, Run] = {}
        self.fates: dict[tuple[int, int, str], set[str]] = {}
        self.coming: list[Run] = []
        self.active: set[str] = set()
        self.paused, self.since = False, since

    # What happens.

    def event(self, event: Event, now: float, *, subscribed=True) -> None:
        self.log.append(event)
        places = self.places(event.uri)
        if not (places and subscribed) or self.since is not None:
            return
        if self.paused and self.hold:
            self.since = event.number
        elif self.paused:
            for place in places:
                self.fate(event, place.place, "", "skipped")
        else:
            self.offer(event, now)

    def pause(self, *, paused: bool, now: float) -> None:
        if self.paused and not paused:
            self.paused = False
            self.catch_up(now)
        self.paused = paused

    def catch_up(self, now: float) -> None:
        if self.since is None or self.paused:
            return
        kept = [event for event in self.log if event.number >= self.since]
        self.since = None
        for event in kept:
            self.offer(event, now)

    def tick(self, slot: int, moment: float, now: float) -> None:
        if self.paused or not any(tick.slot == slot for tick in self.parts(ticks)):
            return
        open_cells = [cell for key, cell in sorted(self.cells.items()) if busy(cell)]
        for cell in open_cells if self.schedule.partitioning else [self.cell("")]:
            written = datetime.fromtimestamp(moment, UTC).isoformat()
            key = f"tick:{slot}:{written}" if slot else f"tick:{written}"
            key += f":{cell.key}" if cell.key else ""
            if key not in self.runs and not self.done(cell):
                cell.times.append(moment)
                self.decide(cell, key, now, ticked=slot, kind="cron")

    def late(self, key: str, slot: int, now: float) -> None:
        part = next((part for part in self.parts(deadlines) if part.slot == slot), None)
        cell = self.cells.get(key)
        if part is None or cell is None or self.paused or self.done(cell) or slot in cell.late:
            return
        passes = due(part, cell)
        if passes is not None and passes <= now:
            cell.late.add(slot)
            fired = self.decide(cell, f"late:{cell.fired + 1}", now)
            if not fired and part.then == "skip":
                for place in inputs(part.side):
                    for event, _ in cell.pending[place.place]:
                        self.fate(event, place.place, key, "skipped")
                    cell.pending[place.place] = []
            self.forget_deadlines(cell)

    def flush(self, key: str, now: float) -> None:
        cell = self.cells.get(key)
        if cell is None or self.paused or cell.forming is None:
            return
        if isinstance(self.schedule.policy, Latest):
            if not self.active and not self.coming:
                self.start_forming(cell)
        elif self.collected(cell) <= now:
            self.start_forming(cell)

    def settle(self, ended: list[str]) -> None:
        """End of a batch: what was made starts or is refused, then runs end."""
        freed = self.admit() or ended
        self.active -= set(ended)
        if not freed:  # what a new version or a pause left forming is started by its timer
            return
        while isinstance(self.schedule and self.schedule.policy, Latest) and self.next_of_latest():
            self.admit()

    def change(self, schedule: Schedule | None) -> None:
        old, self.schedule = self.schedule, schedule
        for cell in self.cells.values():
            before, cell.pending = cell.pending, self.empty()
            cell.late = set()
            if old and schedule and partitions(old) == partitions(schedule):
                free = list(inputs(old.condition))
                for place in inputs(schedule.condition):
                    same = [one for one in free if (one.uri, one.where) == (place.uri, place.where)]
                    if same:
                        free.remove(same[0])
                        cell.pending[place.place] = before.pop(same[0].place)
            else:
                cell.forming = None
            for place, events in before.items():
                for event, _ in events:
                    self.fate(event, place, cell.key, "skipped")

    def replay(self, now: float) -> None:
        again = Reference(self.schedule)
        for event in self.log:
            if self.since is None or event.number < self.since:
                again.event(event, now)
        for key, run in again.runs.items():
            if key not in self.runs:
                run.kind = "replay"
                self.runs[key] = run
                self.coming.append(run)
                if run.cell:
                    cell = self.cell(run.cell)
                    cell.fired = max(cell.fired, int(key.rsplit(":", 1)[1]))
                    cell.rounds = max(cell.rounds, cell.fired)

    # What follows.

    def offer(self, event: Event, now: float) -> None:
        for key in self.keys(event):
            cell = self.cell(key)
            accepted = []
            for place in self.places(event.uri):
                if FILTERS[place.where](event.extra):
                    accepted.append(place.place)
                else:
                    self.fate(event, place.place, key, "filtered")
            if accepted and self.done(cell) and event.extra.get("rerun") is not True:
                for place in accepted:
                    self.fate(event, place, key, "skipped")
                continue
            if accepted:
                cell.rounds = max(cell.rounds, cell.fired + 1)
                cell.heard = now
                cell.times.append(event.moment)
                for place in accepted:
                    cell.pending[place].append((event, now))
                self.decide(cell, f"dataset:{event.event_id}", now)

    def decide(self, cell: Cell, key: str, now: float, ticked=None, kind="dataset") -> bool:
        there = held(self.schedule.condition, self.schedule, cell, ticked)
        if there is not None:
            cell.fired += 1
            if cell.key and kind == "dataset":
                key = f"partition:{cell.key}:{cell.fired}"
            self.fire(cell, there, Run(key, cell.key, kind, since=now))
        self.forget_deadlines(cell)
        return there is not None

    def fire(self, cell: Cell, there: set[int], run: Run) -> None:
        policy = self.schedule.policy
        waits = isinstance(policy, Batch | Debounce) or (
            isinstance(policy, Latest) and (cell.forming or self.active or self.coming)
        )
        if waits and cell.forming is None:
            cell.forming = self.runs[run.key] = run
        elif waits:
            run = cell.forming
        else:
            self.runs[run.key] = run
            self.coming.append(run)
        for place in self.parts(inputs):
            if place.place in there:
                fresh = recent(place, cell)
                for event, _ in cell.pending[place.place]:
                    run.taken += 1
                    if event in fresh:
                        run.consumed.append((event, place.place))
                    else:
                        self.fate(event, place.place, cell.key, "expired")
                cell.pending[place.place] = []
        if isinstance(policy, Batch) and cell.forming and run.taken >= policy.max_events:
            self.start_forming(cell)

    def start_forming(self, cell: Cell) -> None:
        self.coming.append(cell.forming)
        cell.forming = None

    def next_of_latest(self) -> bool:
        forming = [cell for _, cell in sorted(self.cells.items()) if cell.forming]
        if not forming or self.paused or self.active:
            return False
        self.start_forming(forming[0])
        return True

    def admit(self) -> bool:
        """Start what was made; return whether some of it was refused."""
        refused = False
        for run in self.coming:
            events = sorted({event.number: event for event, _ in run.consumed}.items())
            counted = run.kind in ("dataset", "replay") or (run.kind == "cron" and events)
            if counted and self.refuses([event for _, event in events]):
                del self.runs[run.key]
                for event, place in run.consumed:
                    self.fate(event, place, run.cell, "dead")
                refused = True
            else:
                self.active.add(run.key)
        self.coming = []
        return refused

    # Small words.

    def parts(self, kind) -> list:
        return list(kind(self.schedule.condition)) if self.schedule else []

    def places(self, uri: str) -> list[Input]:
        def matches(place):
            return uri.startswith(place.uri[:-1]) if place.pattern else uri == place.uri

        return [place for place in self.parts(inputs) if matches(place)]

    def keys(self, event: Event) -> list[str]:
        if not self.places(event.uri):
            return []
        if self.schedule.partitioning is None:
            return [""]
        whole = isinstance(self.schedule.partitioning.by, RollUp)
        if not event.partition or (whole and "T" not in event.partition):
            for place in self.places(event.uri):
                self.fate(event, place.place, "", "skipped")
            return []
        return [event.partition[:10] if whole else event.partition]

    def empty(self) -> dict:
        return {place.place: [] for place in self.parts(inputs)}

    def cell(self, key: str) -> Cell:
        return self.cells.setdefault(key, Cell(key, self.empty()))

    def done(self, cell: Cell) -> bool:
        return self.schedule.partitioning is not None and cell.fired >= cell.rounds

    def forget_deadlines(self, cell: Cell) -> None:
        for part in self.parts(deadlines):
            if due(part, cell) is None:
                cell.late.discard(part.slot)

    def collected(self, cell: Cell) -> float:
        match self.schedule.policy:
            case Batch(linger_seconds=linger):
                return cell.forming.since + linger
            case Debounce(quiet_seconds=quiet, max_wait_seconds=most):
                longest = cell.forming.since + most if most is not None else float("inf")
                return min(cell.heard + quiet, longest)
        return 0.0

    def fate(self, event: Event, place: int, cell: str, fate: str) -> None:
        self.fates.setdefault((event.number, place, cell), set()).add(fate)

    def overdue(self, now: float) -> list[str]:
        """Return what should have happened by now, were timers never lost."""
        if self.paused or self.schedule is None:
            return []
        found = []
        for cell in self.cells.values():
            if cell.forming and not isinstance(self.schedule.policy, Latest):
                found += ["flush"] * (self.collected(cell) <= now)
            elif cell.forming:
                found += ["latest"] * (not self.active)
            for part in self.parts(deadlines):
                passes = None if self.done(cell) else due(part, cell)
                waits = passes is not None and part.slot not in cell.late
                found += ["late"] * (waits and passes <= now)
        return found


def partitions(schedule: Schedule):
    return schedule.partitioning and schedule.partitioning.by
