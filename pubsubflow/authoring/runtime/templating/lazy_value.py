"""A lazy value, read at its first use: for names of a context that cost a request."""

from collections.abc import Callable
from typing import Any

_UNREAD = object()


class LazyValue:
    """Stands for a value, and behaves as it in all but identity.

    Args:
        read: Returns the value; called once.
    """

    __slots__ = ("_read", "_value")

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read
        self._value = _UNREAD

    def read_once(self) -> Any:
        """Return the value."""
        if self._value is _UNREAD:
            self._value = self._read()
        return self._value

    def __getattr__(self, name: str) -> Any:
        return getattr(value_of(self), name)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return type(value_of(self))

    def __str__(self) -> str:
        return str(value_of(self))

    def __repr__(self) -> str:
        return repr(value_of(self))

    def __format__(self, spec: str) -> str:
        return format(value_of(self), spec)

    def __bool__(self) -> bool:
        return bool(value_of(self))

    def __hash__(self) -> int:
        return hash(value_of(self))

    def __eq__(self, other: object) -> bool:
        return bool(value_of(self) == value_of(other))

    def __lt__(self, other: Any) -> bool:
        return bool(value_of(self) < value_of(other))

    def __le__(self, other: Any) -> bool:
        return bool(value_of(self) <= value_of(other))

    def __gt__(self, other: Any) -> bool:
        return bool(value_of(self) > value_of(other))

    def __ge__(self, other: Any) -> bool:
        return bool(value_of(self) >= value_of(other))

    def __add__(self, other: Any) -> Any:
        return value_of(self) + value_of(other)

    def __radd__(self, other: Any) -> Any:
        return other + value_of(self)

    def __sub__(self, other: Any) -> Any:
        return value_of(self) - value_of(other)

    def __rsub__(self, other: Any) -> Any:
        return other - value_of(self)


def value_of(value: Any) -> Any:
    """Return the value that a lazy one stands for; any other as it is."""
    return value.read_once() if type(value) is LazyValue else value
