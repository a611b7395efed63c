"""Backlog of a queue: its size, its age, and its rate of processing."""

from msgspec import Struct


class QueueBacklog(Struct, frozen=True, kw_only=True):
    """The unprocessed events and messages of one queue.

    Attributes:
        pending: Number of events and messages.
        oldest_seconds: Age of the oldest one; 0 if the queue is empty.
        rate: Number that leaves it per second while it is not empty; 0 while that is unknown.
        away: Whether it is stalled because a server is away.
    """

    pending: int = 0
    oldest_seconds: float = 0.0
    rate: float = 0.0
    away: bool = False

    @property
    def seconds(self) -> float | None:
        """The estimated time until it is empty; None while that is unknown."""
        if not self.pending:
            return 0.0
        return self.pending / self.rate if self.rate > 0 else None
