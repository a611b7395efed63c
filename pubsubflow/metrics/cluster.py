"""Cluster metrics: unfinished work of all daemons, read from Postgres and JetStream at a scrape.

Every daemon exposes the same values, so they must not be summed over daemons; all are named
`pubsubflow_cluster_…`.
"""

from collections.abc import Iterator

import anyio
import structlog

from pubsubflow.bus import Bus, ConsumerStats
from pubsubflow.errors import ConfigError, Unavailable
from pubsubflow.instruments import Counter, Gauge, Instrument, Labels
from pubsubflow.store.database import Database
from pubsubflow.store.read.statistics import DEAD_LETTER_KINDS, Statistic, read_statistics

log = structlog.get_logger(__name__)

_QUERY_SECONDS = 5.0
_TASK_STATES = ("queued", "running", "up_for_retry", "deferred")
_COUNTS = (
    # subject, name, help, label, label values that are exposed although there are none
    ("tasks", "tasks", "Tasks that are not finished; queued ones wait to be taken.",
     "state", _TASK_STATES),
    ("waits", "waits", "What deferred tasks and watched datasets wait for.",
     "kind", ("time", "trigger", "event", "watch")),
    ("unleased_triggers", "unowned_triggers", "Triggers that no triggerer runs yet.", "", ()),
    ("timers", "overdue_timers", "Timers that are due and have not fired.", "", ()),
    ("dead_letters", "dead_letters", "Dead letters that are not sent again.", "kind",
     DEAD_LETTER_KINDS),
    ("alerts", "open_alerts", "Alerts that have not ended.", "kind",
     ("deadline", "freshness", "callback", "check")),
    ("held_events", "held_events", "Events that checks hold.", "", ()),
    ("runs", "runs", "Runs that are not finished; queued ones wait for their DAG's limit.",
     "state", ()),
    ("dags", "dags", "DAGs that are defined in a file.", "", ()),
    ("paused", "paused_dags", "DAGs that are paused.", "", ()),
    ("import_errors", "import_errors", "DAG files that cannot be imported.", "", ()),
    ("workers", "workers", "Workers that have not stopped or been lost.", "", ()),
    ("slots", "worker_slots", "Tasks that can run at once in all workers.", "", ()),
    ("busy_slots", "worker_slots_used", "Tasks that run in all workers, by their last heartbeats.",
     "", ()),
    ("triggerers", "triggerers", "Triggerers that have not stopped or been lost.", "", ()),
    ("capacity", "trigger_capacity", "Triggers that all triggerers may run.", "", ()),
    ("running_triggers", "triggers", "Triggers that all triggerers run, by their last heartbeats.",
     "", ()),
)  # fmt: skip
_AGES = (
    ("tasks", "oldest_task_seconds", "Time since the oldest task was handed out.", "state",
     _TASK_STATES),
    ("unleased_triggers", "oldest_unowned_trigger_seconds",
     "Age of the oldest trigger that no triggerer runs.", "", ()),
    ("timers", "oldest_overdue_timer_seconds", "How late the oldest timer is.", "", ()),
    ("dead_letters", "oldest_dead_letter_seconds", "Age of the oldest dead letter.", "kind",
     DEAD_LETTER_KINDS),
    ("held_events", "oldest_held_event_seconds", "How long the oldest event is held by checks.",
     "", ()),
)  # fmt: skip


class ClusterMetrics:
    """The metrics of all daemons together.

    Args:
        bus: The statistics of JetStream.
        database: All other statistics; None for a daemon without Postgres, which leaves them out.
        refresh_seconds: Age at which they are read again.
    """

    def __init__(self, *, bus: Bus, database: Database | None, refresh_seconds: float) -> None:
        self._bus = bus
        self._database = database
        self._refresh_seconds = refresh_seconds
        self._lock = anyio.Lock()
        self._refreshed_at: float | None = None
        self._statistics: list[Statistic] | None = None
        self._consumers: list[ConsumerStats] | None = None
        self._failures = Counter(
            "pubsubflow_scrape_failures",
            "Times that metrics of the cluster could not be read; they are left out then.",
            ("server",),
        )
        for server in ("postgres", "nats"):
            self._failures.add(0, server)

    async def refresh(self) -> None:
        """Read the statistics again if they are too old; concurrent calls share one reading."""
        async with self._lock:
            now = anyio.current_time()
            if self._refreshed_at is not None and now - self._refreshed_at < self._refresh_seconds:
                return
            async with anyio.create_task_group() as group:
                group.start_soon(self._read_postgres)
                group.start_soon(self._read_nats)
            self._refreshed_at = anyio.current_time()

    async def _read_postgres(self) -> None:
        # A server that does not answer leaves its metrics out: old values would look healthy.
        self._statistics, found = None, None
        if self._database is None:
            return
        try:
            with anyio.fail_after(_QUERY_SECONDS):
                found = await read_statistics(self._database)
        except (Unavailable, ConfigError, TimeoutError) as error:
            self._failures.add(1, "postgres")
            log.warning("metrics.postgres_read_failed", reason=str(error) or "it took too long")
        self._statistics = found

    async def _read_nats(self) -> None:
        self._consumers, found = None, None
        try:
            with anyio.fail_after(_QUERY_SECONDS):
                found = await self._bus.list_consumer_stats()
        except (Unavailable, TimeoutError) as error:
            self._failures.add(1, "nats")
            log.warning("metrics.nats_read_failed", reason=str(error) or "it took too long")
        self._consumers = found

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all metrics, as they were at the last refresh."""
        yield self._failures
        if self._statistics is not None:
            yield from self._of_postgres(self._statistics)
        if self._consumers is not None:
            yield from self._of_nats(self._consumers)

    def _of_postgres(self, statistics: list[Statistic]) -> Iterator[Instrument]:
        for subject, name, text, label, always in _COUNTS:
            labels: Labels = (label,) if label else ()
            found: dict[Labels, float] = {(each,): 0.0 for each in always}
            found |= {
                _key(each, label): float(each.number)
                for each in statistics
                if each.subject == subject
            }
            yield _gauge(name, text, found, labels)
        for subject, name, text, label, always in _AGES:
            labels = (label,) if label else ()
            found = {(each,): 0.0 for each in always}
            found |= {
                _key(each, label): each.oldest_seconds or 0.0
                for each in statistics
                if each.subject == subject
            }
            yield _gauge(name, text, found, labels)

    @staticmethod
    def _of_nats(consumers: list[ConsumerStats]) -> Iterator[Instrument]:
        labels = ("stream", "consumer")
        yield _gauge(
            "queue_messages",
            "Messages in a queue of JetStream that are not delivered yet.",
            {(each.stream, each.consumer): float(each.waiting) for each in consumers},
            labels,
        )
        yield _gauge(
            "queue_unacknowledged_messages",
            "Messages that are delivered and not acknowledged; for tasks, those that run.",
            {(each.stream, each.consumer): float(each.unacknowledged) for each in consumers},
            labels,
        )
        yield _gauge(
            "queue_oldest_message_seconds",
            "Age of the oldest message that is not delivered yet; 0 for none.",
            {(each.stream, each.consumer): each.oldest_seconds for each in consumers},
            labels,
        )


def _key(statistic: Statistic, label: str) -> Labels:
    return (statistic.label,) if label else ()


def _gauge(name: str, text: str, found: dict[Labels, float], labels: Labels) -> Gauge:
    return Gauge(f"pubsubflow_cluster_{name}", text, lambda: found, labels)
