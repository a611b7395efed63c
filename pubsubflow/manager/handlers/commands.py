"""Handlers of commands on DAGs and runs: start, pause, replay, cancel, clear."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.handlers.handler import BatchContext, DagLocks, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import RunLocks
from pubsubflow.manager.runs.clearing import Clearing, decode_reopened
from pubsubflow.manager.runs.marking import Marking
from pubsubflow.manager.schedules.checks import CHECK_AGAIN, CHECK_RUN, refuse_check
from pubsubflow.manager.schedules.replay import Replays
from pubsubflow.manager.unit_of_work import RunAnnotation
from pubsubflow.manager.working_state import LockedDag
from pubsubflow.model.changes import DagChange, DagChanged, RunChanged
from pubsubflow.model.revisions import check_revision, dag_revision
from pubsubflow.model.runs.states import RunState, advance_state
from pubsubflow.model.wire.commands import (
    AnnotateRun,
    CancelRun,
    MarkTasks,
    SetPaused,
)
from pubsubflow.model.wire.messages import TaskError
from pubsubflow.store.batches.manager_transaction import Row
from pubsubflow.store.database import printable


class DagCommandHandler(Handler):
    """Carries out commands that name a DAG.

    Attributes:
        on_checks: Whether they may name a check, whose runs follow from events alone.
    """

    on_checks = False

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs."""
        locks.names.update(item.message.dag_id for item in items)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Carry out the commands one by one; one that is refused changes nothing."""
        for item in items:
            await self._context.run_ids.reserve(self._transaction, 1)
            try:
                dag = self._context.dags.named(item.message.dag_id)
                if not self.on_checks:
                    refuse_check(dag)
                item.answer = await self.carry_out(dag, item)
            except (InvalidInput, NotFound) as error:
                item.error = error

    async def carry_out(self, dag: LockedDag, item: InboxItem) -> Any:
        """Carry out one command and return its answer.

        Raises:
            InvalidInput: It cannot be carried out.
        """
        raise NotImplementedError


def printable_all(texts: Sequence[str]) -> list[str]:
    """Return texts as the database can store them."""
    return [printable(text) for text in texts]


class SetPausedHandler(DagCommandHandler):
    """Pauses and unpauses DAGs."""

    on_checks = True

    async def carry_out(self, dag: LockedDag, item: InboxItem) -> None:
        """Pause or unpause a DAG.

        Raises:
            StaleRevision: It has changed since its sender read it.
        """
        command: SetPaused = item.message
        if item.tried and dag.paused == command.paused:
            return  # the transaction that broke may have done it
        (row,) = await self._transaction.fetch("read_dag_revision", dag.id)
        revision = dag_revision(row["version"], row["edits"])
        check_revision(f"DAG {command.dag_id!r}", revision, command.revisions)
        if dag.paused == command.paused:
            return
        await self._transaction.fetch("increment_dag_edits", dag.id)
        dag.paused = command.paused
        dag.changed = True
        self._uow.outbox.dag_changes.append(
            DagChanged(
                dag_id=dag.version.spec.dag_id,
                change=DagChange.PAUSED if dag.paused else DagChange.UNPAUSED,
                time=self._uow.now,
            )
        )
        if not dag.held:
            await self._context.resume(dag)


class ReplayHandler(DagCommandHandler):
    """Decides past events once more."""

    async def carry_out(self, dag: LockedDag, item: InboxItem) -> Any:
        """Replay events, and return the runs.

        Raises:
            InvalidInput: The DAG subscribes to nothing, or the range holds too many events.
        """
        context = self._context
        replays = Replays(
            context.uow,
            context.transaction,
            context.specs,
            context.run_ids,
            scheduler=context.scheduler,
            admission=context.admission,
            conditions=context.dags.conditions,
        )
        return await replays.replay(dag, item.message)


class CancelRunHandler(Handler):
    """Cancels runs: live ones under their lock, queued ones under that of their DAG."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._runs: dict[InboxItem, Row] = {}

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Find the runs, and lock those that are live."""
        for item in items:
            try:
                row = await self._find(item.message, tried=item.tried)
            except (InvalidInput, NotFound) as error:
                item.error = error
            else:
                if row is not None:
                    self._runs[item] = row
        locks.runs.update(row["id"] for row in self._runs.values())

    async def _find(self, command: CancelRun, *, tried: bool) -> Row | None:
        rows = await self._transaction.fetch("find_runs", [command.run_id])
        if not rows:
            raise NotFound("run", str(command.run_id))
        state = RunState(rows[0]["state"])
        if tried and state is RunState.CANCELLED:
            return None  # the transaction that broke may have done it
        if state.final:
            raise InvalidInput(f"run {command.run_id} has ended: {state}")
        _check_cleared(command, rows[0]["clear_number"])
        return rows[0]

    def apply(self, item: InboxItem) -> None:
        """Cancel a live run."""
        row = self._runs.get(item)
        run = None if row is None else self._uow.runs.by_id.get(row["id"])
        if run is None or run.outcome is not None:
            return
        try:
            _check_cleared(item.message, run.progress.clear_number)
        except InvalidInput as error:
            item.error = error
        else:
            self._context.lifecycle.cancel(run, printable(item.message.reason))

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs of the runs."""
        locks.dags.update(self._runs[item]["dag"] for item in items if item in self._runs)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Cancel runs that are still queued."""
        for item in items:
            row = self._runs.get(item)
            if row is not None and row["id"] not in self._uow.runs.by_id:
                await self._cancel_queued(item, row)

    async def _cancel_queued(self, item: InboxItem, run: Row) -> None:
        command: CancelRun = item.message
        rows = await self._transaction.fetch("remove_queued_run", run["id"])
        if not rows:
            item.error = InvalidInput(
                f"run {command.run_id} still collects events or is just starting: try again"
            )
            return
        dag = self._uow.schedule.dags[run["dag"]]
        dag.queued -= 1
        dag.changed = True
        self._uow.outbox.queue_changes.append(
            RunChanged(
                run_id=str(command.run_id),
                dag_id=dag.version.spec.dag_id,
                state=advance_state(RunState.QUEUED, RunState.CANCELLED),
                time=self._uow.now,
            )
        )
        reason = printable(command.reason)
        await self._transaction.fetch("cancel_queued_run", run["id"], reason)
        if rows[0]["progress"] is not None:
            await self._cancel_cleared(run["id"], rows[0]["progress"], reason)

    async def _cancel_cleared(self, run_id: int, kept: bytes, reason: str) -> None:
        """Cancel the instances that a queued run, which was opened again, would have run again."""
        _, again = decode_reopened(kept)
        if again:
            nodes, indexes = map(list, zip(*again, strict=True))
            error = msgspec.structs.asdict(TaskError("Cancelled", reason, final=True))
            ids = [run_id] * len(again)
            await self._transaction.fetch("cancel_cleared_tasks", ids, nodes, indexes, error)


def _check_cleared(command: CancelRun, clear_number: int) -> None:
    if command.cleared not in (None, clear_number):
        raise InvalidInput(f"tasks of run {command.run_id} were cleared meanwhile")


class AnnotateRunHandler(Handler):
    """Changes tags and notes of runs; they are written after all else."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Find the runs; none is locked, as nothing is decided by their tags."""
        del locks
        for item in items:
            command: AnnotateRun = item.message
            rows = await self._transaction.fetch("find_runs", [command.run_id])
            if not rows:
                item.error = NotFound("run", str(command.run_id))
                continue
            tags = None if command.tags is None else printable_all(command.tags)
            self._uow.runs.annotations.append(
                RunAnnotation(
                    rows[0]["id"],
                    tags,
                    printable_all(command.add_tags),
                    printable_all(command.remove_tags),
                    None if command.note is None else printable(command.note),
                )
            )


class ClearTasksHandler(Handler):
    """Clears and marks tasks: of live runs under their lock, of ended ones under their DAG's."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._runs: dict[InboxItem, Row] = {}
        self._ended: dict[InboxItem, Row] = {}
        self._clearing = Clearing(
            context.uow, context.transaction, context.specs, context.lifecycle
        )
        self._marking = Marking(
            context.uow, context.transaction, context.specs, context.lifecycle, self._clearing
        )

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Find the runs, and lock those that are live."""
        for item in items:
            item.ids = item.ids or [self._context.new_id()]
            rows = await self._transaction.fetch("find_runs", [item.message.run_id])
            if not rows:
                item.error = NotFound("run", str(item.message.run_id))
            elif rows[0]["kind"] == CHECK_RUN:
                item.error = InvalidInput(f"run {item.message.run_id} is of a check: {CHECK_AGAIN}")
            else:
                self._runs[item] = rows[0]
        locks.runs.update(row["id"] for row in self._runs.values())

    async def on_runs(self, items: Sequence[InboxItem]) -> None:
        """Clear and mark tasks of live runs."""
        seen: set[int] = set()
        for item in items:
            row = self._runs.get(item)
            if row is None:
                continue
            if row["id"] in seen:
                item.postponed = True  # one clearing of a run after the other
                continue
            seen.add(row["id"])
            run = self._uow.runs.by_id.get(row["id"])
            if run is None:
                self._ended[item] = row
                continue
            try:
                if isinstance(item.message, MarkTasks):
                    item.answer = await self._marking.mark_live(run, item.message, item)
                else:
                    item.answer = await self._clearing.clear_live(run, item.message, item)
            except (InvalidInput, NotFound) as error:
                item.error = error

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Lock the DAGs whose ended runs are to be opened."""
        locks.dags.update(self._ended[item]["dag"] for item in items if item in self._ended)

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Clear and mark tasks of runs that have ended, and open them again."""
        for item in items:
            row = self._ended.get(item)
            if row is None:
                continue
            dag = self._uow.schedule.dags[row["dag"]]
            try:
                if isinstance(item.message, MarkTasks):
                    item.answer = await self._marking.reopen(row["id"], dag, item.message, item)
                else:
                    item.answer = await self._clearing.reopen(row["id"], dag, item.message, item)
            except (InvalidInput, NotFound) as error:
                item.error = error
            else:
                # Another request has opened the run meanwhile: clear it as a live one next time.
                item.postponed = item.answer is None
