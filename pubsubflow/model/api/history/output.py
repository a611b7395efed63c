"""JSON types of a part of a task's output, and of what is found in it."""

from msgspec import Struct

from pubsubflow.model.api.resources import LogLineView


class OutputLines(Struct, frozen=True, kw_only=True):
    """Lines of an attempt's output, by their numbers.

    Attributes:
        total: How many lines there are, with those that say why the attempt ended.
        first: Number of the first of `items`; numbers begin at 0.
        whole: Whether no more are to come.
    """

    attempt: int
    total: int
    first: int
    whole: bool
    items: list[LogLineView]


class OutputMatches(Struct, frozen=True, kw_only=True):
    """Lines of an attempt's output that have a text.

    Attributes:
        total: How many lines there are.
        count: How many of them have the text.
        lines: The numbers of the first of these lines, as many as the request allows.
    """

    attempt: int
    total: int
    count: int
    lines: list[int]
