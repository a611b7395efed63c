"""Carries out what people and services ask of DAGs: starts, pauses, looks into the past."""

from collections.abc import Sequence

import msgspec

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inbox import Item
from pubsubflow.manager.persistence.load_events import read_infos
from pubsubflow.manager.persistence.load_states import Cells
from pubsubflow.manager.persistence.run_ids import Numbers
from pubsubflow.manager.runs.clearing import again_of
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.cell_keys import event_cells
from pubsubflow.manager.schedules.firing import Scheduling
from pubsubflow.manager.schedules.redrive import Resending
from pubsubflow.manager.schedules.replay import LAST, Past
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import GateWork, Ledger, LoggedEvent
from pubsubflow.model.revisions import check_revision, dag_revision
from pubsubflow.model.wire.commands import Backfill, CancelRun, Replay, Resend, SetPaused, StartRun
from pubsubflow.model.wire.messages import TaskError
from pubsubflow.store.database import printable
from pubsubflow.store.manager_transaction import FoldTransaction, Row

HISTORY_A_READ = 10_000
NAMED = (StartRun, SetPaused, Replay, Backfill)
"""Calls that concern a DAG by its name."""


class Requests:
    """The calls of one batch, on locked gates."""

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        numbers: Numbers,
        *,
        cells: Cells,
        scheduling: Scheduling,
        admission: Admission,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._versions = versions
        self._numbers = numbers
        self._cells = cells
        self._scheduling = scheduling
        self._admission = admission

    async def carry_out(self, items: Sequence[Item], named: dict[str, Row]) -> None:
        """Carry out pauses, requests, cancellations of queued runs, looks into the past."""
        for item in items:
            what = item.what
            await self._numbers.reserve(self._transaction, 1)
            if isinstance(what, NAMED):
                row = named.get(what.dag_id)
                if row is None:
                    item.error = NotFound("DAG", what.dag_id)
                else:
                    await self._call_dag(item, self._ledger.gates[row["id"]])
            elif isinstance(what, CancelRun) and item.answer is not None:
                await self._unqueue(item, what)
            elif isinstance(what, Resend) and item.answer is not None:
                await self._resend(item, what, item.answer)

    async def _call_dag(self, item: Item, gate: GateWork) -> None:
        what = item.what
        try:
            if isinstance(what, StartRun):
                item.answer = await self._admission.asked(gate, what, item)
            elif isinstance(what, SetPaused):
                await self._change(item, gate, what)
            elif isinstance(what, Replay | Backfill):
                item.answer = (
                    await self._past().replay(gate, what)
                    if isinstance(what, Replay)
                    else await self._past().backfill(gate, what)
                )
        except InvalidInput as error:
            item.error = error

    def _past(self) -> Past:
        return Past(
            self._ledger,
            self._transaction,
            self._numbers,
            scheduling=self._scheduling,
            admission=self._admission,
            read_events=self._infos,
            load_cells=self._cells.load,
        )

    async def _change(self, item: Item, gate: GateWork, what: SetPaused) -> None:
        """Pause or unpause a DAG, if it is as whoever asks has seen it.

        Raises:
            StaleRevision: It is not.
        """
        if item.tried and gate.paused == what.paused:
            return  # it may have been us
        (row,) = await self._transaction.fetch("read_gate_revision", gate.dag)
        now = dag_revision(row["version"], row["changes"])
        check_revision(f"DAG {what.dag_id!r}", now, what.revisions)
        if gate.paused != what.paused:
            await self._transaction.fetch("count_change", gate.dag)
            await self._pause(gate, paused=what.paused)

    async def _pause(self, gate: GateWork, *, paused: bool) -> None:
        gate.paused = paused
        gate.changed = True
        self._ledger.paused.append((gate.version.spec.dag_id, paused))
        if not paused:
            await self.catch_up(gate)
            self._scheduling.resume(gate, await self._cells.open_of(gate))

    async def catch_up(self, gate: GateWork) -> None:
        """Decide about the events that a DAG has not looked at yet, one by one, in order."""
        since = gate.since
        if since is None:
            return
        gate.since = None
        gate.changed = True
        while True:
            rows = await self._transaction.fetch(
                "read_history", gate.dag, since, LAST, HISTORY_A_READ
            )
            events = await self._infos(rows)
            asked = [(gate, key) for event in events for key in event_cells(gate, event)]
            await self._numbers.reserve(self._transaction, len(asked))
            await self._cells.load(asked)
            for event in events:
                self._scheduling.offer(gate, event)
            if len(rows) < HISTORY_A_READ:
                return
            since = rows[-1]["id"] + 1

    async def _infos(self, rows: Sequence[Row]) -> list[LoggedEvent]:
        return await read_infos(rows, self._versions, self._transaction)

    async def _unqueue(self, item: Item, what: CancelRun) -> None:
        """Cancel a run that is still in line."""
        number = item.answer["id"]
        if number in self._ledger.runs:
            item.answer = None
            return
        rows = await self._transaction.fetch("unqueue_run", number)
        if not rows:
            item.error = InvalidInput(
                f"run {what.run_id} still collects events or is just starting; ask again"
            )
            return
        gate = self._ledger.gates[item.answer["dag"]]
        item.answer = None
        gate.queued -= 1
        gate.changed = True
        self._ledger.unqueued.append((str(what.run_id), gate.version.spec.dag_id))
        reason = printable(what.reason)
        await self._transaction.fetch("close_run", number, reason)
        if rows[0]["progress"] is not None:
            await self._cancel_cleared(number, rows[0]["progress"], reason)

    async def _cancel_cleared(self, number: int, kept: bytes, reason: str) -> None:
        """Note that single instances of mapped tasks which were to run again never will."""
        _, again = again_of(kept)
        if again:
            nodes, indexes = map(list, zip(*again, strict=True))
            error = msgspec.structs.asdict(TaskError("Cancelled", reason, final=True))
            numbers = [number] * len(again)
            await self._transaction.fetch("cancel_cleared", numbers, nodes, indexes, error)

    async def _resend(self, item: Item, what: Resend, letter: Row) -> None:
        """Try a dead letter again."""
        resending = Resending(
            self._ledger,
            self._transaction,
            scheduling=self._scheduling,
            admission=self._admission,
            read_events=self._infos,
        )
        gate = self._ledger.gates.get(letter["dag"] or 0)
        try:
            item.answer = await resending.resend(what, letter, gate)
        except InvalidInput as error:
            item.answer, item.error = None, error
