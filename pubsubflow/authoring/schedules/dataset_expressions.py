"""Dataset inputs of a schedule: one dataset, or all datasets of a pattern, with constraints."""

from datetime import timedelta
from typing import Any

import msgspec

from pubsubflow.authoring.schedules.cel import checked_expression
from pubsubflow.authoring.schedules.expressions import Schedule, SlotCounters, duration
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import Seconds, whole
from pubsubflow.errors import DefinitionError
from pubsubflow.model.datasets import normalise_uri, not_a_uri
from pubsubflow.model.schedule.conditions import Condition, DatasetInput


class DatasetExpression(Schedule):
    """An expression over events: a dataset, a pattern, or one of them with constraints."""

    __slots__ = ()

    @property
    def dataset_input(self) -> DatasetInput:
        """The input with its constraints; its index is given by the whole expression."""
        raise NotImplementedError

    def where(self, expression: str) -> "ConstrainedDataset":
        """Count only the events for which a CEL expression over `event` is true.

        A second filter is combined with the first by `and`.

        Args:
            expression: For example `event.extra.rows > 0`; an event has `uri`, `partition`,
                `extra`, `time`, `source` and `id`.

        Raises:
            DefinitionError: It is not CEL, or uses another variable than `event`.
        """
        checked_expression(expression, ("event",), "where", condition=True)
        before = self.dataset_input.where
        # In parentheses, as a filter may hold `||`, which binds less than `&&`.
        return self._constrained(where=f"({before}) && ({expression})" if before else expression)

    def at_least(self, events: int) -> "ConstrainedDataset":
        """Hold when at least so many events are pending.

        Raises:
            DefinitionError: It is not a whole number above zero, or is set already.
        """
        try:
            least = whole(1)(events)
        except (TypeError, ValueError) as error:
            raise definition_error(f"at_least: {events!r} {error}") from None
        if self.dataset_input.at_least > 1:
            raise definition_error(f"{self!r} has an at_least already; keep one of them")
        return self._constrained(at_least=least)

    def within(self, age: Seconds) -> "ConstrainedDataset":
        """Count only the events that are at most that old when the whole condition is met.

        An event's age is counted from its own time.

        Args:
            age: A timedelta, or seconds.

        Raises:
            DefinitionError: It is not a duration above zero, or is set already.
        """
        seconds = duration(age, "within")
        if self.dataset_input.within_seconds is not None:
            raise definition_error(f"{self!r} has a within already; keep one of them")
        return self._constrained(within_seconds=seconds)

    def condition(self, slots: SlotCounters) -> Condition:
        """Return the input, numbered."""
        return msgspec.structs.replace(self.dataset_input, index=next(slots.inputs))

    def _constrained(self, **constraints: Any) -> "ConstrainedDataset":
        return ConstrainedDataset(msgspec.structs.replace(self.dataset_input, **constraints))


class ConstrainedDataset(DatasetExpression):
    """A dataset or pattern with constraints on its events."""

    __slots__ = ("_dataset_input",)

    def __init__(self, dataset_input: DatasetInput) -> None:
        self._dataset_input = dataset_input

    @property
    def dataset_input(self) -> DatasetInput:
        """The input with its constraints."""
        return self._dataset_input

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstrainedDataset) and other.dataset_input == self.dataset_input

    def __hash__(self) -> int:
        return hash(self._dataset_input)

    def __repr__(self) -> str:
        given = self._dataset_input
        text = f"Dataset.match({given.uri!r})" if given.pattern else f"Dataset({given.uri!r})"
        if given.where is not None:
            text += f".where({given.where!r})"
        if given.at_least > 1:
            text += f".at_least({given.at_least})"
        if given.within_seconds is not None:
            text += f".within({timedelta(seconds=given.within_seconds)!r})"
        return text

    @property
    def is_plain_pattern(self) -> bool:
        """Whether it is a pattern without further constraints."""
        return self._dataset_input == DatasetInput(0, self._dataset_input.uri, pattern=True)


def written_uri(uri: object) -> str:
    """Return the normalised form of a URI that a user wrote.

    Raises:
        DefinitionError: It is not a URI.
    """
    if not isinstance(uri, str):
        raise definition_error(not_a_uri(uri).message)
    try:
        return normalise_uri(uri)
    except DefinitionError as error:
        raise definition_error(error.message) from error
