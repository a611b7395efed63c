"""Outages of Postgres, as a manager sees them."""

import math

import anyio
import structlog

log = structlog.get_logger()

_PATIENCE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_REPEAT_SECONDS = 30.0


class StoreOutage:
    """An outage of Postgres, from the first failure to the first success of the work that waits.

    A connection that opens proves nothing: on a full disk Postgres answers and stores nothing.

    Attributes:
        since: When it began; None while there is none.
        longest: Whether the pause between two attempts is as long as it gets.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._pause = 0.0
        self._logged = False
        self._logged_at = -math.inf
        self.longest = False

    @property
    def impatient(self) -> bool:
        """Whether it lasts for so long that callers are not kept waiting."""
        return self.since is not None and anyio.current_time() - self.since > _PATIENCE_SECONDS

    def begin(self, reason: str) -> float:
        """Note a failed attempt; return the seconds until the next one."""
        now = anyio.current_time()
        if self.since is None:
            self.since = now
            # It may end and begin again with each request.
            self._logged = now - self._logged_at >= _REPEAT_SECONDS
            if self._logged:
                self._logged_at = now
                log.warning("manager.store_away", reason=reason)
        self._pause = min(self._pause * 2 or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        self.longest = self._pause == _LONGEST_PAUSE_SECONDS
        return self._pause

    def end(self) -> None:
        """Note that the work was done, or that there is none."""
        if self.since is None:
            return
        if self._logged:
            seconds = round(anyio.current_time() - self.since, 3)
            log.info("manager.store_back", away_seconds=seconds)
        self.since, self._pause, self.longest = None, 0.0, False
