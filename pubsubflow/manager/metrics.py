"""What a manager counts and times."""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime

from pubsubflow.instruments import LONG_SECONDS, SIZES, Counter, Figure, Gauge, Histogram, Labels
from pubsubflow.manager.batch import Folded
from pubsubflow.manager.inbox import Item
from pubsubflow.manager.unit_of_work import EndedTask, Ledger, RunWork, Start
from pubsubflow.store.read.statistics import LETTERS


class ManagerFigures:
    """What one manager tells about itself, and about the events, runs and tasks that it folds.

    Args:
        dag_labels: Whether figures about runs and tasks are kept for each DAG: one series a DAG
            and state, so only for some hundreds of DAGs.
    """

    def __init__(self, *, dag_labels: bool = False) -> None:
        self._dag_labels = dag_labels
        more: Labels = ("dag_id",) if dag_labels else ()
        self._batch_seconds = Histogram(
            "pubsubflow_fold_batch_seconds",
            "Time to fold a batch, from its first lock to its commit.",
        )
        self._batch_items = Histogram(
            "pubsubflow_fold_batch_items", "Messages and calls in a batch.", SIZES
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
        self._letters = Counter(
            "pubsubflow_dead_letters_created", "What could not be done, by kind.", ("kind",)
        )
        for kind in LETTERS:  # a first one must show as an increase
            self._letters.add(0, kind)
        self._looks: tuple[Gauge, ...] = ()

    def watch(self, line: deque[Item]) -> None:
        """Tell from now on about what a manager has in line."""
        self._looks = (
            Gauge(
                "pubsubflow_fold_waiting_items",
                "Messages and calls that this manager has and has not folded.",
                lambda: len(line),
            ),
            Gauge(
                "pubsubflow_fold_oldest_item_seconds",
                "How long the first of them has waited.",
                lambda: _age(line[0]) if line else 0.0,
            ),
        )

    def __iter__(self) -> Iterator[Figure]:
        """Iterate over all of them."""
        yield from self._looks
        yield from (self._batch_seconds, self._batch_items, self._events, self._event_to_run)
        yield from (self._runs, self._run_seconds, self._queued, self._task_seconds, self._letters)

    def committed(self, folded: Folded, items: int, seconds: float) -> None:
        """Take in a batch that was just committed.

        Args:
            folded: What was written.
            items: How many messages and calls it held.
            seconds: How long it took.
        """
        now = datetime.now(UTC)
        self._batch_seconds.observe(seconds)
        self._batch_items.observe(items)
        ledger = folded.ledger
        for event in ledger.logged:
            self._events.add(1, "task" if event.run is not None else "outside")
        for start in ledger.starts.values():
            if start.refused is None and not start.forming:
                self._started(start, now)
        for run in ledger.runs.values():
            self._ran(run, now)
        self._retried(ledger)
        for letter in ledger.dead_letters:
            self._letters.add(1, letter.kind)

    def buried(self, kind: str) -> None:
        """Count a dead letter that was written apart from a batch."""
        self._letters.add(1, kind)

    def _started(self, start: Start, now: datetime) -> None:
        more = self._of_dag(start.gate.version.spec.dag_id)
        self._runs.add(1, start.kind, *more)
        newest = max((event for event, _ in start.fresh), key=lambda e: e.number, default=None)
        if newest is not None and newest.accepted_at is not None:
            self._event_to_run.observe((now - newest.accepted_at).total_seconds(), *more)

    def _ran(self, run: RunWork, now: datetime) -> None:
        spec = run.version.spec
        more = self._of_dag(spec.dag_id)
        for task in run.ended_tasks:
            queued = _between(task.queued_at, task.started_at)
            if queued is not None and queued >= 0:  # those of a chain start before they are known
                self._queued.observe(queued, spec.tasks[task.node].queue)
            self._observe_task(task, more)
        if run.outcome is not None:
            seconds = (now - run.facts.created_at).total_seconds()
            self._run_seconds.observe(seconds, run.outcome, *more)

    def _observe_task(self, task: EndedTask, more: Labels) -> None:
        seconds = _between(task.started_at, task.ended_at)
        if seconds is not None:
            self._task_seconds.observe(seconds, task.state, *more)

    def _retried(self, ledger: Ledger) -> None:
        for number, _, _, _, _, _, started_at, ended_at, _ in ledger.attempts:
            more = self._of_dag(ledger.runs[number].version.spec.dag_id)
            seconds = _between(started_at, ended_at)
            if seconds is not None:
                self._task_seconds.observe(seconds, "up_for_retry", *more)

    def _of_dag(self, dag_id: str) -> Labels:
        return (dag_id,) if self._dag_labels else ()


def _age(item: Item) -> float:
    return (datetime.now(UTC) - item.arrived_at).total_seconds()


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
