"""Rows that a manager remembers, as its last transactions have read them under locks, or written.

Each has its version, the transaction that wrote it (`xmin`). A decision that rests on remembered
rows is written by a statement that compares the versions, so other writers do no harm, and neither
does a memory that is out of date.
"""

import re
from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.recent import Recent
from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.batches.manager_transaction import LockedStates, Row, Transcript
from pubsubflow.store.named_queries import SQL

_RUNS = 1_000
_TASKS = 12_000
_DAGS = 2_000
_MAX_RUN_BYTES = 4_096
_MAX_SUBSCRIBERS = 16
_WRITES = re.compile(
    r"\b(INTO|UPDATE|DELETE FROM) "
    r"(run_live|task_live|dag_state|condition_state|dag_subscription|event_wait|pool)\b"
)
_HARMFUL = frozenset(name for name, text in SQL.items() if _WRITES.search(text)) - {
    "register_datasets"  # it subscribes DAGs to new datasets: these are not remembered yet
}
"""Statements that change rows of these tables, of which a transcript holds the name alone."""


class TaskRow(Struct, gc=False):
    """A row of `task_live`, by the names of its columns."""

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    state: str
    chained: bool
    worker: str | None
    started_at: datetime | None
    wait_set: bytes | None
    direct: bool
    queued_at: datetime
    version: int
    crashes: int = 0
    prior_attempts: int = 0

    def __getitem__(self, column: str) -> Any:
        return getattr(self, column)


class RunRow(Struct, gc=False):
    """A row of `run_live`, by the names of its columns."""

    run: int
    version: int
    progress: bytes
    info: bytes
    source: str
    written: int
    tag_limits: None = None

    def __getitem__(self, column: str) -> Any:
        return getattr(self, column)


class ConditionRow(Struct, gc=False):
    """The state of a condition without partitions; null, without a version, if there is none."""

    dag: int
    state: bytes | None
    written: int | None
    partition_key: str = ""

    def __getitem__(self, column: str) -> Any:
        return getattr(self, column)


class RowMemory:
    """The rows that one manager remembers; those used longest ago are dropped.

    Attributes:
        runs: Live runs.
        tasks: Live tasks.
        dags: States of DAGs that are neither paused nor missing, nor have to catch up.
        conditions: DAG → the state of its condition.
        subscribers: Dataset → the DAGs that subscribe to it, in order.
    """

    def __init__(self) -> None:
        self.runs: Recent[int, RunRow] = Recent(_RUNS)
        self.tasks: Recent[TaskKey, TaskRow] = Recent(_TASKS)
        self.dags: Recent[int, dict[str, Any]] = Recent(_DAGS)
        self.conditions: Recent[int, ConditionRow] = Recent(_DAGS)
        self.subscribers: Recent[int, tuple[int, ...]] = Recent(_DAGS)

    def learn(self, transcript: Transcript) -> None:
        """Remember what a transaction has read and written, once it has committed."""
        if not _HARMFUL.isdisjoint(transcript.queries):
            self.forget(transcript)
            return
        for states in transcript.states:
            self._learn_states(states)
        if transcript.version is not None and transcript.written_at is not None:
            self._learn_dags(transcript, transcript.version)
            self._learn_runs(transcript, transcript.version, transcript.written_at)

    def _learn_states(self, states: LockedStates) -> None:
        for row in states.dags:
            if _is_plain(row):
                self.dags.put(row["dag"], dict(row) if isinstance(row, Row) else row)
            else:
                self.dags.pop(row["dag"])
        for dag, row in states.conditions.items():
            self.conditions.put(dag, ConditionRow(dag, row["state"], row["written"]))
        for dataset, dags in states.subscribers.items():
            if states.awaited or len(dags) > _MAX_SUBSCRIBERS:
                self.subscribers.pop(dataset)
            else:
                self.subscribers.put(dataset, tuple(sorted(dags)))

    def _learn_dags(self, transcript: Transcript, version: int) -> None:
        parts = transcript.parts
        for dag, paused, active, queued, catch_up_from in parts["dag_states"]:
            row = self.dags.get(dag)
            if row is None:
                continue
            if paused or catch_up_from is not None:
                self.dags.pop(dag)
            else:
                row.update(active=active, queued=queued, written=version)
        for dag, key, state, _ in parts["condition_states"]:
            if key == "":
                self.conditions.put(dag, ConditionRow(dag, state, version))

    def _learn_runs(self, transcript: Transcript, version: int, written_at: datetime) -> None:
        parts = transcript.parts
        locked = {row["run"]: row for row in transcript.runs}
        for run, _, dag_version, progress, info, source in parts["opened_runs"]:
            self._put_run(RunRow(run, dag_version, progress, info, source, version))
        for run, progress in parts["progressed_runs"]:
            row = locked.get(run)
            if row is None:  # another statement has read it
                self.runs.pop(run)
                continue
            known = RunRow(run, row["version"], progress, row["info"], row["source"], version)
            self._put_run(known)
        for run, _, _ in parts["closed_runs"]:
            self.runs.pop(run)
        for run, node, map_index in parts["removed_tasks"]:
            self.tasks.pop((run, node, map_index))
        for live in parts["live_tasks"]:
            task = TaskRow(*[*live, written_at, version])
            self.tasks.put((task.run, task.node, task.map_index), task)

    def _put_run(self, row: RunRow) -> None:
        if len(row.info) + len(row.progress) <= _MAX_RUN_BYTES:
            self.runs.put(row.run, row)

    def forget(self, transcript: Transcript) -> None:
        """Forget the rows that a transaction may have changed."""
        for run in transcript.runs:
            self.runs.pop(run["run"])
        for states in transcript.states:
            for row in states.dags:
                self.dags.pop(row["dag"])
                self.conditions.pop(row["dag"])
        for dag, *_ in transcript.parts.get("condition_states", ()):
            self.conditions.pop(dag)
        for run, *_ in transcript.parts.get("progressed_runs", ()):
            self.runs.pop(run)


def _is_plain(row: Row | dict[str, Any]) -> bool:
    """Whether a DAG's state is one that its runs and events alone change."""
    return bool(
        row["present"]
        and not (row["paused"] or row["missing"] or row["backfills"])
        and row["catch_up_from"] is None
        and not row["tag_limits"]
    )
