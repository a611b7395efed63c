"""What is pending for a condition, and the one place that decides when it fires.

A cell is the state of one DAG's condition, or of one partition key of it. Every place in the
expression where a dataset stands keeps its own pending events. An event is added to each place that
it matches; then the expression is evaluated: a place holds when it has what it asks for, `AllOf`
when all its sides hold, `AnyOf` when any does. When the whole holds, one run fires and consumes all
pending events of the sides that held; a side of `AnyOf` that did not hold keeps its own.

A cell holds counts, never events: its size does not depend on how much is pending.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct, field

from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Batch,
    Condition,
    Debounce,
    Input,
    OrAfter,
    Policy,
    Schedule,
    Tick,
    deadlines,
    inputs,
)
from pubsubflow.model.schedule.partitions import Partitioning, parts_of

UNREACHABLE = 2**31


class PlaceState(Struct, array_like=True):
    """What is pending in one place.

    Attributes:
        count: Pending events.
        times: For `within`: the times of the latest ones, newest first, at most as many as the
            place asks for; seconds since 1970.
        keys: For a window that is rolled up: the different parts that are there.
        wanted: How many different parts it takes; 0 where nothing is rolled up.
        since: When the first of them became pending; seconds since 1970, 0 when there is none.
    """

    count: int = 0
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    wanted: int = 0
    since: float = 0.0

    def clear(self) -> None:
        """Forget everything pending."""
        self.count = 0
        self.times = []
        self.keys = []
        self.since = 0.0


class Cell(Struct, array_like=True):
    """The state of a condition.

    Attributes:
        places: One entry per place.
        watermark: The latest time of all events and ticks seen; seconds since 1970.
        timers: Slot of a deadline → whether a timer for it is set.
        late: Slot → whether its deadline has passed; it stays so until nothing is pending there.
        forming: Number of the run that collects events, or 0.
        formed: Events that it has collected.
        formed_since, formed_last: When it got its first and when the cell saw its last event.
        fired: How many times it has fired.
        rounds: How many times a partition may fire; each demand to run it again adds one.
    """

    places: list[PlaceState]
    watermark: float = 0.0
    timers: list[bool] = field(default_factory=list)
    late: list[bool] = field(default_factory=list)
    forming: int = 0
    formed: int = 0
    formed_since: float = 0.0
    formed_last: float = 0.0
    fired: int = 0
    rounds: int = 1

    @property
    def open(self) -> bool:
        """Whether something is pending or a run is forming."""
        return bool(self.forming) or any(place.count for place in self.places)


class Deadline(Struct, frozen=True):
    """A deadline for which a timer is to be set.

    Attributes:
        slot: Which one of the expression.
        due: Seconds since 1970.
    """

    slot: int
    due: float


class Firing(Struct, frozen=True):
    """What a condition does at a moment.

    Attributes:
        kind: `run` starts one, `skip` drops what is pending in `places`.
        places: The places of the sides that held; their pending events are consumed.
        events: How many events were pending there.
    """

    kind: Literal["run", "skip"]
    places: tuple[int, ...]
    events: int


def new_cell(schedule: Schedule, key: str | None = None) -> Cell:
    """Return the state in which nothing is pending, for the whole or for one partition key."""
    partitioning = None if key is None else schedule.partitioning
    states = [
        PlaceState(
            wanted=0 if partitioning is None else _wanted(partitioning, place.uri, key or "")
        )
        for place in inputs(schedule.condition)
    ]
    slots = sum(1 for _ in deadlines(schedule.condition))
    return Cell(states, timers=[False] * slots, late=[False] * slots)


def _wanted(partitioning: Partitioning | None, uri: str, key: str | None) -> int:
    """Return how many parts a window takes; more than there are when it is no such window."""
    if partitioning is None or key is None:
        return 0
    try:
        whole = parts_of(partitioning.mapper(uri), key)
    except InvalidInput:
        return UNREACHABLE
    return min(whole, partitioning.at_least or whole) if whole > 1 else 0


def add(
    cell: Cell,
    places: Iterable[Input],
    *,
    time: float,
    now: float,
    key: str | None = None,
) -> None:
    """Add one event to its places.

    Args:
        cell: Changed in place.
        places: The places that it matches.
        time: The event's time, seconds since 1970; never taken to be later than `now`.
        now: When it is recorded.
        key: Its own partition key, for windows that are rolled up.
    """
    moment = min(time, now)
    cell.watermark = max(cell.watermark, moment)
    for place in places:
        state = cell.places[place.place]
        state.count += 1
        state.since = state.since or now
        if place.within_seconds is not None:
            state.times = sorted((*state.times, moment), reverse=True)[: place.at_least]
        if state.wanted and key is not None and key not in state.keys:
            state.keys.append(key)


def decide(
    schedule: Schedule, cell: Cell, *, ticked: int | None = None, late: int | None = None
) -> Firing | None:
    """Tell what fires now, and take what it consumes out of the cell.

    Args:
        schedule: The schedule.
        cell: Changed in place.
        ticked: Slot of the timetable whose tick this moment is.
        late: Slot of the deadline that passes at this moment.
    """
    if late is not None:
        cell.late[late] = True
    held = _View(cell, ticked).held(schedule.condition)
    if held is not None:
        cell.fired += 1
        return _take(cell, "run", held)
    for part in deadlines(schedule.condition):
        if part.slot == late and part.then == "skip":
            return _take(cell, "skip", pending_in(part.side, cell))
    return None


def _take(cell: Cell, kind: Literal["run", "skip"], places: Iterable[int]) -> Firing:
    taken = tuple(sorted(places))
    events = sum(cell.places[number].count for number in taken)
    return Firing(kind, take(cell, taken), events)


def take(cell: Cell, places: Sequence[int]) -> tuple[int, ...]:
    """Take all that is pending out of places; return those."""
    for number in places:
        cell.places[number].clear()
    return tuple(places)


def pending_in(condition: Condition, cell: Cell) -> list[int]:
    """Return the places of an expression where something is pending."""
    return [place.place for place in inputs(condition) if cell.places[place.place].count]


def set_deadlines(schedule: Schedule, cell: Cell) -> list[Deadline]:
    """Return the deadlines that need a timer now; forget those of sides where nothing waits.

    A slot has one timer at most: one that finds that its deadline runs later sets the next.
    """
    needed = []
    for part in deadlines(schedule.condition):
        due = deadline_due(part, cell)
        if due is None:
            cell.late[part.slot] = False
        elif not (cell.late[part.slot] or cell.timers[part.slot]):
            cell.timers[part.slot] = True
            needed.append(Deadline(part.slot, due))
    return needed


def deadline_due(part: OrAfter, cell: Cell) -> float | None:
    """Return when a deadline passes, seconds since 1970; None while nothing is pending there."""
    waiting = pending_in(part.side, cell)
    if not waiting:
        return None
    return min(cell.places[number].since for number in waiting) + part.seconds


def expiry(place: Input, cell: Cell) -> float | None:
    """Return the time before which a place's events are too old now; None if it does not ask."""
    if place.within_seconds is None:
        return None
    return cell.watermark - place.within_seconds


def held(condition: Condition, cell: Cell) -> frozenset[int] | None:
    """Return the places of the sides that hold now, or None when the whole does not.

    No tick is now: a side that needs one does not hold.
    """
    return _View(cell, None).held(condition)


def collected_at(policy: Policy, cell: Cell) -> float:
    """Return when a run has collected long enough, seconds since 1970; 0 without such a policy."""
    if isinstance(policy, Batch):
        return cell.formed_since + policy.linger_seconds
    if not isinstance(policy, Debounce):
        return 0.0
    quiet = cell.formed_last + policy.quiet_seconds
    if policy.max_wait_seconds is None:
        return quiet
    return min(quiet, cell.formed_since + policy.max_wait_seconds)


class _View:
    """Evaluates an expression at one moment."""

    def __init__(self, cell: Cell, ticked: int | None) -> None:
        self._cell = cell
        self._ticked = ticked

    def held(self, condition: Condition) -> frozenset[int] | None:
        """Return the places of the sides that hold, or None when the whole does not hold."""
        match condition:
            case Input():
                holds = place_holds(condition, self._cell)
                return frozenset((condition.place,)) if holds else None
            case Tick():
                return frozenset() if condition.slot == self._ticked else None
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
            held = self.held(side)
            if held is None:
                return None
            found |= held
        return found

    def _any(self, sides: Sequence[Condition]) -> frozenset[int] | None:
        held = [places for places in map(self.held, sides) if places is not None]
        return frozenset().union(*held) if held else None

    def _or_after(self, condition: OrAfter) -> frozenset[int] | None:
        held = self.held(condition.side)
        if held is not None or condition.then == "skip" or not self._cell.late[condition.slot]:
            return held
        places = inputs(condition.side)
        there = frozenset(place.place for place in places if _recent(place, self._cell))
        return there or None


def place_holds(place: Input, cell: Cell) -> bool:
    """Return whether a place has what it asks for."""
    state = cell.places[place.place]
    if len(state.keys) < state.wanted:
        return False
    return _recent(place, cell, place.at_least)


def _recent(place: Input, cell: Cell, wanted: int = 1) -> bool:
    """Return whether so many events are pending that are not too old."""
    state, limit = cell.places[place.place], expiry(place, cell)
    if limit is None:
        return state.count >= wanted
    return len(state.times) >= wanted and state.times[wanted - 1] >= limit


encode_cell = msgspec.msgpack.Encoder().encode
decode_cell = msgspec.msgpack.Decoder(Cell).decode


def expiring_places(schedule: Schedule, cell: Cell) -> list[Input]:
    """Return the places that ask how old events are, where something is pending."""
    return [
        place
        for place in inputs(schedule.condition)
        if place.within_seconds is not None and cell.places[place.place].count
    ]


def carry_over(
    old: Schedule | None, new: Schedule | None, cell: Cell, key: str | None = None
) -> tuple[Cell, dict[int, int]]:
    """Return a cell for a new version of a schedule, with what is pending taken along.

    A place keeps its events where the new expression asks for the same dataset under the same
    filter; which, when it stands several times, goes by order. With other partitions nothing is
    kept. What the cell has done stays in any case.

    Returns:
        The new cell, and old place → new place for those that are kept.
    """
    fresh = Cell([]) if new is None else new_cell(new, key)
    fresh.watermark, fresh.fired, fresh.rounds = cell.watermark, cell.fired, cell.rounds
    if old is None or new is None or not _same_partitions(old, new):
        return fresh, {}
    fresh.forming, fresh.formed = cell.forming, cell.formed
    fresh.formed_since, fresh.formed_last = cell.formed_since, cell.formed_last
    free: dict[tuple[str, str | None], list[int]] = {}
    for place in inputs(old.condition):
        free.setdefault((place.uri, place.where), []).append(place.place)
    moves = {}
    for place in inputs(new.condition):
        candidates = free.get((place.uri, place.where))
        if candidates:
            before = candidates.pop(0)
            moves[before] = place.place
            kept, wanted = cell.places[before], fresh.places[place.place].wanted
            times = kept.times[: place.at_least] if place.within_seconds is not None else []
            fresh.places[place.place] = PlaceState(kept.count, times, kept.keys, wanted, kept.since)
    return fresh, moves


def _same_partitions(old: Schedule, new: Schedule) -> bool:
    """Whether keys mean the same; how many of a window's parts suffice may differ."""
    if old.partitioning is None or new.partitioning is None:
        return old.partitioning is new.partitioning
    return msgspec.structs.replace(old.partitioning, at_least=None) == msgspec.structs.replace(
        new.partitioning, at_least=None
    )
