"""Direct orders: a manager gives tasks to the worker of its own daemon, without the bus."""

from collections.abc import Callable
from typing import Protocol


class OrderTaker(Protocol):
    """The worker of this daemon, as its manager sees it.

    Attributes:
        worker_id: Its name.
    """

    worker_id: str

    def room(self, queue: str, kind: str) -> int:
        """Return how many orders of a queue and kind it takes now; 0 while others wait for it."""

    def take(
        self, queue: str, kind: str, subject: str, data: bytes, give_back: Callable[[], None]
    ) -> None:
        """Take an order that a committed transaction has marked as its own.

        Args:
            queue: The task's queue.
            kind: `sync` or `async`.
            subject: The subject under which the bus would carry it.
            data: The encoded `TaskMessage`.
            give_back: Called if it does not run it after all.
        """
