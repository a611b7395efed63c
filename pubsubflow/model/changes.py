"""News: what happened, as the log of it keeps it and as those who listen to it see it.

News are written with the state that they tell of, in the same transaction: a row of the log for
each transaction. A place in the log is the number of a row and how many of its items are past.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.model.datasets import matches, normalise_uri
from pubsubflow.model.runs.states import RunState, TaskState

MAX_EXTRA_BYTES = 8 * 1024
"""A dataset event's larger extra is left out of its news; `GET /datasets/events` has it."""

_json = msgspec.json.Encoder().encode
_PLACE = re.compile(r"(?P<log>[0-9a-f]{1,32})-(?P<row>\d{1,18})-(?P<item>\d{1,9})", re.ASCII)


class Kind(StrEnum):
    """What a piece of news is about."""

    RUN = "run"
    TASK = "task"
    DATASET = "dataset"
    DAG = "dag"
    IMPORT = "import"


RESET = "reset"
"""The event of a message that stands for news that are gone."""


class RunNews(Struct, frozen=True, kw_only=True):
    """A run has entered a state."""

    run_id: str
    dag_id: str
    state: RunState
    error: str | None = None
    time: datetime


class TaskNews(Struct, frozen=True, kw_only=True):
    """A task of a run has entered a state, or an attempt of its own has followed another.

    Attributes:
        map_index: Which instance of a mapped task, from 0; None for a plain one.
        attempt: Counted from 1; 0 for a task that ended without any.
        error: What a task that ended failed with: type and message.
    """

    run_id: str
    dag_id: str
    task_id: str
    map_index: int | None = None
    state: TaskState
    attempt: int
    error: str | None = None
    time: datetime


class DatasetNews(Struct, frozen=True, kw_only=True):
    """A dataset event was recorded.

    Attributes:
        extra: None if it is larger than `MAX_EXTRA_BYTES`.
        event_time: When it happened, by whoever reported it.
        time: When it was recorded.
        run_id, dag_id, task_id: The task that emitted it, if a task did.
    """

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
    """What happened to a DAG: `retired` once it stands in no file any more."""

    VERSION = "version"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    RETIRED = "retired"


class DagNews(Struct, frozen=True, kw_only=True):
    """A DAG has changed.

    Attributes:
        version: The one in force now, for a new version.
    """

    dag_id: str
    change: DagChange
    version: int | None = None
    time: datetime


class ImportNews(Struct, frozen=True, kw_only=True):
    """A DAG file cannot be imported, or can be again.

    Attributes:
        error: The last line of the error; None once the file can be imported again.
    """

    file: str
    error: str | None
    time: datetime


class ResetNews(Struct, frozen=True, kw_only=True):
    """What happened between the asked place and now is not known any more: load the state anew.

    Attributes:
        reason: `expired` (older than what is kept) or `unknown` (a place of another log).
    """

    reason: str


class Item(Struct, frozen=True, array_like=True):
    """A piece of news in the log: what it can be chosen by, and itself as JSON."""

    kind: Kind
    dag_id: str | None
    run_id: str | None
    dataset: str | None
    data: bytes


_encode_items = msgspec.msgpack.Encoder().encode
_decode_items = msgspec.msgpack.Decoder(tuple[Item, ...]).decode


def item_of(news: RunNews | TaskNews | DatasetNews | DagNews | ImportNews) -> Item:
    """Return news as an item of the log."""
    data = _json(news)
    if isinstance(news, RunNews):
        return Item(Kind.RUN, news.dag_id, news.run_id, None, data)
    if isinstance(news, TaskNews):
        return Item(Kind.TASK, news.dag_id, news.run_id, None, data)
    if isinstance(news, DatasetNews):
        return Item(Kind.DATASET, news.dag_id, news.run_id, news.dataset, data)
    if isinstance(news, DagNews):
        return Item(Kind.DAG, news.dag_id, None, None, data)
    return Item(Kind.IMPORT, None, None, None, data)


def encode_items(items: Sequence[Item]) -> bytes:
    """Return the items of one transaction as a row of the log."""
    return _encode_items(items)


def decode_items(body: bytes) -> tuple[Item, ...]:
    """Return the items of a row of the log."""
    return _decode_items(body)


class Place(Struct, frozen=True):
    """A place in the log: all before row `row` is past, and `item` items of that row.

    Attributes:
        log: The log's own name: a database made anew has another.
    """

    log: str
    row: int
    item: int = 0

    def __str__(self) -> str:
        """Return it as the `id` of a message."""
        return f"{self.log}-{self.row}-{self.item}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """Return the place that a text stands for; None if it is none."""
        found = _PLACE.fullmatch(text)
        return found and cls(found["log"], int(found["row"]), int(found["item"]))


class Selection(Struct, frozen=True):
    """Which news somebody wants: all that have one of the values of every name that is given.

    Attributes:
        datasets: URIs, or patterns in which `*` stands for a part of one segment, `**` for any
            number of them.
    """

    dags: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    datasets: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()

    def takes(self, item: Item) -> bool:
        """Return whether it is wanted."""
        return (
            (not self.kinds or item.kind in self.kinds)
            and (not self.dags or item.dag_id in self.dags)
            and (not self.runs or item.run_id in self.runs)
            and (not self.datasets or self._takes_dataset(item.dataset))
        )

    def _takes_dataset(self, uri: str | None) -> bool:
        if uri is None:
            return False
        return uri in self.datasets or any(
            matches(each, uri) for each in self.datasets if "*" in each
        )


def selection_of(
    *, dags: list[str], runs: list[str], datasets: list[str], kinds: list[Kind]
) -> Selection:
    """Return a selection; run ids and URIs are taken as they are written usually.

    Raises:
        DefinitionError: A dataset is no URI and no pattern of one.
    """
    return Selection(
        frozenset(dags),
        frozenset(each.lower() for each in runs),
        frozenset(map(normalise_uri, datasets)),
        frozenset(kinds),
    )
