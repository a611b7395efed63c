"""Change records are the entries of the change log, and the messages of the live stream.

They are written in the transaction that changes the state itself: one row of the log for each
transaction. A position in the log is the number of a row and an index into its records.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from pubsubflow.model.auth import Rights
from pubsubflow.model.datasets import matches, normalise_uri
from pubsubflow.model.runs.states import RunState, TaskState

MAX_EXTRA_BYTES = 8 * 1024
"""A larger extra of a dataset event is left out here; `GET /datasets/events` returns it."""

_json = msgspec.json.Encoder().encode
# ASCII, because `\d` alone matches the digits of every script.
_POSITION = re.compile(r"(?P<log>[0-9a-f]{1,32})-(?P<row>\d{1,18})-(?P<index>\d{1,9})", re.ASCII)


class ChangeKind(StrEnum):
    """The kind of object that has changed."""

    RUN = "run"
    TASK = "task"
    DATASET = "dataset"
    DAG = "dag"
    IMPORT = "import"
    CHECK = "check"


RESET = "reset"
"""The event of a message that replaces changes which are not kept any more."""


class RunChanged(Struct, frozen=True, kw_only=True):
    """A run has entered a state."""

    kind: ClassVar = ChangeKind.RUN
    dataset: ClassVar = None
    run_id: str
    dag_id: str
    state: RunState
    error: str | None = None
    time: datetime


class TaskChanged(Struct, frozen=True, kw_only=True):
    """A task instance has entered a state, or a new attempt of it has begun.

    Attributes:
        map_index: Index of an instance of a mapped task, from 0; None for a plain task.
        attempt: Counted from 1; 0 for a task that ended without an attempt.
        error: Type and message of the error that a failed task ended with.
    """

    kind: ClassVar = ChangeKind.TASK
    dataset: ClassVar = None
    run_id: str
    dag_id: str
    task_id: str
    map_index: int | None = None
    state: TaskState
    attempt: int
    error: str | None = None
    time: datetime


class DatasetUpdated(Struct, frozen=True, kw_only=True):
    """A dataset event was recorded.

    Attributes:
        extra: None if it is larger than `MAX_EXTRA_BYTES`.
        event_time: When it happened, according to its sender.
        time: When it was recorded.
        run_id, dag_id, task_id: The task that emitted it, if a task did.
    """

    kind: ClassVar = ChangeKind.DATASET
    event_id: str
    dataset: str
    extra: dict[str, Any] | None
    partition: str | None = None
    source: str
    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    event_time: datetime
    time: datetime


class DagChange(StrEnum):
    """How a DAG has changed.

    `missing`: it is not in the DAGs folder now, and waits to come back; `returned`: it is there
    again; `retired`: it is gone for good.
    """

    VERSION = "version"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    MISSING = "missing"
    RETURNED = "returned"
    RETIRED = "retired"


class DagChanged(Struct, frozen=True, kw_only=True):
    """A DAG has changed.

    Attributes:
        version: The one in force now, for a new version.
    """

    kind: ClassVar = ChangeKind.DAG
    run_id: ClassVar = None
    dataset: ClassVar = None
    dag_id: str
    change: DagChange
    version: int | None = None
    time: datetime


class ImportChanged(Struct, frozen=True, kw_only=True):
    """A DAG file cannot be imported, or can be again.

    Attributes:
        error: The last line of the error; None once the file can be imported again.
    """

    kind: ClassVar = ChangeKind.IMPORT
    dag_id: ClassVar = None
    run_id: ClassVar = None
    dataset: ClassVar = None
    file: str
    error: str | None
    time: datetime


class CheckChanged(Struct, frozen=True, kw_only=True):
    """A check of an event has begun, or has come out.

    Attributes:
        check: Name of the check; `dag_id` is that of the DAG that it is.
        run_id: The run that checks the event; None while the check is paused.
        outcome: `waiting`, `passed`, `failed` or `error`.
        severity: Of a failure.
        holding: Whether it holds the event.
        description: What it has found, or its error.
    """

    kind: ClassVar = ChangeKind.CHECK
    check: str
    event_id: str
    dataset: str
    dag_id: str
    run_id: str | None = None
    outcome: str
    severity: str
    holding: bool
    description: str = ""
    time: datetime


class StreamReset(Struct, frozen=True, kw_only=True):
    """The changes after the requested position are not available: clients load the state anew.

    Attributes:
        reason: `expired` (older than what is kept) or `unknown` (a position of another log).
    """

    reason: str


class ChangeRecord(Struct, frozen=True, array_like=True):
    """A change in the log: the fields that it is filtered by, and the change itself as JSON.

    Attributes:
        kind: A ChangeKind; a newer version in the same database may record others.
    """

    kind: str
    dag_id: str | None
    run_id: str | None
    dataset: str | None
    data: bytes


Change = RunChanged | TaskChanged | DatasetUpdated | DagChanged | ImportChanged | CheckChanged

_encode_records = msgspec.msgpack.Encoder().encode
_decode_records = msgspec.msgpack.Decoder(tuple[ChangeRecord, ...]).decode


def encode_records(changes: Sequence[Change]) -> bytes:
    """Return the changes of one transaction as the body of a row of the log."""
    return _encode_records(
        [
            ChangeRecord(each.kind, each.dag_id, each.run_id, each.dataset, _json(each))
            for each in changes
        ]
    )


def decode_records(body: bytes) -> tuple[ChangeRecord, ...]:
    """Return the records in the body of a row of the log."""
    return _decode_records(body)


class LogPosition(Struct, frozen=True):
    """A position in the log: after all rows before `row`, and after `index` records of that row.

    Attributes:
        log: The log's name; a database that is created anew has another.
    """

    log: str
    row: int
    index: int = 0

    def __str__(self) -> str:
        """Return it as the `id` of a message."""
        return f"{self.log}-{self.row}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> "LogPosition | None":
        """Return the position that a message's id stands for; None if it is not one."""
        found = _POSITION.fullmatch(text)
        return found and cls(found["log"], int(found["row"]), int(found["index"]))


class ChangeFilter(Struct, frozen=True):
    """A filter of changes: for every field that is set, one of its values must match.

    Attributes:
        datasets: URIs, or patterns in which `*` stands for a part of one segment, `**` for any
            number of them.
        rights: Only what these rights show; everything if None.
    """

    dags: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()
    kinds: frozenset[ChangeKind] = frozenset()
    rights: Rights | None = None

    def matches(self, record: ChangeRecord) -> bool:
        """Whether a record passes the filter."""
        return (
            (not self.kinds or record.kind in self.kinds)
            and (not self.dags or record.dag_id in self.dags)
            and (not self.runs or record.run_id in self.runs)
            and (not self.datasets or self._matches_dataset(record.dataset))
            and (self.rights is None or _is_seen(record, self.rights))
        )

    def hides_task_of(self, record: ChangeRecord) -> bool:
        """Whether a dataset event is to be shown without the task that emitted it."""
        rights, dag_id = self.rights, record.dag_id
        of_task = record.kind == ChangeKind.DATASET and dag_id is not None
        return of_task and rights is not None and not rights.sees_dag(dag_id or "")

    def _matches_dataset(self, uri: str | None) -> bool:
        if uri is None:
            return False
        return uri in self.datasets or any(
            matches(each, uri) for each in self.datasets if "*" in each
        )


def _is_seen(record: ChangeRecord, rights: Rights) -> bool:
    if record.kind == ChangeKind.DATASET:
        return record.dataset is not None and rights.sees_dataset(record.dataset)
    return record.dag_id is not None and rights.sees_dag(record.dag_id)


def without_task(data: bytes) -> bytes:
    """Return a dataset event's change in JSON without the task that emitted the event."""
    removed = dict.fromkeys(("run_id", "dag_id", "task_id"))
    return _json({**msgspec.json.decode(data), "source": "task", **removed})


def change_filter(
    *,
    dags: list[str],
    runs: list[str],
    datasets: list[str],
    kinds: list[ChangeKind],
    rights: Rights | None = None,
) -> ChangeFilter:
    """Return a filter, with run ids and URIs normalised.

    Raises:
        DefinitionError: A dataset is neither a URI nor a pattern.
    """
    return ChangeFilter(
        frozenset(dags),
        frozenset(each.lower() for each in runs),
        frozenset(map(normalise_uri, datasets)),
        frozenset(kinds),
        rights,
    )
