"""The audit recorder writes who changed what, and which attempts were refused."""

import math
from collections.abc import Callable
from datetime import timedelta

import anyio
import msgspec
import structlog

from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.api.auth import AuditView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import ANONYMOUS
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.store.auth import AuditEnding, AuditLog
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger(__name__)

_WINDOW_SECONDS = 60.0
_PRUNE_WINDOWS = 60
_MAX_KINDS = 30
_LAST_SECONDS = 2.0
_GATHER_SECONDS = 0.05
_OTHER_REFUSALS = AuditEntry(principal=ANONYMOUS, action="other refused attempts")


class AuditRecorder:
    """Writes the audit log.

    The first refusal of a kind is written at once; equal ones within the same minute are counted
    and written as one row at its end, and so are all beyond 30 kinds. A flood of wrong tokens
    writes 61 rows a minute at most.

    Args:
        audit: The stored log.
        keep: Age at which entries are deleted.
        now: Returns the time in seconds, by a monotonic clock.
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
        self._window_started_at: float | None = None
        self._counts: dict[AuditEntry, int] = {}
        self._endings: list[AuditEnding] = []
        self._ended = Wakeup()
        self._lock = anyio.Lock()
        self._writing = False

    async def begin(self, entry: AuditEntry) -> int:
        """Record a request before it is carried out; return the entry's number.

        Raises:
            StoreUnavailable: It cannot be recorded, so it must not be carried out.
        """
        return await self._audit.record(entry)

    async def end(self, number: int, status: int, target: str | None) -> None:
        """Record the status of the response, and what the request was about.

        The entry itself exists. So the response does not wait: statuses are written soon after
        it, together with others, so that requests in a row cost few commits more.
        """
        self._endings.append(AuditEnding(number, status, target))
        if self._writing:
            self._ended.notify()
        else:
            await self._write_endings()

    async def page(
        self, *, limit: int, after: int | None = None, principal: str | None = None
    ) -> Page[AuditView]:
        """Return entries, the newest first, with the statuses of all responses of this daemon."""
        await self._write_endings()
        return await self._audit.page(limit=limit, after=after, principal=principal)

    async def record_refusal(self, entry: AuditEntry) -> None:
        """Record a refused request, or count it if one like it was recorded in this window."""
        if self._window_started_at is None or (
            self._now() - self._window_started_at > _WINDOW_SECONDS
        ):
            await self.flush_counts()
        kind = entry if entry in self._counts or len(self._counts) < _MAX_KINDS else _OTHER_REFUSALS
        seen = self._counts.get(kind)
        # Counted before the write, which yields: an equal refusal meanwhile is not written too.
        self._counts[kind] = 1 if seen is None else seen + 1
        if seen is None and kind is entry:
            log.info(
                "api.request_refused",
                principal=entry.principal,
                action=entry.action,
                remote=entry.remote,
            )
            await self._write(entry)

    async def flush_counts(self) -> None:
        """Begin a new window; write how often each refusal of the last one was repeated."""
        counts, self._counts, self._window_started_at = self._counts, {}, self._now()
        for kind, count in counts.items():
            repeated = count if kind is _OTHER_REFUSALS else count - 1
            if repeated:
                await self._write(kind, times=repeated)

    async def run(self) -> None:
        """Write statuses, flush counts each minute, prune entries each hour, until cancelled."""
        self._writing = True
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_writing)
                group.start_soon(self._keep_counting)
        finally:
            # Requests that are still under way write theirs at once.
            self._writing = False
            with anyio.move_on_after(_LAST_SECONDS, shield=True):
                await self._write_endings()

    async def _keep_writing(self) -> None:
        while True:
            await self._ended.wait(math.inf)
            await anyio.sleep(_GATHER_SECONDS)
            await self._write_endings()

    async def _write_endings(self) -> None:
        # Who reads waits for what is being written.
        async with self._lock:
            endings, self._endings = self._endings, []
            if not endings:
                return
            try:
                await self._audit.finish_all(endings)
            except StoreUnavailable as error:
                # The requests were carried out and their entries exist: only the statuses stay
                # unknown.
                numbers = [each.number for each in endings]
                log.warning("audit.finish_failed", audits=numbers, reason=str(error))

    async def _keep_counting(self) -> None:
        windows = 0
        while True:
            if windows % _PRUNE_WINDOWS == 0:
                await self._prune()
            await anyio.sleep(_WINDOW_SECONDS)
            await self.flush_counts()
            windows += 1

    async def _write(self, entry: AuditEntry, times: int = 1) -> None:
        try:
            await self._audit.record(msgspec.structs.replace(entry, times=times))
        except StoreUnavailable as error:
            log.warning("audit.write_failed", action=entry.action, times=times, reason=str(error))

    async def _prune(self) -> None:
        try:
            await self._audit.prune(self._keep)
        except StoreUnavailable as error:
            log.warning("audit.prune_failed", reason=str(error))
