"""Validation of single values as users write them; the caller adds the location."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

Seconds = timedelta | float


def seconds(value: object) -> float:
    """Return a duration in seconds.

    Raises:
        TypeError: It is not a duration.
        ValueError: It is negative or infinite.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    # bool is a subclass of int: True would count as one second.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a timedelta or a number of seconds")
    if not 0 <= value < float("inf"):
        raise ValueError("must not be negative or infinite")
    return float(value)


def positive_seconds(value: object) -> float:
    """Return a duration above zero in seconds.

    Raises:
        TypeError: It is not a duration.
        ValueError: It is not above zero.
    """
    found = seconds(value)
    if not found:
        raise ValueError("must be more than zero seconds")
    return found


def whole(least: int | None, most: int | None = None) -> Callable[[object], int]:
    """Return a check for whole numbers from `least` to `most`; None does not bound them."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("must be a whole number")
        if least is not None and value < least:
            raise ValueError(f"must be at least {least}")
        if most is not None and value > most:
            raise ValueError(f"must be at most {most:,}")
        return value

    return check


def number(least: float, most: float = float("inf")) -> Callable[[object], float]:
    """Return a check for numbers from `least` to `most`."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("must be a number")
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}")
        return float(value)

    return check


def text(value: object) -> str:
    """Return a non-empty string.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, str) or not value:
        raise TypeError("must be a string")
    return value


def flag(value: object) -> bool:
    """Return True or False as it is.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, bool):
        raise TypeError("must be True or False")
    return value


def function(value: object) -> Callable[..., object]:
    """Return a callable.

    Raises:
        TypeError: It is something else.
    """
    if not callable(value):
        raise TypeError("must be a function")
    return value


def optional(check: Callable[[object], Any]) -> Callable[[object], Any]:
    """Return a check that accepts None as well."""
    return lambda value: None if value is None else check(value)
