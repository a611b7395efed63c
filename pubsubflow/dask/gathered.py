"""Requests to a scheduler that gather: what comes while one is under way goes in the next one."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import anyio

from pubsubflow.errors import PubsubflowError

T = TypeVar("T")


class SchedulerAway(PubsubflowError):  # noqa: N818 - a state of the world
    """The scheduler cannot be reached."""


class _Batch(Generic[T]):
    """Items that go together.

    Attributes:
        done: Whether it was tried to its end.
        error: Why it failed; empty if it did not.
    """

    def __init__(self) -> None:
        self.items: dict[str, T] = {}
        self.done = False
        self.error = ""


class Gathered(Generic[T]):
    """Does at once what has gathered while the last of its kind was being done.

    Args:
        do: Does it for several. It is called again for those whose first call was cancelled.
    """

    def __init__(self, do: Callable[[Mapping[str, T]], Awaitable[None]]) -> None:
        self._do = do
        self._next: _Batch[T] = _Batch()
        self._doing = anyio.Lock()

    async def add(self, items: Mapping[str, T]) -> None:
        """Return when it is done for these.

        Raises:
            SchedulerAway: The scheduler cannot be reached.
        """
        batch = self._next
        batch.items.update(items)
        async with self._doing:
            if self._next is batch:
                self._next = _Batch()
            # Else another one of the batch has come first; if that was cancelled, it is not done.
            if not batch.done:
                try:
                    await self._do(batch.items)
                except SchedulerAway as error:
                    batch.error = str(error)
                batch.done = True
            if batch.error:
                raise SchedulerAway(batch.error)
