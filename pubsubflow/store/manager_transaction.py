"""The manager's transaction: queries of `sql/manager.sql`, rows in and rows out.

Rows are passed by columns (`unnest`), so that a batch of any size is one statement.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from time import perf_counter
from typing import Any, ClassVar

import asyncpg

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


def _of_values(expression: str) -> str:
    """Return an expression of `write_batch` for one row in place of columns."""

    def values(columns: re.Match[str]) -> str:
        return f"(VALUES ({columns[1].replace('[]', '')})){columns[2] or ' AS given'}"

    return _ANY.sub(r"= \1", _COLUMNS.sub(values, expression))


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

    async def write(self, query: str, rows: Rows) -> None:
        """Run a named query over rows, unless there are none."""
        if rows:
            await self.fetch(query, *map(list, zip(*rows, strict=True)))

    async def fetch_rows(self, query: str, rows: Rows) -> list[Row]:
        """Run a named query over rows, unless there are none, and return its rows."""
        return await self.fetch(query, *map(list, zip(*rows, strict=True))) if rows else []

    async def lock_runs(self, runs: Iterable[int]) -> list[Row]:
        """Lock live runs in order: run, dag, version, progress, info, source."""
        # Every manager locks in this order, so two batches with common runs cannot deadlock.
        ids = sorted(set(runs))
        return await self.fetch("lock_runs", ids) if ids else []

    async def allocate_event_ids(
        self, count: int, states: Sequence[tuple[int, str]], datasets: Sequence[int]
    ) -> tuple[list[int], list[Row], bool]:
        """Allocate ids for events; return them, condition states, and a hint about waits.

        Args:
            count: Number of ids.
            states: Condition states to read as well, (dag, partition key).
            datasets: Of the events.

        Returns:
            The ids; the rows of the states that exist; whether a wait may match one of the events.
        """
        dags, keys = [dag for dag, _ in states], [key for _, key in states]
        rows = await self.fetch("allocate_event_ids", count, dags, keys, datasets)
        ids = sorted(row["id"] for row in rows if row["id"])
        return ids, [row for row in rows if row["id"] is None], any(row["id"] == 0 for row in rows)

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
            arguments += parts[name][0] if is_row else map(list, zip(*parts[name], strict=True))
        rows = await self.fetch(query, *arguments)
        return [row["id"] for row in rows] if parts["audits"] else []
