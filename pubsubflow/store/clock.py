"""The clock of Postgres, which all daemons share: read now and then, carried on in between.

The clock of a machine may be wrong for a while, or be set. Daemons decide by the one clock by which
rows get their times; between two readings the monotonic clock carries it on, which is never set.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL


class StoreClock:
    """The time of Postgres.

    Args:
        monotonic: Seconds that go on evenly.
        wall: Seconds since 1970, until Postgres is read for the first time.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()

    def now(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self._ahead + self._monotonic(), UTC)

    async def read(self, connection: Connection) -> float:
        """Read the clock of Postgres, and return it: seconds since 1970."""
        before = self._monotonic()
        seconds: float = await connection.fetchval(SQL["read_clock"])
        # In the middle of the round trip, as far as is known.
        self.set(seconds, (before + self._monotonic()) / 2)
        return seconds

    def set(self, seconds: float, at: float) -> None:
        """Set it to what was read of Postgres.

        Args:
            seconds: Since 1970.
            at: When it was that late there, by the monotonic time here.
        """
        self._ahead = seconds - at
