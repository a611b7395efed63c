"""The manager's transaction: queries of `sql/manager.sql`, rows in and rows out.

Rows are passed by columns (`unnest`), so that a batch of any size is one statement.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from time import perf_counter
from typing import Any, ClassVar

import asyncpg
from msgspec import Struct

from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

Row = asyncpg.Record
Rows = Sequence[Sequence[Any]]
BATCH = {
    "events": 13,
    "runs": 13,
    "run_events": 3,
    "removed_tasks": 3,
    "ended_tasks": 14,
    "live_tasks": 11,
    "opened_runs": 6,
    "progressed_runs": 2,
    "closed_runs": 3,
    "pending": 4,
    "condition_states": 4,
    "dag_states": 5,
    "changes": 1,
    "audits": 7,
    "progress_chunks": 3,
}
"""Parts of `write_batch`, in the order of its arguments: name → number of columns."""
SEVERAL = "dag_states"
"""The part that one message may fill with several rows: the DAGs that ended and that began."""
_EXPRESSION = re.compile(r"^(\w+) AS \(\n(.*?)^\)", flags=re.MULTILINE | re.DOTALL)
_SEVERAL = "counted"  # its expression
_PARAMETER = re.compile(r"\$(\d+)")
_COLUMNS = re.compile(r"\bunnest\(([^()]*)\)(\s+AS\s+\w+)?")
_ANY = re.compile(r"= ANY\((\$\d+::\w+)\[\]\)")


def batch_statement(parts: Collection[str], *, single: bool = False) -> str:
    """Return the statement that writes some parts of a batch: `write_batch` without the others.

    A batch fills a few parts. The others would cost their arrays, and a plan to start each.

    Args:
        parts: Their names, of `BATCH`; their columns are its arguments, in the order of `BATCH`.
        single: Its arguments are the values of one row a part, as in a batch of one message, for
            which arrays cost both sides twice as much; columns for those of `SEVERAL`.
    """
    whole = SQL["write_batch"]
    numbers: dict[str, str] = {}
    first = 1
    for name, width in BATCH.items():
        if name in parts:
            for number in range(first, first + width):
                numbers[str(number)] = f"${len(numbers) + 1}"
        first += width

    def renumbered(text: str) -> str:
        return _PARAMETER.sub(lambda found: numbers[found[1]], text)

    # An expression belongs to the part whose arguments it takes.
    expressions = ",\n".join(
        f"{name} AS (\n{renumbered(_of_values(text) if single and name != _SEVERAL else text)})"
        for name, text in _EXPRESSION.findall(whole)
        if _PARAMETER.findall(text)[0] in numbers
    )
    # Without entries of the audit log there is nothing to return.
    last = whole.splitlines()[-1] if "audits" in parts else "SELECT 1;"
    return f"WITH\n{expressions}\n{last}"


def _column(values: Sequence[Any]) -> Sequence[Any]:
    """Return a column of nulls as an empty one: unnest fills up what is shorter with nulls."""
    # The driver looks at each element of an array, nulls as well, twice in Python.
    return () if values.count(None) == len(values) else values


def _of_values(expression: str) -> str:
    """Return an expression of `write_batch` for one row in place of columns."""

    def values(columns: re.Match[str]) -> str:
        return f"(VALUES ({columns[1].replace('[]', '')})){columns[2] or ' AS given'}"

    return _ANY.sub(r"= \1", _COLUMNS.sub(values, expression))


class LockedStates(Struct):
    """States of DAGs that are locked, and what was read under these locks.

    Attributes:
        dags: Rows of the states.
        event_ids: In ascending order.
        conditions: DAG → the state of its condition without partitions, null if there is none; of
            all DAGs that subscribe to the datasets.
        awaited: Whether a wait may match one of the events.
    """

    dags: list[Row]
    event_ids: list[int]
    conditions: dict[int, Row]
    awaited: bool = False


class ManagerTransaction:
    """Queries of one transaction on one connection.

    Args:
        connection: The connection.
        timed: Called with the seconds of each statement.
    """

    _statements: ClassVar[dict[str, str]] = {}

    def __init__(
        self, connection: Connection, timed: Callable[[float], None] | None = None
    ) -> None:
        self._connection = connection
        self._timed = timed

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Run a named query and return its rows."""
        since = perf_counter()
        text = SQL[query] if query in SQL else self._statements[query]
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
        return (
            [row for row in rows if row["node"] is None],
            [row for row in rows if row["node"] is not None],
        )

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
        for row in await self.fetch_in_turn("lock_dag_states", *calls):
            if row["version"] is not None:
                found.dags.append(row)
            elif row["event_ids"] is None:
                found.conditions[row["dag"]] = row
            else:
                found.event_ids, found.awaited = row["event_ids"], row["awaited"]
        return found

    async def write_batch(self, **parts: Rows) -> list[int]:
        """Write what nearly every batch changes, in one statement.

        Args:
            parts: Rows under each of the names in `BATCH`.

        Returns:
            The numbers of the entries of the audit log, in their order.
        """
        filled = [name for name in BATCH if parts[name]]
        if not filled:
            return []
        single = all(len(parts[name]) == 1 or name == SEVERAL for name in filled)
        query = "+".join(("write_batch", *filled, "single" if single else ""))
        if query not in self._statements:
            self._statements[query] = batch_statement(filled, single=single)
        arguments: list[Any] = []
        for name in filled:
            is_row = single and name != SEVERAL
            arguments += parts[name][0] if is_row else map(_column, zip(*parts[name], strict=True))
        rows = await self.fetch(query, *arguments)
        return [row["id"] for row in rows] if parts["audits"] else []
