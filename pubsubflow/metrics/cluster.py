"""What the whole cluster has to do: asked from Postgres and JetStream when somebody scrapes.

Every daemon that is asked tells the same, so these figures must not be summed over daemons; all
of them are named `pubsubflow_cluster_…`.
"""

from collections.abc import Iterator

import anyio
import structlog

from pubsubflow.bus import Backlog, Bus
from pubsubflow.errors import ConfigError, Unavailable
from pubsubflow.instruments import Counter, Figure, Gauge, Labels
from pubsubflow.store.database import Database
from pubsubflow.store.read.statistics import LETTERS, Amount, read_backlog

log = structlog.get_logger(__name__)

_ASK_SECONDS = 5.0
_TASK_STATES = ("queued", "running", "up_for_retry", "deferred")
_NUMBERS = (
    # what, name, help, label, values that are shown although there are none
    ("tasks", "tasks", "Tasks that are not finished; queued ones wait to be taken.",
     "state", _TASK_STATES),
    ("waits", "waits", "What deferred tasks and watched datasets wait for.",
     "kind", ("time", "trigger", "event", "watch")),
    ("free", "unowned_triggers", "Triggers that no triggerer runs yet.", "", ()),
    ("timers", "overdue_timers", "Timers that are due and not taken.", "", ()),
    ("letters", "dead_letters", "What could not be done and was not sent again.", "kind",
     LETTERS),
    ("runs", "runs", "Runs that are not finished; queued ones wait for their DAG's limit.",
     "state", ()),
    ("dags", "dags", "DAGs that stand in a file.", "", ()),
    ("paused", "paused_dags", "DAGs that are paused.", "", ()),
    ("broken", "import_errors", "DAG files that cannot be imported.", "", ()),
    ("workers", "workers", "Workers that have not said farewell.", "", ()),
    ("slots", "worker_slots", "Tasks that can run at once in all workers.", "", ()),
    ("busy", "worker_slots_used", "Tasks that run in all workers, by their last word.", "", ()),
    ("triggerers", "triggerers", "Triggerers that have not said farewell.", "", ()),
    ("capacity", "trigger_capacity", "Triggers that all triggerers may run.", "", ()),
    ("triggered", "triggers", "Triggers that all triggerers run, by their last word.", "", ()),
)  # fmt: skip
_AGES = (
    ("tasks", "oldest_task_seconds", "Time since the oldest task was handed out.", "state",
     _TASK_STATES),
    ("free", "oldest_unowned_trigger_seconds", "Age of the oldest that no triggerer runs.", "",
     ()),
    ("timers", "oldest_overdue_timer_seconds", "How late the oldest timer is.", "", ()),
    ("letters", "oldest_dead_letter_seconds", "Age of the oldest dead letter.", "kind", LETTERS),
)  # fmt: skip


class Cluster:
    """What all daemons together have to do.

    Args:
        bus: Knows what waits in JetStream.
        database: Knows all else; None for a daemon without Postgres, which tells nothing of it.
        refresh_seconds: What is known is used again for so long.
    """

    def __init__(self, *, bus: Bus, database: Database | None, refresh_seconds: float) -> None:
        self._bus = bus
        self._database = database
        self._refresh_seconds = refresh_seconds
        self._lock = anyio.Lock()
        self._asked_at: float | None = None
        self._amounts: list[Amount] | None = None
        self._backlogs: list[Backlog] | None = None
        self._failures = Counter(
            "pubsubflow_scrape_failures",
            "Times that figures of the cluster could not be asked for; they are left out then.",
            ("server",),
        )
        for server in ("postgres", "nats"):
            self._failures.add(0, server)

    async def refresh(self) -> None:
        """Ask anew if what is known is too old; those who come meanwhile wait for the answer.

        A server that does not answer leaves its figures out: an old figure would look like peace.
        """
        async with self._lock:
            now = anyio.current_time()
            if self._asked_at is not None and now - self._asked_at < self._refresh_seconds:
                return
            async with anyio.create_task_group() as group:
                group.start_soon(self._ask_postgres)
                group.start_soon(self._ask_nats)
            self._asked_at = anyio.current_time()

    async def _ask_postgres(self) -> None:
        self._amounts, found = None, None
        if self._database is None:
            return
        try:
            with anyio.fail_after(_ASK_SECONDS):
                found = await read_backlog(self._database)
        except (Unavailable, ConfigError, TimeoutError) as error:
            self._failures.add(1, "postgres")
            log.warning("metrics.postgres_silent", reason=str(error) or "it took too long")
        self._amounts = found

    async def _ask_nats(self) -> None:
        self._backlogs, found = None, None
        try:
            with anyio.fail_after(_ASK_SECONDS):
                found = await self._bus.backlogs()
        except (Unavailable, TimeoutError) as error:
            self._failures.add(1, "nats")
            log.warning("metrics.nats_silent", reason=str(error) or "it took too long")
        self._backlogs = found

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all figures, as they were when they were asked for last."""
        yield self._failures
        if self._amounts is not None:
            yield from self._of_postgres(self._amounts)
        if self._backlogs is not None:
            yield from self._of_nats(self._backlogs)

    def _of_postgres(self, amounts: list[Amount]) -> Iterator[Figure]:
        for what, name, text, label, always in _NUMBERS:
            labels: Labels = (label,) if label else ()
            found: dict[Labels, float] = {(each,): 0.0 for each in always}
            found |= {_key(a, label): float(a.number) for a in amounts if a.what == what}
            yield _gauge(name, text, found, labels)
        for what, name, text, label, always in _AGES:
            labels = (label,) if label else ()
            found = {(each,): 0.0 for each in always}
            found |= {_key(a, label): a.oldest_seconds or 0.0 for a in amounts if a.what == what}
            yield _gauge(name, text, found, labels)

    @staticmethod
    def _of_nats(backlogs: list[Backlog]) -> Iterator[Figure]:
        labels = ("stream", "consumer")
        yield _gauge(
            "queue_messages",
            "Messages in a queue of JetStream that nobody has got yet.",
            {(each.stream, each.consumer): float(each.waiting) for each in backlogs},
            labels,
        )
        yield _gauge(
            "queue_unacknowledged_messages",
            "Messages that somebody has got and not finished; for tasks, those that run.",
            {(each.stream, each.consumer): float(each.delivered) for each in backlogs},
            labels,
        )
        yield _gauge(
            "queue_oldest_message_seconds",
            "Age of the oldest message that nobody has got yet; 0 for none.",
            {(each.stream, each.consumer): each.oldest_seconds for each in backlogs},
            labels,
        )


def _key(amount: Amount, label: str) -> Labels:
    return (amount.label,) if label else ()


def _gauge(name: str, text: str, found: dict[Labels, float], labels: Labels) -> Gauge:
    return Gauge(f"pubsubflow_cluster_{name}", text, lambda: found, labels)
