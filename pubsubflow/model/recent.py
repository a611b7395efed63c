"""A bounded cache that drops the entry used longest ago (LRU)."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping of bounded size that drops the entry used longest ago.

    Args:
        size: How many entries it keeps.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: K, value: V) -> None:
        """Set the value of a key."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._size:
            self._items.popitem(last=False)

    def discard(self, chosen: Callable[[V], bool]) -> None:
        """Remove the entries whose value is chosen."""
        for key in [key for key, value in self._items.items() if chosen(value)]:
            del self._items[key]

    def pop(self, key: K) -> V | None:
        """Remove a key and return its value, or None."""
        return self._items.pop(key, None)
