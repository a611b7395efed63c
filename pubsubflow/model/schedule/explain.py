"""Explanation of a schedule: which parts of its condition hold, and which are missing.

`condition_state` evaluates the parts: the explanation agrees with the decision to start a run.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice

from msgspec import Struct

from pubsubflow.model.schedule.condition_state import (
    UNREACHABLE,
    ConditionState,
    collecting_until,
    deadline_due,
    expiry,
    satisfied_inputs,
)
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
    describe,
)
from pubsubflow.model.schedule.partitions import keys_of

MAX_NAMED_PARTS = 10


class Clause(Struct, frozen=True, kw_only=True):
    """A part of the expression.

    Attributes:
        kind: `dataset`, `tick`, `all`, `any`, `or_after`.
        text: The part as users write it.
        holds: Whether it holds now; a tick holds at its moment only.
        place: Index of the input, for a dataset.
        due: The next tick, or the moment of the deadline; None without one.
        late: Whether the deadline has passed.
        then: The effect of the deadline: `run` or `skip`.
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
        # `all` needs every side, so one side without a moment leaves it open.
        known = [due for due in dues if due is not None]
        if self.kind == "or_after" and self.then == "run" and self.due is not None:
            known.append(self.due)
        if self.kind == "all":
            return max(known) if len(known) == len(dues) else None
        return min(known, default=None)


class Parts(Struct, frozen=True, kw_only=True):
    """The parts of a rolled-up window.

    Attributes:
        wanted: Number of different parts that it requires.
        there: Number of different parts that have events.
        missing: The first parts without events.
    """

    wanted: int
    there: int
    missing: list[str]


class Reason(Struct, frozen=True, kw_only=True):
    """The reason why no run has started.

    Attributes:
        kind: `unserved`, `dead_letters`, `watch`, `gone`, `missing`, `unscheduled`, `broken`,
            `paused`, `behind`, `capped`, `collecting`, `done`, `waiting`.
        text: One line for people.
        until: When that ends by itself, if it does.
    """

    kind: str
    text: str
    until: datetime | None = None


def moment(seconds: float) -> datetime | None:
    """Return seconds since 1970 as a moment; None for 0."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def as_clause(condition: Condition, state: ConditionState, ticks: dict[int, datetime]) -> Clause:
    """Return an expression with the parts that hold in a state.

    Args:
        condition: The expression.
        state: The pending events.
        ticks: Slot of a tick → its next moment.
    """
    kind, sides = _kind_and_sides(condition)
    due = None
    if isinstance(condition, Tick):
        due = ticks.get(condition.slot)
    elif isinstance(condition, OrAfter):
        due = moment(deadline_due(condition, state) or 0)
    return Clause(
        kind=kind,
        text=describe(condition),
        holds=satisfied_inputs(condition, state) is not None,
        place=condition.index if isinstance(condition, DatasetInput) else None,
        due=due,
        late=isinstance(condition, OrAfter) and state.late[condition.slot],
        then=condition.then if isinstance(condition, OrAfter) else None,
        sides=[as_clause(side, state, ticks) for side in sides],
    )


def _kind_and_sides(condition: Condition) -> tuple[str, tuple[Condition, ...]]:
    match condition:
        case DatasetInput():
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


def usable_events(given: DatasetInput, state: ConditionState) -> int:
    """Return how many pending events count for an input, at most as many as it requires."""
    pending = state.inputs[given.index]
    if given.within_seconds is None:
        return min(pending.count, given.at_least)
    limit = expiry(given.within_seconds, state)
    return sum(time >= limit for time in pending.times[: given.at_least])


def parts(
    schedule: ScheduleSpec, given: DatasetInput, state: ConditionState, key: str
) -> Parts | None:
    """Return the parts of the window that an input collects; None without a roll-up."""
    pending = state.inputs[given.index]
    if schedule.partitioning is None or pending.required_keys in (0, UNREACHABLE):
        return None
    present = set(pending.keys)
    every = keys_of(schedule.partitioning.mapper(given.uri), key)
    return Parts(
        wanted=pending.required_keys,
        there=len(present),
        missing=list(islice((each for each in every if each not in present), MAX_NAMED_PARTS)),
    )


def still_needed(schedule: ScheduleSpec, state: ConditionState, key: str = "") -> str:
    """Describe the missing parts of an expression, such as `s3://a and (s3://b or s3://c)`."""
    return _needed(schedule, schedule.condition, state, key)


def _needed(schedule: ScheduleSpec, condition: Condition, state: ConditionState, key: str) -> str:
    match condition:
        case DatasetInput():
            return _needed_input(schedule, condition, state, key)
        case Tick():
            return f"the time of {describe(condition)}"
        case OrAfter():
            return _needed(schedule, condition.side, state, key)
        case AllOf() | AnyOf():
            lacking = list(_lacking(condition.sides, state))
            sign = " and " if isinstance(condition, AllOf) else " or "
            texts = [_needed(schedule, side, state, key) for side in lacking]
            return sign.join(
                f"({text})" if len(texts) > 1 and (" and " in text or " or " in text) else text
                for text in texts
            )
    raise TypeError(condition)


def _lacking(sides: Iterable[Condition], state: ConditionState) -> Iterator[Condition]:
    return (side for side in sides if satisfied_inputs(side, state) is None)


def _needed_input(
    schedule: ScheduleSpec, given: DatasetInput, state: ConditionState, key: str
) -> str:
    window = parts(schedule, given, state, key)
    count = given.at_least - usable_events(given, state)
    if state.inputs[given.index].required_keys == UNREACHABLE:
        return f"{given.uri}, which has no keys for partition {key}"
    name = f"a match of {given.uri}" if given.pattern else given.uri
    if window is not None and window.there < window.wanted:
        left = window.wanted - window.there
        return f"{left} more part{'s' * (left != 1)} of {name}"
    if given.at_least > 1:
        return f"{count} more event{'s' * (count != 1)} of {name}"
    return f"a newer {name}" if state.inputs[given.index].count else name


def collecting(policy: Policy, state: ConditionState) -> Reason:
    """Return the reason that a run is still collecting events."""
    text = f"a run collects events: {state.collected} so far"
    if isinstance(policy, Batch):
        text += f"; it starts with {policy.max_events}, or in time"
    elif isinstance(policy, Debounce):
        text += f"; it starts when it was quiet for {policy.quiet_seconds:g} s"
    else:
        text += "; it starts when the active run ends"
    return Reason(kind="collecting", text=text, until=moment(collecting_until(policy, state)))
