"""Whether events can be taken in, or have to wait: learned twice a second, not once a request.

What is behind: calls that this daemon's manager has not folded, and what JetStream holds for all
managers. What is short: the disk, where the servers are our own. Once it refuses it does so until
half of it is gone, so that it does not flap. See docs/adr/0013-back-pressure.md.
"""

import shutil
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import anyio
import structlog
from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.api.settings import ApiSettings
from pubsubflow.bus import STREAM_IN, Bus, Lag
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.api.server import IntakeView
from pubsubflow.model.wire.backlog import Backlog

log = structlog.get_logger(__name__)

SAMPLE_SECONDS = 0.5
MAX_RETRY_SECONDS = 60
DISK_RETRY_SECONDS = 30
UNKNOWN_RETRY_SECONDS = 5
"""While nobody can tell how fast it goes."""
_EASE = 0.5
"""Share of a limit below which events are taken in again."""
_DISK_EASE = 1.1


class Sample(Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        called: What this daemon's manager was called for.
        queued: What waits in JetStream.
        free_bytes, total_bytes: Of the disk that our servers write to; None for theirs.
    """

    called: Backlog = Backlog()
    queued: Backlog = Backlog()
    free_bytes: int | None = None
    total_bytes: int = 0

    @property
    def pending(self) -> int:
        """Events and messages that are not folded."""
        return self.called.pending + self.queued.pending

    @property
    def lag_seconds(self) -> float:
        """How long the first of them waits."""
        return max(self.called.oldest_seconds, self.queued.oldest_seconds)


class Refusal(Struct, frozen=True):
    """Why no events are taken in.

    Attributes:
        reason: One line.
        retry_seconds: When to try again.
        disk: Whether it is the disk.
    """

    reason: str
    retry_seconds: int
    disk: bool = False


def judge(sample: Sample, settings: ApiSettings, before: Refusal | None) -> Refusal | None:
    """Decide whether events are taken in; None if they are.

    While Postgres is away nothing is refused here: each request finds that out and says so (503).

    Args:
        sample: What was found.
        settings: The limits.
        before: What was decided last.
    """
    disk = _judge_disk(sample, settings, eased=before is not None and before.disk)
    if disk is not None or sample.called.away:
        return disk
    ease = _EASE if before is not None and not before.disk else 1.0
    pending, seconds = settings.max_pending_events * ease, settings.max_lag_seconds * ease
    if sample.pending < pending and sample.lag_seconds < seconds:
        return None
    return Refusal(
        f"{sample.pending} events wait to be folded, the first for {sample.lag_seconds:.1f} s: "
        "wait, then send it again",
        _retry_seconds(sample, settings),
    )


def _judge_disk(sample: Sample, settings: ApiSettings, *, eased: bool) -> Refusal | None:
    if sample.free_bytes is None:
        return None
    least = max(settings.min_free_bytes, sample.total_bytes * settings.min_free_percent / 100)
    if sample.free_bytes >= least * (_DISK_EASE if eased else 1.0):
        return None
    return Refusal(
        f"the disk is short: {sample.free_bytes >> 20} MiB are free and {int(least) >> 20} MiB "
        "must be; free some, then send it again",
        DISK_RETRY_SECONDS,
        disk=True,
    )


def _retry_seconds(sample: Sample, settings: ApiSettings) -> int:
    """Return when what waits will have fallen to where events are taken in again."""
    room = settings.max_pending_events * _EASE
    share = max(0.0, 1.0 - room / sample.pending) if sample.pending else 0.0
    needed = [
        UNKNOWN_RETRY_SECONDS if backlog.seconds is None else backlog.seconds * share
        for backlog in (sample.called, sample.queued)
    ]
    late = sample.lag_seconds - settings.max_lag_seconds * _EASE
    return max(1, min(MAX_RETRY_SECONDS, ceil(max(*needed, late))))


class Pressure:
    """Follows how far behind the managers are and how much room there is.

    Args:
        settings: The limits.
        backlog: Tells what this daemon's manager has not folded.
        bus: Knows what waits in JetStream.
        disk: A folder on the disk that our own servers write to; None if they are not ours.
        sample_seconds: How often it looks.

    Attributes:
        refusal: Why no events are taken in now; None if they are.
    """

    def __init__(
        self,
        settings: ApiSettings,
        backlog: Callable[[], Backlog],
        bus: Bus,
        *,
        disk: Path | None = None,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._settings = settings
        self._backlog = backlog
        self._bus = bus
        self._disk = disk
        self._sample_seconds = sample_seconds
        self._sample = Sample()
        self._finished: tuple[float, int] | None = None
        self._rate = 0.0
        self._away = False
        self.refusal: Refusal | None = None

    async def follow(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look()
            await anyio.sleep(self._sample_seconds)

    async def look(self) -> None:
        """Look once, and decide."""
        free, total = None, 0
        if self._disk is not None:
            usage = await anyio.to_thread.run_sync(shutil.disk_usage, self._disk)
            free, total = usage.free, usage.total
        self._sample = Sample(
            called=self._called(), queued=await self._queued(), free_bytes=free, total_bytes=total
        )
        before, self.refusal = self.refusal, judge(self._sample, self._settings, self.refusal)
        if (before is None) != (self.refusal is None):
            reason = None if self.refusal is None else self.refusal.reason
            log.warning(
                "api.intake", accepting=self.refusal is None, reason=reason, **self._facts()
            )

    def view(self) -> IntakeView:
        """Return what people see of it."""
        return IntakeView(
            accepting=self.refusal is None,
            reason=None if self.refusal is None else self.refusal.reason,
            retry_seconds=None if self.refusal is None else self.refusal.retry_seconds,
            free_bytes=self._sample.free_bytes,
            **self._facts(),
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "pending": self._sample.pending,
            "lag_seconds": round(self._sample.lag_seconds, 3),
        }

    def _called(self) -> Backlog:
        """Return what the manager has not folded.

        Just after Postgres has come back the age of what waits says how long it was away, not how
        long it takes: until the next look it counts as away.
        """
        was_away, called = self._away, self._backlog()
        self._away = called.away
        return replace(called, away=called.away or was_away)

    async def _queued(self) -> Backlog:
        """Return what waits in JetStream; nothing while it is away, as nothing comes of it."""
        if not self._bus.connected:
            return Backlog(away=True)
        try:
            lag = await self._bus.measure_lag(STREAM_IN, "managers")
        except BusUnavailable as error:
            log.info("api.lag_unknown", reason=str(error))
            return Backlog(away=True)
        self._measure_rate(lag)
        return Backlog(pending=lag.pending, oldest_seconds=lag.oldest_seconds, rate=self._rate)

    def _measure_rate(self, lag: Lag) -> None:
        """Learn how fast messages are folded; while few wait, that says how many come."""
        now = anyio.current_time()
        if self._finished is not None and now > self._finished[0]:
            then, finished = self._finished
            self._rate = max(0.0, (lag.finished - finished) / (now - then))
        self._finished = now, lag.finished
