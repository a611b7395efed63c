"""Condition state: the pending events of a schedule's condition, and the decision when it fires.

One state belongs to the condition of a DAG, or to one partition key of it. Every input of the
expression keeps pending events of its own. An event is added to each input that it matches; then
the expression is evaluated: an input holds when it has enough pending events, `AllOf` when all its
sides hold, `AnyOf` when any side does. When the whole holds, one run fires and consumes all pending
events of the sides that held; a side of `AnyOf` that did not hold keeps its own.

A state holds counts, never events: its size does not depend on the number of pending events.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from msgspec import Struct, field

from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Batch,
    Condition,
    DatasetInput,
    Debounce,
    OrAfter,
    Policy,
    ScheduleSpec,
    Tick,
    deadlines,
    inputs,
)
from pubsubflow.model.schedule.partitions import Partitioning, parts_of
from pubsubflow.model.stored.values import StoredCodec, StoredValue

UNREACHABLE = 2**31
AHEAD_SECONDS = 2.0
"""Clocks of several daemons may differ by that much."""


class InputState(Struct, array_like=True, forbid_unknown_fields=True):
    """The pending events of one input.

    Attributes:
        count: Number of pending events.
        times: For `within`: the times of the latest ones, newest first, at most as many as the
            input requires; seconds since 1970.
        keys: For a rolled-up window: the different parts that have events.
        required_keys: Number of different parts that it takes; 0 without a roll-up.
        since: When the first of them became pending; seconds since 1970, 0 without one.
    """

    count: int = 0
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    required_keys: int = 0
    since: float = 0.0


class ConditionState(StoredValue):
    """The state of a condition.

    Attributes:
        inputs: One entry per input.
        watermark: The latest time of all events and ticks seen; seconds since 1970.
        timers: Slot of a deadline → whether a timer for it is set.
        late: Slot → whether its deadline has passed; it stays so until nothing is pending there.
        collecting_run: Number of the run that collects events, or 0.
        collected: Number of events that it has collected.
        collecting_since, last_event_at: When it got its first event, and when the condition got
            its last one; seconds since 1970.
        firings: How many times it has fired.
        max_firings: How many times a partition may fire that runs once; a request for it to run
            again adds one.
    """

    inputs: list[InputState]
    watermark: float = 0.0
    timers: list[bool] = field(default_factory=list)
    late: list[bool] = field(default_factory=list)
    collecting_run: int = 0
    collected: int = 0
    collecting_since: float = 0.0
    last_event_at: float = 0.0
    firings: int = 0
    max_firings: int = 1

    @property
    def open(self) -> bool:
        """Whether events are pending or a run collects events."""
        return bool(self.collecting_run) or any(each.count for each in self.inputs)


class LateTimer(Struct, frozen=True):
    """A deadline for which a timer is to be set.

    Attributes:
        slot: Its number in the expression.
        due: Seconds since 1970.
    """

    slot: int
    due: float


class Firing(Struct, frozen=True):
    """The effect of a condition at a moment.

    Attributes:
        kind: `run` starts a run, `skip` drops the pending events of `inputs`.
        inputs: Indexes of the inputs of the sides that held; their pending events are consumed.
        events: Number of events that were pending there.
    """

    kind: Literal["run", "skip"]
    inputs: tuple[int, ...]
    events: int


def new_condition_state(schedule: ScheduleSpec, key: str | None = None) -> ConditionState:
    """Return a state with nothing pending, for the whole DAG or for one partition key."""
    partitioning = None if key is None else schedule.partitioning
    states = [
        InputState(
            required_keys=0
            if partitioning is None
            else _required_keys(partitioning, each.uri, key or "")
        )
        for each in inputs(schedule.condition)
    ]
    slots = sum(1 for _ in deadlines(schedule.condition))
    return ConditionState(states, timers=[False] * slots, late=[False] * slots)


def check_partition(dag_id: str, schedule: ScheduleSpec, key: str) -> None:
    """Check a key that a person has given.

    Raises:
        InvalidInput: All of the DAG's windows have other keys.
    """
    states = new_condition_state(schedule, key).inputs
    if states and all(state.required_keys == UNREACHABLE for state in states):
        raise InvalidInput(f"DAG {dag_id!r} has no partition {key!r}: its windows have other keys")


def _required_keys(partitioning: Partitioning | None, uri: str, key: str | None) -> int:
    """Return how many parts a window takes; UNREACHABLE for a key that is not such a window."""
    if partitioning is None or key is None:
        return 0
    try:
        whole = parts_of(partitioning.mapper(uri), key)
    except InvalidInput:
        return UNREACHABLE
    return min(whole, partitioning.at_least or whole) if whole > 1 else 0


def add_event(
    state: ConditionState,
    matched: Iterable[DatasetInput],
    *,
    time: float,
    now: float,
    key: str | None = None,
) -> None:
    """Add one event to its inputs.

    Args:
        state: Changed in place.
        matched: The inputs that it matches.
        time: The event's time, seconds since 1970; `now` if that is earlier.
        now: When it is recorded.
        key: Its own partition key, for rolled-up windows.
    """
    moment = min(time, now)
    if max(state.watermark, state.last_event_at, state.collecting_since) > now + AHEAD_SECONDS:
        clamp_moments(state, now)
    state.watermark = max(state.watermark, moment)
    for each in matched:
        pending = state.inputs[each.index]
        pending.count += 1
        pending.since = pending.since or now
        if each.within_seconds is not None:
            # Later events can only replace older ones: more times than required never matter.
            pending.times = sorted((*pending.times, moment), reverse=True)[: each.at_least]
        if pending.required_keys and key is not None and key not in pending.keys:
            pending.keys.append(key)


def clamp_moments(state: ConditionState, now: float) -> None:
    """Bring moments back that lie ahead of now: they come from a clock that was wrong.

    Otherwise everything that follows would seem too old, until the clock has come there.

    Args:
        state: Changed in place.
        now: Seconds since 1970.
    """
    if max(state.watermark, state.last_event_at, state.collecting_since) <= now + AHEAD_SECONDS:
        return
    state.watermark = min(state.watermark, now)
    state.last_event_at = min(state.last_event_at, now)
    state.collecting_since = min(state.collecting_since, now)
    for pending in state.inputs:
        pending.times = [min(each, now) for each in pending.times]
        pending.since = min(pending.since, now)


def decide(
    schedule: ScheduleSpec,
    state: ConditionState,
    *,
    ticked: Collection[int] = (),
    late: int | None = None,
) -> Firing | None:
    """Return the firing of this moment, if any, and consume its inputs.

    Args:
        schedule: The schedule.
        state: Changed in place.
        ticked: Slots of the timetables of which this moment is a tick.
        late: Slot of the deadline that passes at this moment.
    """
    if late is not None:
        state.late[late] = True
    held = _Evaluation(state, ticked).satisfied(schedule.condition)
    if held is not None:
        state.firings += 1
        return Firing("run", *consume(state, held))
    # Only when the whole does not hold: a late side of `|` must not drop the events of a run.
    for part in deadlines(schedule.condition) if late is not None else ():
        if part.slot == late and part.then == "skip":
            return Firing("skip", *consume(state, pending_inputs(part.side, state)))
    return None


def consume(state: ConditionState, indexes: Iterable[int]) -> tuple[tuple[int, ...], int]:
    """Drop all pending events of inputs; return these inputs in order, and how many events."""
    consumed = tuple(sorted(indexes))
    events = 0
    for index in consumed:
        pending = state.inputs[index]
        events += pending.count
        state.inputs[index] = InputState(required_keys=pending.required_keys)
    return consumed, events


def has_run(schedule: ScheduleSpec, state: ConditionState) -> bool:
    """Return whether a partition that runs once has done so: its run collects no longer."""
    if schedule.partitioning is None or state.firings < state.max_firings:
        return False
    return not state.collecting_run and schedule.partitioning.runs_once


def pending_inputs(condition: Condition, state: ConditionState) -> list[int]:
    """Return the indexes of the inputs that have pending events."""
    return [each.index for each in inputs(condition) if state.inputs[each.index].count]


def start_deadlines(schedule: ScheduleSpec, state: ConditionState) -> list[LateTimer]:
    """Return the deadlines that need a timer now; reset those of sides with nothing pending."""
    # A slot has one timer at most: a timer that comes before its deadline sets the next one.
    needed = []
    for part in deadlines(schedule.condition):
        due = deadline_due(part, state)
        if due is None:
            state.late[part.slot] = False
        elif not (state.late[part.slot] or state.timers[part.slot]):
            state.timers[part.slot] = True
            needed.append(LateTimer(part.slot, due))
    return needed


def deadline_due(part: OrAfter, state: ConditionState) -> float | None:
    """Return when a deadline passes, seconds since 1970; None while nothing is pending there."""
    pending = pending_inputs(part.side, state)
    if not pending:
        return None
    return min(state.inputs[index].since for index in pending) + part.seconds


def expiry(within_seconds: float, state: ConditionState) -> float:
    """Return the time before which events are too old now, seconds since 1970."""
    # The watermark stands for now, so that a replay of the same events decides the same.
    return state.watermark - within_seconds


def satisfied_inputs(condition: Condition, state: ConditionState) -> frozenset[int] | None:
    """Return the indexes of the inputs of the sides that hold, or None when the whole does not.

    A side that needs a tick does not hold here.
    """
    return _Evaluation(state, ()).satisfied(condition)


def collecting_until(policy: Policy, state: ConditionState) -> float:
    """Return when a run has collected long enough, seconds since 1970; 0 without such a policy."""
    if isinstance(policy, Batch):
        return state.collecting_since + policy.linger_seconds
    if not isinstance(policy, Debounce):
        return 0.0
    quiet = state.last_event_at + policy.quiet_seconds
    if policy.max_wait_seconds is None:
        return quiet
    return min(quiet, state.collecting_since + policy.max_wait_seconds)


class _Evaluation:
    """The evaluation of an expression at one moment."""

    def __init__(self, state: ConditionState, ticked: Collection[int]) -> None:
        self._state = state
        self._ticked = ticked

    def satisfied(self, condition: Condition) -> frozenset[int] | None:
        """Return the indexes of the inputs of the sides that hold; None when the whole does not."""
        match condition:
            case DatasetInput():
                pending = self._state.inputs[condition.index]
                if len(pending.keys) < pending.required_keys:
                    return None
                holds = has_recent(condition, self._state, condition.at_least)
                return frozenset((condition.index,)) if holds else None
            case Tick():
                return frozenset() if condition.slot in self._ticked else None
            case AllOf():
                return self._all(condition.sides)
            case AnyOf():
                return self._any(condition.sides)
            case OrAfter():
                return self._or_after(condition)
        raise TypeError(condition)

    def _all(self, sides: Sequence[Condition]) -> frozenset[int] | None:
        found: frozenset[int] = frozenset()
        for side in sides:
            held = self.satisfied(side)
            if held is None:
                return None
            found |= held
        return found

    def _any(self, sides: Sequence[Condition]) -> frozenset[int] | None:
        held = [indexes for indexes in map(self.satisfied, sides) if indexes is not None]
        return frozenset().union(*held) if held else None

    def _or_after(self, condition: OrAfter) -> frozenset[int] | None:
        held = self.satisfied(condition.side)
        if held is not None or condition.then == "skip" or not self._state.late[condition.slot]:
            return held
        present = (each for each in inputs(condition.side) if has_recent(each, self._state, 1))
        return frozenset(each.index for each in present) or None


def has_recent(given: DatasetInput, state: ConditionState, required: int) -> bool:
    """Return whether so many pending events are not too old."""
    pending = state.inputs[given.index]
    if given.within_seconds is None:
        return pending.count >= required
    limit = expiry(given.within_seconds, state)
    return len(pending.times) >= required and pending.times[required - 1] >= limit


STORED_CONDITION = StoredCodec(ConditionState, "the state of a condition")
encode_condition_state = STORED_CONDITION.encode
decode_condition_state = STORED_CONDITION.decode


def expiring_inputs(schedule: ScheduleSpec, state: ConditionState) -> list[DatasetInput]:
    """Return the inputs with `within` that have pending events."""
    return [
        each
        for each in inputs(schedule.condition)
        if each.within_seconds is not None and state.inputs[each.index].count
    ]


def migrate_state(
    old: ScheduleSpec | None,
    new: ScheduleSpec | None,
    state: ConditionState,
    key: str | None = None,
) -> tuple[ConditionState, dict[int, int]]:
    """Return the state for a new version of a schedule, with the pending events carried over.

    An input keeps its events where the new expression has the same dataset under the same filter;
    several inputs of one dataset are matched in order. With another partitioning nothing is kept.
    The watermark and the number of firings stay in any case.

    Returns:
        The new state, and old index → new index of the inputs that are kept.
    """
    # Timers and deadlines start over: their slots belong to the old expression.
    fresh = ConditionState([]) if new is None else new_condition_state(new, key)
    fresh.watermark, fresh.firings, fresh.max_firings = (
        state.watermark,
        state.firings,
        state.max_firings,
    )
    if old is None or new is None or not _same_partitions(old, new):
        return fresh, {}
    fresh.collecting_run, fresh.collected = state.collecting_run, state.collected
    fresh.collecting_since, fresh.last_event_at = state.collecting_since, state.last_event_at
    if has_run(new, fresh):
        return fresh, {}
    free: dict[tuple[str, str | None], list[int]] = {}
    for each in inputs(old.condition):
        free.setdefault((each.uri, each.where), []).append(each.index)
    moves = {}
    for each in inputs(new.condition):
        candidates = free.get((each.uri, each.where))
        if candidates:
            before = candidates.pop(0)
            moves[before] = each.index
            kept, required = state.inputs[before], fresh.inputs[each.index].required_keys
            times = kept.times[: each.at_least] if each.within_seconds is not None else []
            fresh.inputs[each.index] = InputState(
                kept.count, times, kept.keys, required, kept.since
            )
    return fresh, moves


def _same_partitions(old: ScheduleSpec, new: ScheduleSpec) -> bool:
    """Whether keys mean the same; how many of a window's parts suffice may differ."""
    if old.partitioning is None or new.partitioning is None:
        return old.partitioning is new.partitioning
    mapped = (old.partitioning.by, old.partitioning.by_uri)
    return mapped == (new.partitioning.by, new.partitioning.by_uri)
