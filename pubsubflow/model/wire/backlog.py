"""What waits to be folded, and how fast that goes."""

from msgspec import Struct


class Backlog(Struct, frozen=True, kw_only=True):
    """What one queue holds that nobody has folded yet.

    Attributes:
        pending: Events and messages in it.
        oldest_seconds: How long the first of them waits; 0 if there is none.
        rate: How many leave it a second while there are any; 0 while nobody can tell.
        away: Whether nothing leaves it because a server is away.
    """

    pending: int = 0
    oldest_seconds: float = 0.0
    rate: float = 0.0
    away: bool = False

    @property
    def seconds(self) -> float | None:
        """How long it takes until it is empty; None while nobody can tell."""
        if not self.pending:
            return 0.0
        return self.pending / self.rate if self.rate > 0 else None
