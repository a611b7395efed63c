"""Schedules over datasets as values, and the one place that decides when they hold.

Every place in the expression where a dataset stands keeps its own pending events. An event is
added to each place it matches; then the expression is evaluated: a place holds when it has an
event, `AllOf` when all its sides hold, `AnyOf` when any does. When the whole holds, one run fires
and consumes all pending events of the sides that held; a side of `AnyOf` that did not hold keeps
its own.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct


class Input(Struct, frozen=True, tag="input"):
    """A place where a dataset stands.

    Attributes:
        place: Number of the place in the expression, from 0, left to right.
        uri: The dataset's normalised URI.
    """

    place: int
    uri: str


class AllOf(Struct, frozen=True, tag="all"):
    """Holds when every side holds."""

    sides: tuple["Condition", ...]


class AnyOf(Struct, frozen=True, tag="any"):
    """Holds when at least one side holds."""

    sides: tuple["Condition", ...]


Condition = Input | AllOf | AnyOf


def inputs(condition: Condition) -> Iterator[Input]:
    """Yield every place of the expression, left to right."""
    if isinstance(condition, Input):
        yield condition
        return
    for side in condition.sides:
        yield from inputs(side)


def held_places(condition: Condition, pending: Sequence[int]) -> frozenset[int] | None:
    """Return the places of the sides that hold, or None when the whole does not hold.

    Args:
        condition: The expression.
        pending: Number of pending events per place.
    """
    if isinstance(condition, Input):
        return frozenset((condition.place,)) if pending[condition.place] else None
    held = [held_places(side, pending) for side in condition.sides]
    if isinstance(condition, AllOf):
        if any(side is None for side in held):
            return None
    elif all(side is None for side in held):
        return None
    return frozenset().union(*(side for side in held if side is not None))


def decide(
    condition: Condition, pending: Sequence[int], places: Sequence[int]
) -> tuple[list[int], frozenset[int]]:
    """Add one event to its places and tell what then fires.

    Args:
        condition: The expression.
        pending: Number of pending events per place before the event.
        places: The places that the event matches.

    Returns:
        The pending counts afterwards, and the places whose pending events the run consumes;
        empty when nothing fires.
    """
    counts = list(pending)
    for place in places:
        counts[place] += 1
    held = held_places(condition, counts) or frozenset()
    for place in held:
        counts[place] = 0
    return counts, held


def describe(condition: Condition) -> str:
    """Write the expression as users do: `(a & b) | c`."""
    if isinstance(condition, Input):
        return condition.uri
    sign = " & " if isinstance(condition, AllOf) else " | "
    parts = (
        describe(side) if isinstance(side, Input) else f"({describe(side)})"
        for side in condition.sides
    )
    return sign.join(parts)
