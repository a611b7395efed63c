"""Marking of tasks and runs: a live run goes on from the marks, one that has ended is opened again.

The locks are those of clearing. What is marked is fenced off as what is cleared is: a result from
before has no effect, and the worker of a marked task stops it.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.runs.clearing import Clearing, check_cleared, describe_tasks
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.spec_cache import DagVersion, SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import EndedTask, InstanceKey, LockedDag, RunWork
from pubsubflow.model.runs.clearing import TaskSelection, clear
from pubsubflow.model.runs.fences import first_delivery
from pubsubflow.model.runs.marking import Marks, apply_marks, result_of_mark, select_marks
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.progress import Progress
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.wire.commands import MarkResult, MarkTasks
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    CancelMessage,
    EmittedEvent,
    TaskError,
    encode,
)
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.database import printable

_decode = msgspec.msgpack.Decoder().decode


class Marking:
    """Marks tasks of the runs of one batch.

    Args:
        uow: What the transaction changes.
        transaction: Reads how tasks ended.
        specs: DAG versions.
        lifecycle: Continues runs.
        clearing: Clears what is marked.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        lifecycle: RunLifecycle,
        clearing: Clearing,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._lifecycle = lifecycle
        self._clearing = clearing

    async def mark_live(self, run: RunWork, command: MarkTasks, item: InboxItem) -> MarkResult:
        """Mark tasks of a live run, which is locked.

        Raises:
            InvalidInput: The run has changed, or there is nothing to mark.
            NotFound: A task does not exist.
        """
        (row,) = await self._transaction.fetch("read_run_to_clear", run.id)
        if item.tried and row["clear_id"] in item.ids:
            return MarkResult((), (), RunState.RUNNING)
        check_cleared(row, command)
        if not command.tasks and command.state == TaskState.FAILED:
            return self._fail(run, command)
        attempts = await self._ended(run.id)
        states = {key: state for key, (state, _) in attempts.items()}
        states.update((key, task.state) for key, task in run.live.items())
        attempts.update((key, (task.state, task.attempt)) for key, task in run.live.items())
        marks = _choose(run.version, run.progress, states, attempts, command)
        found = _result(run.version, states, marks, RunState.RUNNING)
        if command.dry_run:
            return found
        gone = sorted(marks.cleared(states))
        await self._clearing.record(run.id, run.progress, gone, item)
        live = [key for key in gone if key in run.live]
        for key in live:
            self._lifecycle.waits.stop(run, key, run.live[key], cancelled=True)
            del run.live[key]
        choices = await self._clearing.choices(run.id, run.version)
        clear(run.version.plan, run.progress, states, gone, choices)
        if live:
            before = first_delivery(run.progress.clear_number, self._uow.epoch)
            order = CancelMessage(run.id, f"marked {command.state}", tuple(live), before)
            self._uow.outbox.cancellations.append(order)
        result = _decode(command.result) if command.result else None
        apply_marks(run.version.plan, run.progress, marks, result)
        ended = self._end(run.version, marks, attempts, command)
        run.ended_tasks += ended
        self._keep_results(run, ended)
        self._emit(run, ended, command)
        self._lifecycle.resume(run, ())
        return msgspec.structs.replace(found, state=run.outcome or RunState.RUNNING)

    async def reopen(
        self, run_id: int, dag: LockedDag, command: MarkTasks, item: InboxItem
    ) -> MarkResult | None:
        """Mark tasks of a run that had ended; its DAG's state is locked.

        Returns:
            What was marked; None when the run has been opened again meanwhile.

        Raises:
            InvalidInput: The run has not started or has changed, or there is nothing to mark.
            NotFound: The run or a task does not exist.
        """
        rows = await self._transaction.fetch("read_run_to_clear", run_id)
        if not rows:
            raise NotFound("run", str(command.run_id))
        row = rows[0]
        state = RunState(row["state"])
        if item.tried and row["clear_id"] in item.ids:
            return MarkResult((), (), state)
        if state is RunState.QUEUED:
            raise InvalidInput(f"run {command.run_id} has not started: cancel it instead")
        if state is RunState.RUNNING:
            return None
        check_cleared(row, command)
        version = (await self._specs.versions(self._transaction, [row["version"]]))[row["version"]]
        progress, states, choices = await self._clearing.rebuild(version, row)
        attempts = await self._ended(run_id)
        marks = _choose(version, progress, states, attempts, command)
        found = _result(version, states, marks, state)
        if command.dry_run:
            return found
        gone = sorted(marks.cleared(states))
        clear_number = progress.clear_number
        clear(version.plan, progress, states, gone, choices)
        result = _decode(command.result) if command.result else None
        apply_marks(version.plan, progress, marks, result)
        if any(entry.total == UNDECIDED for entry in progress.nodes):
            await self._clearing.check_complete(run_id, version, gone)
        progress.clear_number = clear_number
        await self._clearing.record(run_id, progress, gone, item)
        progress.clear_number += 1
        ended = self._end(version, marks, attempts, command)
        source = row["source"]
        state = await self._clearing.open_again(row, dag, version, (progress, []), source=source)
        run = self._uow.runs.by_id.get(run_id)
        if run is None:  # queued: only the rows of what is marked are written
            self._uow.runs.marked += [(run_id, task) for task in ended]
            run = await self._carrier(row, version, progress)
        else:
            run.ended_tasks[:0] = ended
            self._keep_results(run, ended)
        self._emit(run, ended, command)
        return msgspec.structs.replace(found, state=state)

    def _fail(self, run: RunWork, command: MarkTasks) -> MarkResult:
        """Fail a live run: what it runs is stopped, and its teardowns still run."""
        states = {key: task.state for key, task in run.live.items()}
        marked = describe_tasks(run.version, states, sorted(states))
        if not command.dry_run:
            self._lifecycle.cancel(run, printable(command.reason), RunState.FAILED)
        return MarkResult(marked, (), run.outcome or RunState.RUNNING)

    async def _ended(self, run_id: int) -> dict[InstanceKey, tuple[TaskState, int]]:
        """Return the states and the latest attempts of the instances that have ended."""
        rows = await self._transaction.fetch("read_finished_tasks", run_id)
        return {
            (row["node"], row["map_index"]): (TaskState(row["state"]), row["attempt"])
            for row in rows
        }

    async def _carrier(self, row: Row, version: DagVersion, progress: Progress) -> RunWork:
        """Return a run that is queued, for the events that its marked tasks emit."""
        info = await self._clearing.info(row, version)
        return RunWork(row["id"], version, progress, info, source=row["source"], new=False)

    def _end(
        self,
        version: DagVersion,
        marks: Marks,
        attempts: dict[InstanceKey, tuple[TaskState, int]],
        command: MarkTasks,
    ) -> list[EndedTask]:
        error = None
        if marks.state is TaskState.FAILED:
            error = TaskError("Marked", printable(command.reason), final=True)
        given: Any = _decode(command.result) if command.result else None
        ended = []
        for node, index in sorted(marks.marked):
            value, length = None, None
            if marks.state is TaskState.SUCCESS:
                result = result_of_mark(version.plan, node, given)
                value = None if result is None else encode(result)
                length = len(result) if isinstance(result, list | dict) else None
            # An instance without an attempt is one that ended by a rule, and would be decided anew.
            attempt = max(1, attempts.get((node, index), (None, 1))[1])
            ended.append(
                EndedTask(
                    node,
                    index,
                    attempt,
                    marks.state,
                    ended_at=self._uow.now,
                    length=length,
                    value=value,
                    error=error,
                )
            )
        return ended

    @staticmethod
    def _keep_results(run: RunWork, ended: Iterable[EndedTask]) -> None:
        for task in ended:
            if task.map_index == NOT_MAPPED:
                run.results[task.node] = task.value or b""

    def _emit(self, run: RunWork, ended: Iterable[EndedTask], command: MarkTasks) -> None:
        if not command.emit or command.state != TaskState.SUCCESS:
            return
        for task in ended:
            for uri in run.version.spec.tasks[task.node].outlets:
                self._lifecycle.events.record(run, EmittedEvent(uri), task.node, task.map_index)


def _choose(
    version: DagVersion,
    progress: Progress,
    states: dict[InstanceKey, TaskState],
    attempts: dict[InstanceKey, tuple[TaskState, int]],
    command: MarkTasks,
) -> Marks:
    selection = TaskSelection(command.tasks, command.downstream, command.upstream)
    unstarted = {key for key, (state, attempt) in attempts.items() if state.final and not attempt}
    state = TaskState(command.state)
    marks = select_marks(version.plan, progress, states, unstarted, selection, state)
    if not marks.marked:
        raise InvalidInput(f"there is nothing to mark in run {command.run_id}: it is all {state}")
    return marks


def _result(
    version: DagVersion, states: dict[InstanceKey, TaskState], marks: Marks, state: RunState
) -> MarkResult:
    return MarkResult(
        describe_tasks(version, states, sorted(marks.marked)),
        describe_tasks(version, states, sorted(marks.anew)),
        state,
    )
