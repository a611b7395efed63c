"""Reference model of conditions: plain code over lists of events, no counts, timers or store."""

from dataclasses import dataclass, field

from pubsubflow.model.schedule.condition_state import AHEAD_SECONDS
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Condition,
    DatasetInput,
    OrAfter,
    ScheduleSpec,
    Tick,
    inputs,
)  # fmt: skip
from pubsubflow.model.schedule.partitions import RollUp


@dataclass(frozen=True)
class Event:
    number: int
    event_id: str
    uri: str
    extra: dict = field(hash=False, compare=False)
    partition: str | None
    moment: float  # its time, never later than it was recorded
    recorded: float = 0.0


@dataclass
class Run:
    key: str
    partition: str = ""
    kind: str = "dataset"
    consumed: list = field(default_factory=list)  # (event, index of the input)
    since: float = 0.0
    event_count: int = 0


@dataclass
class PartitionState:
    key: str
    pending: dict[int, list]  # index of the input → (event, since when it is pending)
    times: list = field(default_factory=list)  # of all events and ticks
    late: set = field(default_factory=set)  # deadlines that have passed
    fired: int = 0
    rounds: int = 1
    collecting: Run | None = None
    last_event_at: float = 0.0


def held(
    condition: Condition, schedule: ScheduleSpec, state: PartitionState, ticked
) -> set[int] | None:
    """Return the inputs of the sides that hold, None when the whole does not."""
    match condition:
        case DatasetInput():
            return {condition.index} if holds(condition, schedule, state) else None
        case Tick():
            return set() if condition.slot in (ticked or ()) else None
        case OrAfter():
            there = held(condition.side, schedule, state, ticked)
            if there is None and condition.slot in state.late and condition.then == "run":
                return {
                    leaf.index for leaf in inputs(condition.side) if recent(leaf, state)
                } or None
            return there
        case AllOf() | AnyOf():
            sides = [held(side, schedule, state, ticked) for side in condition.sides]
            there = [side for side in sides if side is not None]
            enough = len(there) == len(sides) if isinstance(condition, AllOf) else there
            return set().union(*there) if enough else None


def holds(leaf: DatasetInput, schedule: ScheduleSpec, state: PartitionState) -> bool:
    """Whether an input has as many recent events as it requires."""
    by = schedule.partitioning
    if by is not None and isinstance(by.by, RollUp):
        hours = {event.partition for event, _ in state.pending[leaf.index]}
        if len(hours) < (by.at_least or 24):
            return False
    return len(recent(leaf, state)) >= leaf.at_least


def recent(leaf: DatasetInput, state: PartitionState) -> list[Event]:
    """Return the pending events of an input that are not too old."""
    events = [event for event, _ in state.pending[leaf.index]]
    if leaf.within_seconds is None:
        return events
    limit = max(state.times, default=0.0) - leaf.within_seconds
    return [event for event in events if event.moment >= limit]


def due(part: OrAfter, state: PartitionState) -> float | None:
    """Return when a deadline passes: so long after the first event that is still pending."""
    # The first of the log: the clocks of two managers may differ.
    waiting = [since for leaf in inputs(part.side) for _, since in state.pending[leaf.index][:1]]
    return min(waiting) + part.seconds if waiting else None


def clamp(state: PartitionState, now: float) -> None:
    """Bring back what lies ahead of now: a transaction that waited has an earlier moment."""
    since = state.collecting.since if state.collecting else 0.0
    if max([*state.times, state.last_event_at, since]) <= now + AHEAD_SECONDS:
        return
    state.times = [min(each, now) for each in state.times]
    state.last_event_at = min(state.last_event_at, now)
    for index, events in state.pending.items():
        state.pending[index] = [(event, min(since, now)) for event, since in events]
    if state.collecting:
        state.collecting.since = min(since, now)


def busy(state: PartitionState) -> bool:
    """Whether something is pending or collecting."""
    return state.collecting is not None or any(state.pending.values())
