"""Metrics of a manager: its batches, and the events, runs and tasks that it decides."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime

from pubsubflow.instruments import (
    LONG_SECONDS,
    SIZES,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Labels,
)
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.unit_of_work import CommittedBatch, UnitOfWork
from pubsubflow.manager.working_state import EndedTask, RunDraft, RunWork
from pubsubflow.model.schedule.checks import CheckVerdict
from pubsubflow.store.read.statistics import DEAD_LETTER_KINDS


class ManagerMetrics:
    """Metrics of one manager, and of the events, runs and tasks that it decides.

    Args:
        dag_labels: Whether metrics of runs and tasks are kept for each DAG: one series a DAG
            and state, so only for some hundreds of DAGs.
    """

    def __init__(self, *, dag_labels: bool = False) -> None:
        self._dag_labels = dag_labels
        more: Labels = ("dag_id",) if dag_labels else ()
        self._batch_seconds = Histogram(
            "pubsubflow_manager_batch_seconds",
            "Time to process a batch, from its first lock to its commit.",
        )
        self._batch_items = Histogram(
            "pubsubflow_manager_batch_items", "Messages and commands in a batch.", SIZES
        )
        self._remembered = Counter(
            "pubsubflow_manager_remembered_batches",
            "Batches of one message that were decided by remembered rows, by what became of them: "
            "`written`, or `decided_anew` in a transaction.",
            ("outcome",),
        )
        self._events = Counter(
            "pubsubflow_events", "Dataset events recorded, by where they came from.", ("origin",)
        )
        self._event_to_run = Histogram(
            "pubsubflow_event_to_run_seconds",
            "Time from the last event that a run consumes (its acceptance, or the end of the task "
            "that emitted it) to the commit that makes the run.",
            labels=more,
        )
        self._runs = Counter("pubsubflow_runs_created", "Runs made, by kind.", ("kind", *more))
        self._run_seconds = Histogram(
            "pubsubflow_run_seconds",
            "Time from a run's creation to its end, by state.",
            LONG_SECONDS,
            ("state", *more),
        )
        self._queued = Histogram(
            "pubsubflow_task_queue_seconds",
            "Time from the commit that hands a task out to its start, by queue.",
            labels=("queue",),
        )
        self._task_seconds = Histogram(
            "pubsubflow_task_seconds",
            "Time from the start of a task's attempt to its end, by state; one that is tried again "
            "counts as up_for_retry.",
            LONG_SECONDS,
            ("state", *more),
        )
        self._dead_letters = Counter(
            "pubsubflow_dead_letters_created", "What could not be done, by kind.", ("kind",)
        )
        for kind in DEAD_LETTER_KINDS:  # a first one must show as an increase
            self._dead_letters.add(0, kind)
        self._void = Counter(
            "pubsubflow_void_messages",
            "Messages of the time before a restore of Postgres that were dropped, by kind.",
            ("kind",),
        )
        self._checks = Counter(
            "pubsubflow_checks_ended", "Checks of events that have ended, by outcome.", ("outcome",)
        )
        self._held = Counter("pubsubflow_events_held", "Events that checks have held.")
        for outcome in ("passed", "failed", "error"):
            self._checks.add(0, outcome)
        self._inbox: tuple[Gauge, ...] = ()

    def watch(self, waiting: deque[InboxItem]) -> None:
        """Measure a manager's inbox from now on."""
        self._inbox = (
            Gauge(
                "pubsubflow_manager_waiting_items",
                "Messages and commands that this manager has received and not processed.",
                lambda: len(waiting),
            ),
            Gauge(
                "pubsubflow_manager_oldest_item_seconds",
                "How long the first of them has waited.",
                lambda: _age(waiting[0]) if waiting else 0.0,
            ),
        )

    def __iter__(self) -> Iterator[Instrument]:
        """Iterate over all of them."""
        yield from self._inbox
        yield from (self._batch_seconds, self._batch_items, self._remembered)
        yield from (self._events, self._event_to_run)
        yield from (self._runs, self._run_seconds, self._queued, self._task_seconds)
        yield from (self._dead_letters, self._void, self._checks, self._held)

    def committed(self, committed: CommittedBatch, items: int, seconds: float) -> None:
        """Count a batch that was just committed.

        Args:
            committed: What was written.
            items: How many messages and commands it held.
            seconds: How long it took.
        """
        now = datetime.now(UTC)
        self._batch_seconds.observe(seconds)
        self._batch_items.observe(items)
        uow = committed.uow
        for event in uow.log.recorded:
            self._events.add(1, "task" if event.run is not None else "outside")
        for check in uow.checks.changes:
            if check.outcome != CheckVerdict.WAITING:
                self._checks.add(1, check.outcome)
        self._held.add(len(uow.checks.held))
        for draft in uow.schedule.drafts.values():
            if draft.refused is None and not draft.collecting:
                self._count_started(draft, now)
        for run in uow.runs.by_id.values():
            self._count_ended(run, now)
        self._count_retried(uow)
        for letter in uow.outbox.dead_letters:
            self._dead_letters.add(1, letter.kind)

    def dead_letter_stored(self, kind: str) -> None:
        """Count a dead letter that was written apart from a batch."""
        self._dead_letters.add(1, kind)

    def remembered(self, outcome: str) -> None:
        """Count a batch that was decided by remembered rows: `written` or `decided_anew`."""
        self._remembered.add(1, outcome)

    def remembered_batches(self) -> dict[str, float]:
        """Return how many batches were decided by remembered rows, by what became of them."""
        return {outcome: count for (outcome,), count in self._remembered.read()}

    def void_dropped(self, kind: str) -> None:
        """Count a message of the time before a restore of Postgres."""
        self._void.add(1, kind)

    def _count_started(self, draft: RunDraft, now: datetime) -> None:
        more = self._of_dag(draft.dag.version.spec.dag_id)
        self._runs.add(1, draft.kind, *more)
        events = (each.event for each in draft.events)
        newest = max(events, key=lambda event: event.id, default=None)
        if newest is not None and newest.accepted_at is not None:
            self._event_to_run.observe((now - newest.accepted_at).total_seconds(), *more)

    def _count_ended(self, run: RunWork, now: datetime) -> None:
        spec = run.version.spec
        more = self._of_dag(spec.dag_id)
        for task in run.ended_tasks:
            queued = _between(task.queued_at, task.started_at)
            if queued is not None and queued >= 0:  # those of a chain start before they are known
                self._queued.observe(queued, spec.tasks[task.node].queue)
            self._observe_task(task, more)
        if run.outcome is not None:
            seconds = (now - run.info.created_at).total_seconds()
            self._run_seconds.observe(seconds, run.outcome, *more)

    def _observe_task(self, task: EndedTask, more: Labels) -> None:
        seconds = _between(task.started_at, task.ended_at)
        if seconds is not None:
            self._task_seconds.observe(seconds, task.state, *more)

    def _count_retried(self, uow: UnitOfWork) -> None:
        for attempt in uow.runs.attempts:
            more = self._of_dag(uow.runs.by_id[attempt.run].version.spec.dag_id)
            seconds = (attempt.ended_at - attempt.started_at).total_seconds()
            self._task_seconds.observe(seconds, "up_for_retry", *more)

    def _of_dag(self, dag_id: str) -> Labels:
        return (dag_id,) if self._dag_labels else ()


def _age(item: InboxItem) -> float:
    return (datetime.now(UTC) - item.arrived_at).total_seconds()


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
