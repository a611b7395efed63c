"""Back-pressure refuses events while the managers are behind or the disk is nearly full.

The load is measured twice a second while events come, not once a request: the commands that this
daemon's manager has not processed, what JetStream holds for all managers, and the free disk space
where the servers are our own. Once events are refused, they are until half of the backlog is gone,
so that it does not flap. See docs/adr/0013-back-pressure.md.
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
from pubsubflow.bus import STREAM_IN, Bus, ConsumerStats
from pubsubflow.errors import BusUnavailable
from pubsubflow.model.api.server import IntakeView
from pubsubflow.model.wire.backlog import QueueBacklog

log = structlog.get_logger(__name__)

SAMPLE_SECONDS = 0.5
IDLE_SECONDS = 5.0
"""Interval of the measurements while no events come and none wait."""
MAX_RETRY_SECONDS = 60
DISK_RETRY_SECONDS = 30
UNKNOWN_RETRY_SECONDS = 5
"""While the rate of processing is unknown."""
_RESUME_SHARE = 0.5
"""Share of a limit below which events are accepted again."""
_DISK_RESUME_SHARE = 1.1


class LoadSample(Struct, frozen=True, kw_only=True):
    """One measurement of the load.

    Attributes:
        commands: Commands that this daemon's manager has not processed.
        queued: Messages that wait in JetStream.
        free_bytes, total_bytes: Of the disk of the daemon's own servers; None if they are not its
            own.
    """

    commands: QueueBacklog = QueueBacklog()
    queued: QueueBacklog = QueueBacklog()
    free_bytes: int | None = None
    total_bytes: int = 0

    @property
    def pending(self) -> int:
        """Events and messages that are not processed yet."""
        return self.commands.pending + self.queued.pending

    @property
    def lag_seconds(self) -> float:
        """How long the oldest of them has waited."""
        return max(self.commands.oldest_seconds, self.queued.oldest_seconds)


class IngestRefusal(Struct, frozen=True):
    """Why events are refused.

    Attributes:
        reason: One line.
        retry_seconds: After how long senders should try again.
        disk: Whether the disk is the reason.
    """

    reason: str
    retry_seconds: int
    disk: bool = False


def decide_refusal(
    sample: LoadSample, settings: ApiSettings, before: IngestRefusal | None
) -> IngestRefusal | None:
    """Decide whether events are refused; None if they are accepted.

    While Postgres is out of reach nothing is refused here: each request then fails with 503.

    Args:
        sample: The load.
        settings: The limits.
        before: The last decision.
    """
    disk = _decide_disk_refusal(sample, settings, refused=before is not None and before.disk)
    if disk is not None or sample.commands.away:
        return disk
    share = _RESUME_SHARE if before is not None and not before.disk else 1.0
    pending, seconds = settings.max_pending_events * share, settings.max_lag_seconds * share
    if sample.pending < pending and sample.lag_seconds < seconds:
        return None
    return IngestRefusal(
        f"{sample.pending} events wait to be processed, the oldest for {sample.lag_seconds:.1f} s: "
        "wait, then send it again",
        _retry_seconds(sample, settings),
    )


def _decide_disk_refusal(
    sample: LoadSample, settings: ApiSettings, *, refused: bool
) -> IngestRefusal | None:
    if sample.free_bytes is None:
        return None
    least = max(settings.min_free_bytes, sample.total_bytes * settings.min_free_percent / 100)
    if sample.free_bytes >= least * (_DISK_RESUME_SHARE if refused else 1.0):
        return None
    return IngestRefusal(
        f"the disk is nearly full: {sample.free_bytes >> 20} MiB are free, {int(least) >> 20} MiB "
        "are required; free some, then send it again",
        DISK_RETRY_SECONDS,
        disk=True,
    )


def _retry_seconds(sample: LoadSample, settings: ApiSettings) -> int:
    """Return after how long the backlog will have fallen to where events are accepted again."""
    room = settings.max_pending_events * _RESUME_SHARE
    share = max(0.0, 1.0 - room / sample.pending) if sample.pending else 0.0
    needed = [
        UNKNOWN_RETRY_SECONDS if backlog.seconds is None else backlog.seconds * share
        for backlog in (sample.commands, sample.queued)
    ]
    late = sample.lag_seconds - settings.max_lag_seconds * _RESUME_SHARE
    return max(1, min(MAX_RETRY_SECONDS, ceil(max(*needed, late))))


class Backpressure:
    """Measures the load, and decides whether events are refused.

    Args:
        settings: The limits.
        backlog: Returns what this daemon's manager has not processed.
        bus: Measures what waits in JetStream.
        disk: A folder on the disk of the daemon's own servers; None if they are not its own.
        sample_seconds: Interval of the measurements.

    Attributes:
        refusal: Why events are refused now; None if they are accepted.
        events_came: Is set by requests that bring events.
    """

    def __init__(
        self,
        settings: ApiSettings,
        backlog: Callable[[], QueueBacklog],
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
        self._sample = LoadSample()
        self._finished: tuple[float, int] | None = None
        self._rate = 0.0
        self._away = False
        self._unanswered_since: float | None = None
        self.refusal: IngestRefusal | None = None
        self.events_came = anyio.Event()

    async def run(self) -> None:
        """Measure at intervals until cancelled."""
        while True:
            came, self.events_came = self.events_came, anyio.Event()
            await self.measure()
            if not (came.is_set() or self._sample.pending or self.refusal is not None):
                with anyio.move_on_after(IDLE_SECONDS):
                    await self.events_came.wait()
            # Not at once after a pause: the first event is on its way to its run just then.
            await anyio.sleep(self._sample_seconds)

    async def measure(self) -> None:
        """Measure once, and decide."""
        if self._unanswered_since is None:
            self._unanswered_since = anyio.current_time()
        free, total = None, 0
        if self._disk is not None:
            usage = await anyio.to_thread.run_sync(shutil.disk_usage, self._disk)
            free, total = usage.free, usage.total
        self._sample = LoadSample(
            commands=self._commands(),
            queued=await self._queued(),
            free_bytes=free,
            total_bytes=total,
        )
        before = self.refusal
        self.refusal = decide_refusal(self._sample, self._settings, before)
        if (before is None) != (self.refusal is None):
            reason = None if self.refusal is None else self.refusal.reason
            log.warning(
                "api.backpressure_changed",
                accepting=self.refusal is None,
                reason=reason,
                **self._facts(),
            )

    def oldest_seconds(self) -> dict[str, float]:
        """Return how long the oldest of each kind has waited to be processed."""
        now = anyio.current_time()
        return {
            "commands": self._sample.commands.oldest_seconds,
            "messages": self._sample.queued.oldest_seconds,
            "jetstream": 0.0 if self._unanswered_since is None else now - self._unanswered_since,
        }

    def view(self) -> IntakeView:
        """Return its representation in the API."""
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

    def _commands(self) -> QueueBacklog:
        """Return what the manager has not processed."""
        was_away, commands = self._away, self._backlog()
        self._away = commands.away
        # Just after Postgres has come back the age of the backlog says how long Postgres was away,
        # not how far the manager is behind. So it counts as away for one measurement more.
        return replace(commands, away=commands.away or was_away)

    async def _queued(self) -> QueueBacklog:
        """Return what waits in JetStream; an empty backlog while NATS is out of reach."""
        if not self._bus.connected:
            return QueueBacklog(away=True)
        try:
            stats = await self._bus.read_consumer_stats(STREAM_IN, "managers")
        except BusUnavailable as error:
            log.info("api.lag_measurement_failed", reason=str(error))
            return QueueBacklog(away=True)
        # Not by the age of the answer: an idle daemon does not ask for seconds.
        self._unanswered_since = None
        self._measure_rate(stats)
        return QueueBacklog(
            pending=stats.pending, oldest_seconds=stats.oldest_seconds, rate=self._rate
        )

    def _measure_rate(self, stats: ConsumerStats) -> None:
        """Measure how many messages are processed a second; with no backlog, how many arrive."""
        now = anyio.current_time()
        if self._finished is not None and now > self._finished[0]:
            then, finished = self._finished
            self._rate = max(0.0, (stats.acknowledged - finished) / (now - then))
        self._finished = now, stats.acknowledged
