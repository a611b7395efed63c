"""What a schedule still waits for: the expression side by side with what is there.

Whether a part holds is asked of `cells`, which also decides when a run starts.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice

from msgspec import Struct

from pubsubflow.model.schedule.condition_state import (
    UNREACHABLE,
    Cell,
    collected_at,
    deadline_due,
    expiry,
    held,
)
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
    describe,
)
from pubsubflow.model.schedule.partitions import keys_of

NAMED_PARTS = 10


class Clause(Struct, frozen=True, kw_only=True):
    """A part of the expression.

    Attributes:
        kind: `dataset`, `tick`, `all`, `any`, `or_after`.
        text: As users write it.
        holds: Whether it holds now; a tick holds at its moment only.
        place: Number of the place, for a dataset.
        due: When the time comes next, or the deadline passes; None while it does not run.
        late: Whether the deadline has passed.
        then: What the deadline does: `run` or `skip`.
    """

    kind: str
    text: str
    holds: bool
    place: int | None = None
    due: datetime | None = None
    late: bool = False
    then: str | None = None
    sides: list["Clause"] = []

    def due_by_itself(self) -> datetime | None:
        """Return when it holds without further events; None if it does not, or holds now."""
        if self.kind == "tick":
            return self.due
        if self.holds or self.kind == "dataset":
            return None
        dues = [side.due_by_itself() for side in self.sides if not side.holds]
        known = [due for due in dues if due is not None]
        if self.kind == "or_after" and self.then == "run" and self.due is not None:
            known.append(self.due)
        if self.kind == "all":
            return max(known) if len(known) == len(dues) else None
        return min(known, default=None)


class Parts(Struct, frozen=True, kw_only=True):
    """The parts of a window that is rolled up.

    Attributes:
        wanted: How many different ones it takes.
        there: How many there are.
        missing: The first that are not there.
    """

    wanted: int
    there: int
    missing: list[str]


class Reason(Struct, frozen=True, kw_only=True):
    """Why no run has started.

    Attributes:
        kind: `gone`, `unscheduled`, `broken`, `paused`, `behind`, `capped`, `collecting`, `done`,
            `waiting`.
        text: One line for people.
        until: When that ends by itself, if it does.
    """

    kind: str
    text: str
    until: datetime | None = None


def moment(seconds: float) -> datetime | None:
    """Return seconds since 1970 as a moment; None for 0."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def as_clause(condition: Condition, cell: Cell, ticks: dict[int, datetime]) -> Clause:
    """Return an expression with what holds in a cell.

    Args:
        condition: The expression.
        cell: What is pending.
        ticks: Slot of a tick → when it comes next.
    """
    kind, sides = _kind_and_sides(condition)
    due = None
    if isinstance(condition, Tick):
        due = ticks.get(condition.slot)
    elif isinstance(condition, OrAfter):
        due = moment(deadline_due(condition, cell) or 0)
    return Clause(
        kind=kind,
        text=describe(condition),
        holds=held(condition, cell) is not None,
        place=condition.place if isinstance(condition, Input) else None,
        due=due,
        late=isinstance(condition, OrAfter) and cell.late[condition.slot],
        then=condition.then if isinstance(condition, OrAfter) else None,
        sides=[as_clause(side, cell, ticks) for side in sides],
    )


def _kind_and_sides(condition: Condition) -> tuple[str, tuple[Condition, ...]]:
    match condition:
        case Input():
            return "dataset", ()
        case Tick():
            return "tick", ()
        case OrAfter():
            return "or_after", (condition.side,)
        case AllOf():
            return "all", condition.sides
        case AnyOf():
            return "any", condition.sides
    raise TypeError(condition)


def usable(place: Input, cell: Cell) -> int:
    """Return how many events count for a place now, at most as many as it asks for."""
    state, limit = cell.places[place.place], expiry(place, cell)
    if limit is None:
        return min(state.count, place.at_least)
    return sum(time >= limit for time in state.times[: place.at_least])


def parts(schedule: Schedule, place: Input, cell: Cell, key: str) -> Parts | None:
    """Return the parts of the window that a place collects; None where nothing is rolled up."""
    state = cell.places[place.place]
    if schedule.partitioning is None or not state.wanted or state.wanted == UNREACHABLE:
        return None
    there = set(state.keys)
    missing = (each for each in keys_of(schedule.partitioning.mapper(place.uri), key))
    return Parts(
        wanted=state.wanted,
        there=len(there),
        missing=list(islice((each for each in missing if each not in there), NAMED_PARTS)),
    )


def still_needed(schedule: Schedule, cell: Cell, key: str = "") -> str:
    """Write what an expression lacks, such as `s3://a and (s3://b or s3://c)`."""
    return _needed(schedule, schedule.condition, cell, key)


def _needed(schedule: Schedule, condition: Condition, cell: Cell, key: str) -> str:
    match condition:
        case Input():
            return _needed_input(schedule, condition, cell, key)
        case Tick():
            return f"the time of {describe(condition)}"
        case OrAfter():
            return _needed(schedule, condition.side, cell, key)
        case AllOf() | AnyOf():
            lacking = list(_lacking(condition.sides, cell))
            sign = " and " if isinstance(condition, AllOf) else " or "
            texts = [_needed(schedule, side, cell, key) for side in lacking]
            return sign.join(
                f"({text})" if len(texts) > 1 and (" and " in text or " or " in text) else text
                for text in texts
            )
    raise TypeError(condition)


def _lacking(sides: Iterable[Condition], cell: Cell) -> Iterator[Condition]:
    return (side for side in sides if held(side, cell) is None)


def _needed_input(schedule: Schedule, place: Input, cell: Cell, key: str) -> str:
    window = parts(schedule, place, cell, key)
    count = place.at_least - usable(place, cell)
    if cell.places[place.place].wanted == UNREACHABLE:
        return f"{place.uri}, none of whose keys counts for partition {key}"
    name = f"a match of {place.uri}" if place.pattern else place.uri
    if window is not None and window.there < window.wanted:
        left = window.wanted - window.there
        return f"{left} more part{'s' * (left != 1)} of {name}"
    if place.at_least > 1:
        return f"{count} more event{'s' * (count != 1)} of {name}"
    return f"a newer {name}" if cell.places[place.place].count else name


def collecting(policy: Policy, cell: Cell) -> Reason:
    """Tell until when a run collects events."""
    text = f"a run collects events: {cell.formed} so far"
    if isinstance(policy, Batch):
        text += f"; it starts with {policy.max_events}, or in time"
    elif isinstance(policy, Debounce):
        text += f"; it starts when it was quiet for {policy.quiet_seconds:g} s"
    else:
        text += "; it starts when the active run ends"
    return Reason(kind="collecting", text=text, until=moment(collected_at(policy, cell)))
