"""What conditions promise, in plain words over lists of events: no counts, no timers, no store."""

from dataclasses import dataclass, field

from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Input,
    OrAfter,
    Schedule,
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


@dataclass
class Run:
    key: str
    cell: str = ""
    kind: str = "dataset"
    consumed: list = field(default_factory=list)  # (event, place)
    since: float = 0.0
    taken: int = 0


@dataclass
class Cell:
    key: str
    pending: dict[int, list]  # place → (event, since when it is pending)
    times: list = field(default_factory=list)  # of all events and ticks
    late: set = field(default_factory=set)  # deadlines that have passed
    fired: int = 0
    rounds: int = 1
    forming: Run | None = None
    heard: float = 0.0


def held(condition: Condition, schedule: Schedule, cell: Cell, ticked) -> set[int] | None:
    """Return the places of the sides that hold, None when the whole does not."""
    match condition:
        case Input():
            return {condition.place} if holds(condition, schedule, cell) else None
        case Tick():
            return set() if condition.slot == ticked else None
        case OrAfter():
            there = held(condition.side, schedule, cell, ticked)
            if there is None and condition.slot in cell.late and condition.then == "run":
                return {p.place for p in inputs(condition.side) if recent(p, cell)} or None
            return there
        case AllOf() | AnyOf():
            sides = [held(side, schedule, cell, ticked) for side in condition.sides]
            there = [side for side in sides if side is not None]
            enough = len(there) == len(sides) if isinstance(condition, AllOf) else there
            return set().union(*there) if enough else None


def holds(place: Input, schedule: Schedule, cell: Cell) -> bool:
    """Whether a place has what it asks for."""
    by = schedule.partitioning
    if by is not None and isinstance(by.by, RollUp):
        hours = {event.partition for event, _ in cell.pending[place.place]}
        if len(hours) < (by.at_least or 24):
            return False
    return len(recent(place, cell)) >= place.at_least


def recent(place: Input, cell: Cell) -> list[Event]:
    """Return the pending events of a place that are not too old."""
    events = [event for event, _ in cell.pending[place.place]]
    if place.within_seconds is None:
        return events
    limit = max(cell.times, default=0.0) - place.within_seconds
    return [event for event in events if event.moment >= limit]


def due(part: OrAfter, cell: Cell) -> float | None:
    """Return when a deadline passes: so long after the first event that is still pending."""
    waiting = [since for place in inputs(part.side) for _, since in cell.pending[place.place]]
    return min(waiting) + part.seconds if waiting else None


def busy(cell: Cell) -> bool:
    """Whether something is pending or collects."""
    return cell.forming is not None or any(cell.pending.values())
