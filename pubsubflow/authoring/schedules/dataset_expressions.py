"""Places where a dataset, or all datasets of a pattern, stand in a schedule."""

from datetime import timedelta
from typing import Any

import msgspec

from pubsubflow.authoring.schedules.cel import checked
from pubsubflow.authoring.schedules.expressions import Numbers, Schedule, duration
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.validation import Seconds, whole
from pubsubflow.model.schedule.conditions import Condition, Input


class Source(Schedule):
    """Something that has events: a dataset, a pattern, or one of them with demands."""

    __slots__ = ()

    @property
    def place(self) -> Input:
        """What it asks for, not numbered yet."""
        raise NotImplementedError

    def where(self, expression: str) -> "Demand":
        """Let only events count for which a CEL expression over `event` is true.

        A second one must be true as well.

        Args:
            expression: For example `event.extra.rows > 0`; an event has `uri`, `partition`,
                `extra`, `time`, `source` and `id`.

        Raises:
            DefinitionError: It is no CEL, or speaks of something else than `event`.
        """
        checked(expression, ("event",), "where")
        before = self.place.where
        return self._asking(where=f"({before}) && ({expression})" if before else expression)

    def at_least(self, events: int) -> "Demand":
        """Hold when so many unconsumed events are there.

        Raises:
            DefinitionError: It is no whole number from 1 on, or was said already.
        """
        try:
            least = whole(1)(events)
        except (TypeError, ValueError) as error:
            raise mistake(f"at_least: {events!r} {error}") from None
        if self.place.at_least > 1:
            raise mistake(f"{self!r} has an at_least already; keep one of them")
        return self._asking(at_least=least)

    def within(self, age: Seconds) -> "Demand":
        """Let only events count that are at most that old when the whole condition is met.

        An event's age is counted by its own time.

        Args:
            age: A timedelta, or seconds.

        Raises:
            DefinitionError: It is no duration above zero, or was said already.
        """
        seconds = duration(age, "within")
        if self.place.within_seconds is not None:
            raise mistake(f"{self!r} has a within already; keep one of them")
        return self._asking(within_seconds=seconds)

    def condition(self, numbers: Numbers) -> Condition:
        """Return the place."""
        return msgspec.structs.replace(self.place, place=next(numbers.places))

    def _asking(self, **demands: Any) -> "Demand":
        return Demand(msgspec.structs.replace(self.place, **demands))


class Demand(Source):
    """A dataset or pattern with what is asked of its events."""

    __slots__ = ("_place",)

    def __init__(self, place: Input) -> None:
        self._place = place

    @property
    def place(self) -> Input:
        """What it asks for."""
        return self._place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Demand) and other.place == self.place

    def __hash__(self) -> int:
        return hash(self._place)

    def __repr__(self) -> str:
        place = self._place
        text = f"Dataset.match({place.uri!r})" if place.pattern else f"Dataset({place.uri!r})"
        if place.where is not None:
            text += f".where({place.where!r})"
        if place.at_least > 1:
            text += f".at_least({place.at_least})"
        if place.within_seconds is not None:
            text += f".within({timedelta(seconds=place.within_seconds)!r})"
        return text

    @property
    def is_plain_pattern(self) -> bool:
        """Whether it is a pattern of which nothing more is asked."""
        return self._place == Input(0, self._place.uri, pattern=True)
