"""Reference model of one DAG's schedule: policies, partitions, pauses, new versions, replay.

A `Reference` is given what happened, in order. `conditions` decides what holds and is consumed.
"""

from datetime import UTC, datetime
from itertools import count

from pubsubflow.model.schedule.conditions import (
    AnyOf,
    Batch,
    Condition,
    DatasetInput,
    Debounce,
    Latest,
    ScheduleSpec,
    Tick,
    deadlines,
    inputs,
    ticks,
)  # fmt: skip
from pubsubflow.model.schedule.partitions import RollUp
from support.reference.conditions import (
    Event,
    PartitionState,
    Run,
    busy,
    clamp,
    due,
    held,
    recent,
)  # fmt: skip

FILTERS = {
    None: lambda _: True,
    "event.extra.v > 2": lambda extra: extra.get("v", 0) > 2,
}


class Reference:
    def __init__(
        self, schedule: ScheduleSpec | None, *, hold=True, catchup=False, refuses=None, since=None
    ):
        self.catchup = catchup
        self.ticked: dict[int, float] = {}
        self.lost: list[str] = []
        self.schedule, self.hold, self.refuses = schedule, hold, refuses or (lambda _: False)
        self.states: dict[str, PartitionState] = {}
        self.log: list[Event] = []
        self.runs: dict[str, Run] = {}
        self.outcomes: dict[tuple[int, int, str], set[str]] = {}
        self.created: list[Run] = []
        self.active: set[str] = set()
        self.paused, self.since = False, since

    # Events from outside.

    def event(self, event: Event, now: float, *, subscribed=True) -> None:
        self.log.append(event)
        leaves = self.leaves(event.uri)
        if not (leaves and subscribed) or self.since is not None:
            return
        if self.paused and self.hold:
            self.since = event.number
        elif self.paused:
            for leaf in leaves:
                self.record(event, leaf.index, "", "skipped")
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
        """Act on a tick: all timetables that tick at that moment count together, once."""
        steps = {tick.slot: tick.timetable.seconds for tick in self.parts(ticks)}
        if slot not in steps or (self.paused and self.hold and self.catchup):
            return
        if self.catchup:
            expected = self.ticked.get(slot, moment - steps[slot]) + steps[slot]
            self.lost += [f"tick {expected} of slot {slot}"] * (moment != expected)
        else:
            moment = now // steps[slot] * steps[slot]
        self.ticked[slot] = moment
        together = {each for each, step in steps.items() if moment % step == 0}
        beside = joined(self.schedule.condition, slot) or {slot}
        later = any(moment < now // steps[each] * steps[each] for each in beside)
        missed = later and not self.catchup and now - moment > 1
        if self.paused or missed:
            return
        open_states = [state for key, state in sorted(self.states.items()) if busy(state)]
        for state in open_states if self.schedule.partitioning else [self.state("")]:
            key = f"tick:{datetime.fromtimestamp(moment, UTC).isoformat()}"
            key += f":{state.key}" if state.key else ""
            if key not in self.runs and not self.done(state):
                clamp(state, now)
                state.times.append(moment)
                self.decide(state, key, now, ticked=together, kind="cron")

    def late(self, key: str, slot: int, now: float) -> None:
        part = next((part for part in self.parts(deadlines) if part.slot == slot), None)
        state = self.states.get(key)
        if state is not None:
            clamp(state, now)
        if part is None or state is None or self.paused or self.done(state) or slot in state.late:
            return
        passes = due(part, state)
        if passes is not None and passes <= now:
            state.late.add(slot)
            fired = self.decide(state, self.key_of_late(key, slot, passes), now)
            if not fired and part.then == "skip":
                for leaf in inputs(part.side):
                    for event, _ in state.pending[leaf.index]:
                        self.record(event, leaf.index, key, "skipped")
                    state.pending[leaf.index] = []
            self.forget_deadlines(state)

    def key_of_late(self, key: str, slot: int, passes: float) -> str:
        """Return the first free one of the keys of a deadline."""
        written = f"late:{slot}:{datetime.fromtimestamp(passes, UTC).isoformat()}"
        keys = (written + f":{n}" * (n > 1) + f":{key}" * bool(key) for n in count(1))
        return next(each for each in keys if each not in self.runs)

    def flush(self, key: str, now: float) -> None:
        state = self.states.get(key)
        if state is not None:
            clamp(state, now)
        if state is None or self.paused or state.collecting is None:
            return
        if isinstance(self.schedule.policy, Latest):
            if not self.active and not self.created:
                self.start_collected(state)
        elif self.collected(state) <= now:
            self.start_collected(state)

    def end_batch(self, ended: list[str]) -> None:
        """End a batch: what was made starts or is refused, then runs end."""
        freed = self.admit() or ended
        self.active -= set(ended)
        if not freed:  # what a new version or a pause left collecting is started by its timer
            return
        while isinstance(self.schedule and self.schedule.policy, Latest) and self.next_of_latest():
            self.admit()

    def change(self, schedule: ScheduleSpec | None) -> None:
        old, self.schedule = self.schedule, schedule
        self.ticked = {}
        for state in self.states.values():
            before, state.pending = state.pending, self.empty()
            state.late = set()
            if old and schedule and partitions(old) == partitions(schedule):
                free = list(inputs(old.condition))
                for leaf in inputs(schedule.condition):
                    same = [one for one in free if (one.uri, one.where) == (leaf.uri, leaf.where)]
                    if same:
                        free.remove(same[0])
                        state.pending[leaf.index] = before.pop(same[0].index)
            else:
                state.collecting = None
            if self.done(state):
                before |= {index: events for index, events in state.pending.items() if events}
                state.pending = self.empty()
            for index, events in before.items():
                for event, _ in events:
                    self.record(event, index, state.key, "skipped")

    def replay(self, now: float, since: float, until: float | None = None) -> None:
        """Make the runs that all events would have made and whose last event is in a window."""
        again = Reference(self.schedule)
        for event in self.log:
            if self.since is None or event.number < self.since:
                again.pass_time(event.recorded)
                if event.recorded < since and isinstance(self.schedule.policy, Latest):
                    again.end_latest()
                again.event(event, event.recorded)
        again.pass_time(now)
        for key, run in again.runs.items():
            last = max((event.recorded for event, _ in run.consumed), default=0.0)
            if key not in self.runs and since <= last < (until or now + 1):
                run.kind = "replay"
                self.runs[key] = run
                self.created.append(run)
                if run.partition and self.schedule.partitioning.runs_once:
                    state = self.state(run.partition)
                    state.fired = max(state.fired, int(key.rsplit(":", 1)[1]))
                    state.rounds = max(state.rounds, state.fired)

    def pass_time(self, until: float) -> None:
        """Act on what is due until then, were timers never late."""
        while due_here := sorted(each for each in self.deadlines() if each[0] <= until):
            moment, kind, slot, key = due_here[0]
            if kind == "late":
                self.late(key, slot, moment)
            else:
                self.flush(key, moment)

    def deadlines(self):
        for state in self.states.values():
            if state.collecting and not isinstance(self.schedule.policy, Latest):
                yield self.collected(state), "flush", 0, state.key
            for part in self.parts(deadlines):
                passes = None if self.done(state) else due(part, state)
                if passes is not None and part.slot not in state.late:
                    yield passes, "late", part.slot, state.key

    def end_latest(self) -> None:
        for state in self.states.values():
            if state.collecting:
                self.start_collected(state)
        self.created = []

    # Their consequences.

    def offer(self, event: Event, now: float) -> None:
        for key in self.keys(event):
            state = self.state(key)
            accepted = []
            for leaf in self.leaves(event.uri):
                if FILTERS[leaf.where](event.extra):
                    accepted.append(leaf.index)
                else:
                    self.record(event, leaf.index, key, "filtered")
            if accepted and self.done(state):
                if event.extra.get("rerun") is not True:
                    for index in accepted:
                        self.record(event, index, key, "skipped")
                    continue
                state.rounds = state.fired + 1
            if accepted:
                state.last_event_at = now
                clamp(state, now)
                state.times.append(event.moment)
                for index in accepted:
                    state.pending[index].append((event, now))
                self.decide(state, f"dataset:{event.event_id}{key and ':'}{key}", now)

    def decide(
        self, state: PartitionState, key: str, now: float, ticked=None, kind="dataset"
    ) -> bool:
        there = held(self.schedule.condition, self.schedule, state, ticked)
        if there is not None:
            state.fired += 1
            if state.key and kind == "dataset" and self.schedule.partitioning.runs_once:
                key = f"partition:{state.key}:{state.fired}"
            self.fire(state, there, Run(key, state.key, kind, since=now))
        self.forget_deadlines(state)
        return there is not None

    def fire(self, state: PartitionState, there: set[int], run: Run) -> None:
        policy = self.schedule.policy
        waits = isinstance(policy, Batch | Debounce) or (
            isinstance(policy, Latest) and (state.collecting or self.active or self.created)
        )
        if waits and state.collecting is None:
            state.collecting = self.runs[run.key] = run
        elif waits:
            run = state.collecting
        else:
            self.runs[run.key] = run
            self.created.append(run)
        for leaf in self.parts(inputs):
            if leaf.index in there:
                fresh = recent(leaf, state)
                for event, _ in state.pending[leaf.index]:
                    run.event_count += 1
                    if event in fresh:
                        run.consumed.append((event, leaf.index))
                    else:
                        self.record(event, leaf.index, state.key, "expired")
                state.pending[leaf.index] = []
        if isinstance(policy, Batch) and state.collecting and run.event_count >= policy.max_events:
            self.start_collected(state)
        self.skip_rest(state)

    def start_collected(self, state: PartitionState) -> None:
        self.created.append(state.collecting)
        state.collecting = None
        self.skip_rest(state)

    def skip_rest(self, state: PartitionState) -> None:
        """Once a key has run for good, what is pending there waits for nothing."""
        if self.done(state):
            for index, events in state.pending.items():
                for event, _ in events:
                    self.record(event, index, state.key, "skipped")
            state.pending = self.empty()

    def next_of_latest(self) -> bool:
        collecting = [state for _, state in sorted(self.states.items()) if state.collecting]
        if not collecting or self.paused or self.active:
            return False
        self.start_collected(collecting[0])
        return True

    def admit(self) -> bool:
        """Start what was made; return whether some of it was refused."""
        refused = False
        for run in self.created:
            events = sorted({event.number: event for event, _ in run.consumed}.items())
            counted = run.kind in ("dataset", "replay") or (run.kind == "cron" and events)
            if counted and self.refuses([event for _, event in events]):
                del self.runs[run.key]
                for event, index in run.consumed:
                    self.record(event, index, run.partition, "dead")
                refused = True
            else:
                self.active.add(run.key)
        self.created = []
        return refused

    # Helpers.

    def parts(self, kind) -> list:
        return list(kind(self.schedule.condition)) if self.schedule else []

    def leaves(self, uri: str) -> list[DatasetInput]:
        def matches(leaf):
            return uri.startswith(leaf.uri[:-1]) if leaf.pattern else uri == leaf.uri

        return [leaf for leaf in self.parts(inputs) if matches(leaf)]

    def keys(self, event: Event) -> list[str]:
        if not self.leaves(event.uri):
            return []
        if self.schedule.partitioning is None:
            return [""]
        whole = isinstance(self.schedule.partitioning.by, RollUp)
        if not event.partition or (whole and "T" not in event.partition):
            for leaf in self.leaves(event.uri):
                self.record(event, leaf.index, "", "skipped")
            return []
        return [event.partition[:10] if whole else event.partition]

    def empty(self) -> dict:
        return {leaf.index: [] for leaf in self.parts(inputs)}

    def state(self, key: str) -> PartitionState:
        return self.states.setdefault(key, PartitionState(key, self.empty()))

    def done(self, state: PartitionState) -> bool:
        """Whether a key that runs once has done so: its run no longer collects events."""
        by = self.schedule and self.schedule.partitioning
        return bool(by and by.runs_once) and state.fired >= state.rounds and not state.collecting

    def forget_deadlines(self, state: PartitionState) -> None:
        for part in self.parts(deadlines):
            if due(part, state) is None:
                state.late.discard(part.slot)

    def collected(self, state: PartitionState) -> float:
        match self.schedule.policy:
            case Batch(linger_seconds=linger):
                return state.collecting.since + linger
            case Debounce(quiet_seconds=quiet, max_wait_seconds=most):
                longest = state.collecting.since + most if most is not None else float("inf")
                return min(state.last_event_at + quiet, longest)
        return 0.0

    def record(self, event: Event, index: int, partition: str, outcome: str) -> None:
        self.outcomes.setdefault((event.number, index, partition), set()).add(outcome)

    def overdue(self, now: float) -> list[str]:
        """Return what should have happened by now, were timers never lost."""
        if self.paused or self.schedule is None:
            return []
        found = []
        for state in self.states.values():
            if state.collecting and not isinstance(self.schedule.policy, Latest):
                found += ["flush"] * (self.collected(state) <= now)
            elif state.collecting:
                found += ["latest"] * (not self.active)
            for part in self.parts(deadlines):
                passes = None if self.done(state) else due(part, state)
                waits = passes is not None and part.slot not in state.late
                found += ["late"] * (waits and passes <= now)
        return found


def partitions(schedule: ScheduleSpec):
    return schedule.partitioning and schedule.partitioning.by


def joined(condition: Condition, slot: int) -> set[int]:
    """Return the slots of the timetables that are joined with one by `|` alone."""

    def groups(part, within: set[int] | None = None):
        own = set() if within is None else within
        if isinstance(part, Tick):
            own.add(part.slot)
        elif isinstance(part, AnyOf):
            for side in part.sides:
                yield from groups(side, own)
        else:
            for side in getattr(part, "sides", (getattr(part, "side", None),)):
                yield from groups(side) if side is not None else ()
        if within is None:
            yield own

    return next((group for group in groups(condition) if slot in group), set())
