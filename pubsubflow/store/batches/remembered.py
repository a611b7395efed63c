"""A transaction of one statement, which compares the remembered rows that it is decided by."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn, cast

import anyio
import asyncpg

from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.batches.manager_transaction import LockedStates, ManagerTransaction, Row, Rows
from pubsubflow.store.batches.row_memory import ConditionRow, RowMemory, TaskRow
from pubsubflow.store.batches.statements import BATCH, remembered_statement
from pubsubflow.store.database import Connection


class NotRememberedError(Exception):
    """A batch needs more than is remembered, or what is remembered has changed."""


class RememberedTransaction(ManagerTransaction):
    """What a batch reads comes from memory; what it writes is one statement, committed by itself.

    Each method raises `NotRememberedError` for what is not remembered. New events have their
    numbers in the batch in place of ids until `write_batch` has returned.

    Args:
        connection: The connection, without a transaction.
        memory: What is remembered.
        timed: Called with the seconds of the statement.

    Attributes:
        event_ids: The ids of new events, once they are written.
    """

    def __init__(
        self,
        connection: Connection,
        memory: RowMemory,
        timed: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(connection, timed)
        self._memory = memory
        self._tasks: dict[TaskKey, TaskRow] = {}
        self._conditions: dict[int, ConditionRow] = {}
        self._subscribers: dict[int, tuple[int, ...]] = {}
        self._claims: list[Sequence[Any]] = []
        self._events = 0
        self.event_ids: Sequence[int] = ()

    async def fetch(self, query: str, *_: object) -> NoReturn:
        """Refuse the query."""
        raise NotRememberedError(query)

    async def fetch_rows(self, query: str, rows: Rows) -> list[Row]:
        """Take idempotency keys for free: the statement claims them, and fails if they are not."""
        if query == "claim_idempotency_keys":
            self._claims += rows
            return cast("list[Row]", [{"key": key} for key, _ in rows])
        return await super().fetch_rows(query, rows)

    async def fetch_in_turn(self, query: str, *_: Sequence[object]) -> NoReturn:
        """Refuse the query."""
        raise NotRememberedError(query)

    async def lock_runs(
        self, runs: Iterable[int], tasks: Collection[TaskKey] = ()
    ) -> tuple[list[Row], list[Row]]:
        """Return a run and its tasks; they are locked, and compared, by the statement."""
        for run in set(runs):
            row = self._memory.runs.get(run)
            if row is None or self.transcript.runs:
                raise NotRememberedError("run")
            self.transcript.runs.append(cast("Row", row))
        for key in tasks:
            task = self._memory.tasks.get(key)
            if task is None:
                raise NotRememberedError("task")
            self._tasks[key] = task
        return self.transcript.runs, cast("list[Row]", list(self._tasks.values()))

    async def lock_dag_states(
        self, datasets: Sequence[int], dags: Sequence[int], events: int
    ) -> LockedStates:
        """Return the states of DAGs; they are locked, and compared, by the statement."""
        memory, wanted = self._memory, set(dags)
        found = LockedStates([], list(range(self._events + 1, self._events + events + 1)), {})
        self._events += events
        for dataset in datasets:
            subscribers = memory.subscribers.get(dataset)
            if subscribers is None:
                raise NotRememberedError("subscriptions")
            self._subscribers[dataset] = subscribers
            wanted.update(subscribers)
            for dag in subscribers:
                condition = memory.conditions.get(dag)
                if condition is None:
                    raise NotRememberedError("condition")
                found.conditions[dag] = cast("Row", condition)
                self._conditions[dag] = condition
        for dag in sorted(wanted):
            row = memory.dags.get(dag)
            if row is None:
                raise NotRememberedError("DAG")
            found.dags.append(cast("Row", row))
        self.transcript.states.append(found)
        return found

    async def write_batch(self, **parts: Rows) -> list[int]:
        """Write a batch, if what it was decided by is as it was."""
        if parts["audits"]:
            raise NotRememberedError("audits")
        self.transcript.parts = parts = parts | {"claims": self._claims}
        filled = [name for name in BATCH if parts.get(name)]
        if not filled:
            raise NotRememberedError("nothing to write")
        text, arguments = self._statement("write_remembered", remembered_statement, filled, parts)
        try:
            # Nobody could say whether a statement that is cancelled was carried out.
            with anyio.CancelScope(shield=True):
                rows = await self._fetch(text, *self._compared(parts), *arguments)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            self._forget()
            raise NotRememberedError("changed") from error
        self.event_ids = rows[0]["ids"]
        self._note_written(rows)
        return []

    def _forget(self) -> None:
        """Forget what the batch was decided by."""
        self._memory.forget(self.transcript)
        for task in self._tasks:
            self._memory.tasks.pop(task)
        for dataset in self._subscribers:
            self._memory.subscribers.pop(dataset)

    def _compared(self, parts: dict[str, Rows]) -> list[Any]:
        """Return the arguments of `write_remembered` itself."""
        found = self.transcript.states
        states = {row["dag"]: row["written"] for each in found for row in each.dags}
        removed = {(run, node, map_index) for run, node, map_index in parts["removed_tasks"]}
        conditions = {dag for dag, *_ in parts["condition_states"]}
        used = {dag for dag, row in self._conditions.items() if row.state is not None}
        # What has led to a decision, and is not changed by it, would not be compared.
        if removed != self._tasks.keys() or not used <= conditions <= self._conditions.keys():
            raise NotRememberedError("unchanged")
        run = self.transcript.runs[0] if self.transcript.runs else None
        ordered = sorted(self._subscribers.items())
        known = [self._conditions[dag] for dag in sorted(conditions)]
        return [
            None if run is None else run["run"],
            None if run is None else run["written"],
            [*states],
            [*states.values()],
            [dataset for dataset, _ in ordered],
            [dag for _, dags in ordered for dag in dags],
            self._events,
            [task.version for task in self._tasks.values()],
            [row.dag for row in known],
            [row.written for row in known],
            len(self._claims),
        ]
