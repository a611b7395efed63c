"""The manager's transaction: queries of `sql/manager.sql`, rows in and rows out.

Rows are passed by columns (`unnest`), so that a batch of any size is one statement.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, ClassVar, Protocol

import asyncpg
from msgspec import Struct, field

from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.batches.statements import BATCH, SEVERAL, batch_statement
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

Row = asyncpg.Record
Rows = Sequence[Sequence[Any]]


class Builder(Protocol):
    """Builds the statement that writes some parts of a batch."""

    def __call__(self, parts: Collection[str], *, single: bool = False) -> str:
        """Return the statement; see `batch_statement`."""


def _column(values: Sequence[Any]) -> Sequence[Any]:
    """Return a column of nulls as an empty one: unnest fills up what is shorter with nulls."""
    # The driver looks at each element of an array, nulls as well, twice in Python.
    return () if values.count(None) == len(values) else values


class LockedStates(Struct):
    """States of DAGs that are locked, and what was read under these locks.

    Attributes:
        dags: Rows of the states.
        event_ids: In ascending order.
        conditions: DAG → the state of its condition without partitions, null if there is none; of
            all DAGs that subscribe to the datasets.
        awaited: Whether a wait may match one of the events.
        subscribers: Dataset → the DAGs that subscribe to it, in order.
    """

    dags: list[Row]
    event_ids: list[int]
    conditions: dict[int, Row]
    awaited: bool = False
    subscribers: dict[int, list[int]] = field(default_factory=dict)


class Transcript(Struct):
    """What a transaction has read under its locks, and written: others remember rows by it.

    Attributes:
        runs: Rows of the runs that are locked.
        states: What was locked and read of DAGs.
        parts: The rows that were written, by their parts of `BATCH`.
        queries: Names of all other statements.
        version: The version of the rows that were written: the transaction.
        written_at: When they were.
    """

    runs: list[Row] = field(default_factory=list)
    states: list[LockedStates] = field(default_factory=list)
    parts: dict[str, Rows] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    version: int | None = None
    written_at: datetime | None = None


class ManagerTransaction:
    """Queries of one transaction on one connection.

    Args:
        connection: The connection.
        timed: Called with the seconds of each statement.

    Attributes:
        transcript: What it has read and written.
    """

    _statements: ClassVar[dict[str, str]] = {}

    def __init__(
        self, connection: Connection, timed: Callable[[float], None] | None = None
    ) -> None:
        self._connection = connection
        self._timed = timed
        self.transcript = Transcript()

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Run a named query and return its rows."""
        self.transcript.queries.append(query)
        return await self._fetch(SQL[query], *arguments)

    async def _fetch(self, text: str, *arguments: object) -> list[Row]:
        since = perf_counter()
        rows: list[Row] = await self._connection.fetch(text, *arguments)
        if self._timed is not None:
            self._timed(perf_counter() - since)
        return rows

    async def fetch_in_turn(self, query: str, *calls: Sequence[object]) -> list[Row]:
        """Run a named query several times, in one round trip, and return the rows of all.

        Each call sees what had been committed when it began, those before it being over.
        """
        since = perf_counter()
        rows: list[Row] = await self._connection.fetchmany(SQL[query], calls)
        if self._timed is not None:
            self._timed(perf_counter() - since)
        return rows

    async def write(self, query: str, rows: Rows) -> None:
        """Run a named query over rows, unless there are none."""
        if rows:
            await self.fetch(query, *map(list, zip(*rows, strict=True)))

    async def fetch_rows(self, query: str, rows: Rows) -> list[Row]:
        """Run a named query over rows, unless there are none, and return its rows."""
        return await self.fetch(query, *map(list, zip(*rows, strict=True))) if rows else []

    async def lock_runs(
        self, runs: Iterable[int], tasks: Collection[TaskKey] = ()
    ) -> tuple[list[Row], list[Row]]:
        """Lock live runs in order, and read live tasks of runs that are locked.

        Returns:
            The runs: run, version, progress, info, source, tag_limits. The tasks, by their columns.
        """
        # Every manager locks in this order, so two batches with common runs cannot deadlock.
        ids = sorted(set(runs))
        if not (ids or tasks):
            return [], []
        calls: list[Sequence[object]] = [(ids, (), (), ())] if ids else []
        if tasks:
            calls.append(((), *map(list, zip(*sorted(tasks), strict=True))))
        rows = await self.fetch_in_turn("lock_runs", *calls)
        locked = [row for row in rows if row["node"] is None]
        self.transcript.runs += locked
        return locked, [row for row in rows if row["node"] is not None]

    async def lock_dag_states(
        self, datasets: Sequence[int], dags: Sequence[int], events: int
    ) -> LockedStates:
        """Lock the states of DAGs, and of those that subscribe to datasets; then number events.

        Args:
            datasets: Of the events.
            dags: Further DAGs.
            events: How many ids are allocated.
        """
        calls: list[Sequence[object]] = [(datasets, dags, 0, ())]
        if events:
            calls.append(((), (), events, datasets))
        found = LockedStates([], [], {})
        if events:
            found.subscribers = {dataset: [] for dataset in datasets}
        for row in await self.fetch_in_turn("lock_dag_states", *calls):
            if row["version"] is not None:
                found.dags.append(row)
            elif row["event_ids"] is None:
                found.conditions[row["dag"]] = row
                found.subscribers[row["dataset"]].append(row["dag"])
            else:
                found.event_ids, found.awaited = row["event_ids"], row["awaited"]
        self.transcript.states.append(found)
        return found

    async def write_batch(self, **parts: Rows) -> list[int]:
        """Write what nearly every batch changes, in one statement.

        Args:
            parts: Rows under each of the names in `BATCH`.

        Returns:
            The numbers of the entries of the audit log, in their order.
        """
        self.transcript.parts = parts
        filled = [name for name in BATCH if parts.get(name)]
        if not filled:
            return []
        text, arguments = self._statement("write_batch", batch_statement, filled, parts)
        rows = await self._fetch(text, *arguments)
        self._note_written(rows)
        return [row["id"] for row in rows] if parts["audits"] else []

    def _statement(
        self, query: str, build: Builder, filled: Sequence[str], parts: Mapping[str, Rows]
    ) -> tuple[str, list[Any]]:
        """Return the statement that writes parts, and their arguments."""
        single = all(len(parts[name]) == 1 or name in SEVERAL for name in filled)
        name = "+".join((query, *filled, "single" if single else ""))
        if name not in self._statements:
            self._statements[name] = build(filled, single=single)
        arguments: list[Any] = []
        for each in filled:
            is_row = single and each not in SEVERAL
            arguments += parts[each][0] if is_row else map(_column, zip(*parts[each], strict=True))
        return self._statements[name], arguments

    def _note_written(self, rows: Sequence[Row]) -> None:
        self.transcript.version = rows[0]["written"]
        self.transcript.written_at = rows[0]["written_at"]
