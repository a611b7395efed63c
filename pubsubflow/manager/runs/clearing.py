"""Clears tasks of runs: a live run goes on without them, one that has ended is opened again.

A live run is changed under its own lock, before anything else of the batch: results of what is
cleared are void by then. One that has ended has no lock but its DAG's gate, under which every run
starts and ends. What turns out to be the other meanwhile is folded again with the next batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pubsubflow.errors import InvalidInput, NotFound, PubsubflowError
from pubsubflow.manager.inbox import Item
from pubsubflow.manager.persistence.load_events import read_infos
from pubsubflow.manager.runs.lifecycle import Running
from pubsubflow.manager.schedules.admission import INLINE_EVENTS, inline_events, longest_trail
from pubsubflow.manager.spec_cache import Version, Versions
from pubsubflow.manager.unit_of_work import GateWork, Ledger, RunWork, TaskKey, decode_progress
from pubsubflow.model.runs.clearing import (
    FORKS,
    Selection,
    States,
    clear,
    first_delivery,
    fits,
    rebuild,
    select,
)
from pubsubflow.model.runs.progress import Progress
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.wire.commands import Cleared, ClearedTask, ClearTasks
from pubsubflow.model.wire.messages import NOT_MAPPED, CancelOrder, RunInfo, encode
from pubsubflow.store.manager_transaction import FoldTransaction, Row

_EVENT_ROWS = INLINE_EVENTS * 4
_decode_result = msgspec.msgpack.Decoder().decode
_decode_again = msgspec.msgpack.Decoder(tuple[msgspec.Raw, list[tuple[int, int]]]).decode


class Clearing:
    """The clearings of one batch.

    Args:
        ledger: What the transaction changes.
        transaction: Reads what runs came to.
        versions: DAG versions.
        running: Lets runs go on.
    """

    def __init__(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        versions: Versions,
        running: Running,
    ) -> None:
        self._ledger = ledger
        self._transaction = transaction
        self._versions = versions
        self._running = running
        self._ended: list[tuple[Item, int, int]] = []

    @property
    def dags(self) -> set[int]:
        """Return the DAGs whose ended runs are to be opened."""
        return {dag for _, _, dag in self._ended}

    async def clear_running(self, items: Sequence[Item], found: Mapping[int, Row]) -> None:
        """Clear tasks of live runs, which are locked; put the others aside.

        Args:
            items: The batch.
            found: Position in it → the run that it is about.
        """
        seen: set[int] = set()
        for position, row in found.items():
            item, number = items[position], row["id"]
            if number in seen:
                item.postponed = True  # one after the other
                continue
            seen.add(number)
            run = self._ledger.runs.get(number)
            if run is None:
                self._ended.append((item, number, row["dag"]))
                continue
            try:
                item.answer = await self._clear_running(run, item)
            except PubsubflowError as error:
                item.error = error

    async def _clear_running(self, run: RunWork, item: Item) -> Cleared:
        asked = _asked(item)
        (row,) = await self._transaction.fetch("read_cleared_run", run.number)
        if item.tried and row["clear_id"] in item.ids:
            return Cleared((), RunState.RUNNING)
        if asked.ended:
            raise InvalidInput(f"run {asked.run_id} has not ended: clear tasks of it instead")
        if asked.newest:
            raise InvalidInput(f"run {asked.run_id} has not ended: its version cannot change now")
        rows = await self._transaction.fetch("read_run_tasks", run.number)
        states: dict[TaskKey, TaskState] = {
            (row["node"], row["map_index"]): TaskState(row["state"]) for row in rows
        }
        states.update((key, task.state) for key, task in run.live.items())
        chosen = _choose(run.version, run.progress, states, asked)
        told = _told(run.version, states, chosen)
        if asked.dry_run:
            return Cleared(told, RunState.RUNNING)
        await self._note(run.number, run.progress, chosen, item)
        live = [key for key in chosen if key in run.live]
        for key in live:
            self._running.deferring.stop(run, key, run.live[key], cancelled=True)
            del run.live[key]
        again = clear(run.progress, states, chosen)
        if live:
            before = first_delivery(run.progress.cleared)
            order = CancelOrder(run.number, "cleared", tuple(live), before)
            self._ledger.called_off.append(order)
        self._running.go_on(run, again)
        return Cleared(told, run.outcome or RunState.RUNNING)

    async def _note(
        self, number: int, progress: Progress, chosen: Sequence[TaskKey], item: Item
    ) -> None:
        """Note what is cleared; it is taken out of the store once the slots are locked."""
        cleared = progress.cleared + 1
        await self._transaction.fetch("note_cleared", number, cleared, item.ids[0])
        self._ledger.cleared.extend((number, *key) for key in chosen)
        self._ledger.lives[number] = cleared

    async def reopen(self) -> None:
        """Clear tasks of runs that have ended; their gates are locked."""
        for item, number, dag in self._ended:
            try:
                await self._reopen(item, number, self._ledger.gates[dag])
            except PubsubflowError as error:
                item.error = error

    async def _reopen(self, item: Item, number: int, gate: GateWork) -> None:
        asked = _asked(item)
        (row,) = await self._transaction.fetch("read_cleared_run", number)
        if item.tried and row["clear_id"] in item.ids:
            item.answer = Cleared((), RunState(row["state"]))
            return
        if row["state"] == RunState.QUEUED:
            raise InvalidInput(f"run {asked.run_id} has not started: there is nothing to clear")
        if row["state"] == RunState.RUNNING:
            item.postponed = True  # somebody else was first
            return
        version = await self._version(row, asked, gate)
        progress, states = await self._read_progress(version, row)
        chosen = _choose(version, progress, states, asked)
        told = _told(version, states, chosen)
        if asked.dry_run:
            item.answer = Cleared(told, RunState(row["state"]))
            return
        await self._note(number, progress, chosen, item)
        again = clear(progress, states, chosen)
        info = await self._info(row, version)
        most = gate.version.spec.max_active_runs
        at_once = gate.active < most and not gate.queued
        state = RunState.RUNNING if at_once else RunState.QUEUED
        await self._transaction.fetch("reopen_run", number, state, version.number)
        gate.changed = True
        if at_once:
            gate.active += 1
            self._running.resume(number, version, info, progress, again)
        else:
            gate.queued += 1
            kept = encode((progress, again))
            await self._transaction.fetch("queue_cleared", gate.dag, number, info, kept)
            self._ledger.requeued.append((str(row["run_id"]), version.spec.dag_id))
        item.answer = Cleared(told, state)

    async def _version(self, row: Row, asked: ClearTasks, gate: GateWork) -> Version:
        await self._versions.load(self._transaction, [row["version"]])
        version = self._versions.get(row["version"])
        if not asked.newest:
            return version
        if not fits(version.spec, gate.version.spec):
            raise InvalidInput(
                f"the tasks of {gate.version.spec.dag_id} have changed places since run "
                f"{asked.run_id}: clear it without the newest version, or start a new run"
            )
        return gate.version

    async def _read_progress(
        self, version: Version, row: Row
    ) -> tuple[Progress, dict[TaskKey, TaskState]]:
        """Return the progress of a run that has ended, and the states of its tasks."""
        number = row["id"]
        rows = await self._transaction.fetch("read_run_tasks", number)
        ended = [(r["node"], r["map_index"], TaskState(r["state"]), r["length"]) for r in rows]
        forks = [(number, task.node) for task in version.spec.tasks if task.role in FORKS]
        results = await self._transaction.fetch_rows("read_results", forks)
        chose: dict[int, list[object]] = {}
        for result in results:
            value = _decode_result(result["result"]) if result["result"] else None
            chose.setdefault(result["node"], []).append(value)
        progress = rebuild(version.plan, ended, chose, row["cleared"])
        return progress, {(node, index): state for node, index, state, _ in ended}

    async def _info(self, row: Row, version: Version) -> bytes:
        """Return what tasks may know of a run, as it was when it started."""
        rows = await self._transaction.fetch("read_collected_events", [row["id"]], _EVENT_ROWS)
        events = await read_infos(rows, self._versions, self._transaction)
        known = {event.number: event for event in events}
        fits_in = len(rows) < _EVENT_ROWS
        return encode(
            RunInfo(
                row["id"],
                str(row["run_id"]),
                version.spec.dag_id,
                row["kind"],
                row["params"],
                row["logical_time"],
                row["partition"],
                row["cause"],
                row["created_at"],
                inline_events([event.info for event in known.values()]) if fits_in else None,
                longest_trail(events, version.dag),
            )
        )


def again_of(kept: bytes) -> tuple[Progress, list[TaskKey]]:
    """Return with what a run goes on that stood in line after tasks of it were cleared."""
    progress, again = _decode_again(kept)
    return decode_progress(progress), again


async def write_cleared(ledger: Ledger, transaction: FoldTransaction) -> None:
    """Take what was cleared out of the store; then count the attempts of what begins again."""
    await transaction.write(
        "clear_tasks",
        [(*place, first_delivery(ledger.lives[place[0]]) - 1) for place in ledger.cleared],
    )
    begun = {
        (run.number, *key): task
        for run in ledger.runs.values()
        if run.progress.cleared
        for key, task in run.live.items()
        if not task.stored
    }
    for row in await transaction.fetch_rows("read_past_attempts", sorted(begun)):
        task = begun[row["run"], row["node"], row["map_index"]]
        task.base = row["attempt"]
        task.attempt += task.base


def _asked(item: Item) -> ClearTasks:
    if not isinstance(item.what, ClearTasks):
        raise TypeError("that is no request to clear tasks")
    return item.what


def _choose(
    version: Version, progress: Progress, states: States, asked: ClearTasks
) -> list[TaskKey]:
    selection = Selection(asked.tasks, asked.downstream, asked.upstream, asked.only_failed)
    chosen = sorted(select(version.plan, progress, states, selection))
    if not chosen:
        what = "none of these tasks has failed" if asked.only_failed else "none of them has started"
        raise InvalidInput(f"there is nothing to clear in run {asked.run_id}: {what}")
    return chosen


def _told(version: Version, states: States, chosen: Sequence[TaskKey]) -> tuple[ClearedTask, ...]:
    return tuple(
        ClearedTask(
            version.spec.tasks[node].task_id,
            None if index == NOT_MAPPED else index,
            states[node, index],
        )
        for node, index in chosen
    )


async def find_run(item: Item, transaction: FoldTransaction) -> Any:
    """Return the run that a request to clear tasks is about; note in the item if there is none."""
    asked = _asked(item)
    rows = await transaction.fetch("find_runs", [asked.run_id])
    if not rows:
        item.error = NotFound("run", str(asked.run_id))
        return None
    return rows[0]
