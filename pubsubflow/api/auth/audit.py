"""The record of who did what, and of who was not let."""

from collections.abc import Callable
from datetime import timedelta

import anyio
import msgspec
import structlog

from pubsubflow.errors import StoreUnavailable
from pubsubflow.store.auth import AuditLog, Deed

log = structlog.get_logger(__name__)

_MINUTE_SECONDS = 60.0
_PRUNE_MINUTES = 60
_KINDS = 30
_OTHERS = Deed(asker="nobody", action="other refused attempts")


class Diary:
    """Writes the audit log.

    What is refused is written when it happens first; its like within the same minute is counted,
    and so is all beyond 30 kinds a minute: a flood of wrong tokens writes 61 rows a minute at most.

    Args:
        audit: Where it is written.
        keep: For how long.
        now: The time in seconds, of a clock that is never set.
    """

    def __init__(
        self,
        audit: AuditLog,
        *,
        keep: timedelta,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._audit = audit
        self._keep = keep
        self._now = now
        self._began: float | None = None
        self._counts: dict[Deed, int] = {}

    async def begin(self, deed: Deed) -> int:
        """Write down what somebody is about to do; return its number.

        Raises:
            StoreUnavailable: It cannot be written, so it must not be done.
        """
        return await self._audit.record(deed)

    async def end(self, number: int, status: int, about: str | None) -> None:
        """Write down how it ended."""
        try:
            await self._audit.settle(number, status, about)
        except StoreUnavailable as error:
            log.warning("audit.unsettled", audit=number, status=status, reason=str(error))

    async def refused(self, deed: Deed) -> None:
        """Write down what somebody was not let do, or count it."""
        if self._began is None or self._now() - self._began > _MINUTE_SECONDS:
            await self.turn()
        kind = deed if deed in self._counts or len(self._counts) < _KINDS else _OTHERS
        seen = self._counts.get(kind)
        self._counts[kind] = 1 if seen is None else seen + 1
        if seen is None and kind is deed:
            log.info("api.refused", asker=deed.asker, action=deed.action, remote=deed.remote)
            await self._write(deed)

    async def turn(self) -> None:
        """Begin a new minute; write down how often the last one's refusals came again."""
        counts, self._counts, self._began = self._counts, {}, self._now()
        for kind, count in counts.items():
            more = count if kind is _OTHERS else count - 1
            if more:
                await self._write(kind, times=more)

    async def follow(self) -> None:
        """Write what was counted, and forget what is old, until cancelled."""
        minutes = 0
        while True:
            if minutes % _PRUNE_MINUTES == 0:
                await self._prune()
            await anyio.sleep(_MINUTE_SECONDS)
            await self.turn()
            minutes += 1

    async def _write(self, deed: Deed, times: int = 1) -> None:
        try:
            await self._audit.record(msgspec.structs.replace(deed, times=times))
        except StoreUnavailable as error:
            log.warning("audit.unwritten", action=deed.action, times=times, reason=str(error))

    async def _prune(self) -> None:
        try:
            await self._audit.prune(self._keep)
        except StoreUnavailable as error:
            log.warning("audit.unpruned", reason=str(error))
