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

from pubsubflow.model.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Input,
    OrAfter,
    Schedule,
    Tick,
    deadlines,
    inputs,
)
from pubsubflow.model.partitions import parts_of


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
        watermark: The latest time of all events seen; seconds since 1970.
        deadlines: Slot → number of the running deadline; 0 when none runs.
        last_deadline: The last number given to a deadline.
        forming: Number of the run that collects events, or 0.
        formed: Events that it has collected.
        formed_since, formed_last: When it got its first and when the cell saw its last event.
        fired: How many runs it has started.
    """

    places: list[PlaceState]
    watermark: float = 0.0
    deadlines: list[int] = field(default_factory=list)
    last_deadline: int = 0
    forming: int = 0
    formed: int = 0
    formed_since: float = 0.0
    formed_last: float = 0.0
    fired: int = 0


class Deadline(Struct, frozen=True):
    """A deadline that starts to run.

    Attributes:
        slot: Which one of the expression.
        number: Identifies it: a later one of the same slot has another.
        due: Seconds since 1970.
    """

    slot: int
    number: int
    due: float


class Firing(Struct, frozen=True):
    """What a condition does at a moment.

    Attributes:
        kind: `run` starts one, `skip` drops what is pending in `places`.
        places: The places of the sides that held; their pending events are consumed.
    """

    kind: Literal["run", "skip"]
    places: tuple[int, ...]


def new_cell(schedule: Schedule, key: str | None = None) -> Cell:
    """Return the state in which nothing is pending, for the whole or for one partition key.

    Raises:
        InvalidInput: The key is no window of the kind that is rolled up.
    """
    states = []
    for place in inputs(schedule.condition):
        wanted = 0
        if schedule.partitioning is not None and key is not None:
            whole = parts_of(schedule.partitioning.mapper(place.uri), key)
            if whole > 1:
                wanted = min(whole, schedule.partitioning.at_least or whole)
        states.append(PlaceState(wanted=wanted))
    slots = sum(1 for _ in deadlines(schedule.condition))
    return Cell(states, deadlines=[0] * slots)


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
    schedule: Schedule,
    cell: Cell,
    *,
    ticked: frozenset[int] = frozenset(),
    late: frozenset[int] = frozenset(),
) -> Firing | None:
    """Tell what fires now, and take what it consumes out of the cell.

    Args:
        schedule: The schedule.
        cell: Changed in place.
        ticked: Slots of the timetables whose tick this moment is.
        late: Slots of the deadlines that pass at this moment.
    """
    view = _View(cell, ticked, late)
    held = view.held(schedule.condition)
    if held is not None:
        firing = Firing("run", tuple(sorted(held)))
        cell.fired += 1
    else:
        dropped = {
            place.place
            for part in deadlines(schedule.condition)
            if part.slot in late and part.then == "skip"
            for place in inputs(part.side)
            if cell.places[place.place].count
        }
        if not dropped:
            return None
        firing = Firing("skip", tuple(sorted(dropped)))
    for number in firing.places:
        cell.places[number].clear()
    return firing


def run_deadlines(schedule: Schedule, cell: Cell, now: float) -> list[Deadline]:
    """Start the deadlines of sides where something is pending, stop those where nothing is."""
    started = []
    for part in deadlines(schedule.condition):
        waits = any(cell.places[place.place].count for place in inputs(part.side))
        if not waits:
            cell.deadlines[part.slot] = 0
        elif not cell.deadlines[part.slot]:
            cell.last_deadline += 1
            cell.deadlines[part.slot] = cell.last_deadline
            started.append(Deadline(part.slot, cell.last_deadline, now + part.seconds))
    return started


def expiry(place: Input, cell: Cell) -> float | None:
    """Return the time before which a place's events are too old now; None if it does not ask."""
    if place.within_seconds is None:
        return None
    return cell.watermark - place.within_seconds


class _View:
    """Evaluates an expression at one moment."""

    def __init__(self, cell: Cell, ticked: frozenset[int], late: frozenset[int]) -> None:
        self._cell = cell
        self._ticked = ticked
        self._late = late

    def held(self, condition: Condition) -> frozenset[int] | None:
        """Return the places of the sides that hold, or None when the whole does not hold."""
        match condition:
            case Input():
                holds = place_holds(condition, self._cell)
                return frozenset((condition.place,)) if holds else None
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
        if held is not None or condition.then == "skip" or condition.slot not in self._late:
            return held
        there = frozenset(
            place.place for place in inputs(condition.side) if self._cell.places[place.place].count
        )
        return there or None


def place_holds(place: Input, cell: Cell) -> bool:
    """Return whether a place has what it asks for."""
    state = cell.places[place.place]
    if state.count < place.at_least:
        return False
    if len(state.keys) < state.wanted:
        return False
    limit = expiry(place, cell)
    if limit is None:
        return True
    return len(state.times) >= place.at_least and state.times[place.at_least - 1] >= limit


encode_cell = msgspec.msgpack.Encoder().encode
decode_cell = msgspec.msgpack.Decoder(Cell).decode


def carry_over(
    old: Schedule, new: Schedule, cell: Cell, key: str | None = None
) -> tuple[Cell, dict[int, int]]:
    """Return a cell for a new version of a schedule, with what is pending taken along.

    A place keeps its events where the new expression asks for the same dataset under the same
    filter; which, when it stands several times, goes by order.

    Returns:
        The new cell, and old place → new place for those that are kept.
    """
    fresh = new_cell(new, key)
    fresh.watermark, fresh.fired = cell.watermark, cell.fired
    fresh.forming, fresh.formed = cell.forming, cell.formed
    fresh.formed_since, fresh.formed_last = cell.formed_since, cell.formed_last
    fresh.last_deadline = cell.last_deadline
    free: dict[tuple[str, str | None], list[int]] = {}
    for place in inputs(old.condition):
        free.setdefault((place.uri, place.where), []).append(place.place)
    moves = {}
    for place in inputs(new.condition):
        candidates = free.get((place.uri, place.where))
        if candidates:
            before = candidates.pop(0)
            moves[before] = place.place
            kept = cell.places[before]
            fresh.places[place.place] = PlaceState(
                kept.count,
                kept.times[: place.at_least],
                kept.keys,
                fresh.places[place.place].wanted,
                kept.since,
            )
    return fresh, moves
