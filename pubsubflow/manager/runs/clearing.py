"""Clearing of tasks: a live run continues without them, one that has ended is opened again.

A live run is changed under its own lock, before any other message of the batch is applied: results
of what is cleared are void by then. A run that has ended has no lock of its own but that of its
DAG's state, under which every run starts and ends.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import load_events
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.spec_cache import DagVersion, SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import (
    INLINE_EVENTS,
    InstanceKey,
    LockedDag,
    RunWork,
    inline_events,
    longest_ancestry,
)
from pubsubflow.model.api.explain import starting_run
from pubsubflow.model.api.resources import NOT_STARTED
from pubsubflow.model.changes import RunChanged
from pubsubflow.model.runs.clearing import (
    FORKS,
    Choices,
    States,
    TaskSelection,
    clear,
    compatible,
    rebuild,
    select,
)
from pubsubflow.model.runs.fences import first_delivery
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress
from pubsubflow.model.runs.states import RunState, TaskState, advance_state
from pubsubflow.model.wire.commands import ClearedTask, ClearResult, ClearTasks, MarkTasks
from pubsubflow.model.wire.messages import NOT_MAPPED, CancelMessage, RunInfo, encode
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.codecs import REMOVED_RESULT

_EVENT_ROWS = INLINE_EVENTS * 4
_MOST_STARTERS = 100
_decode_result = msgspec.msgpack.Decoder().decode
_decode_reopened = msgspec.msgpack.Decoder(tuple[Raw, list[tuple[int, int]]]).decode


class Clearing:
    """Clears tasks of the runs of one batch.

    Args:
        uow: What the transaction changes.
        transaction: Reads how tasks ended.
        specs: DAG versions.
        lifecycle: Continues runs.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        lifecycle: RunLifecycle,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._lifecycle = lifecycle

    async def clear_live(self, run: RunWork, command: ClearTasks, item: InboxItem) -> ClearResult:
        """Clear tasks of a live run, which is locked.

        Raises:
            InvalidInput: The command only fits a run that has ended, or selects nothing.
            NotFound: A task does not exist.
        """
        (row,) = await self._transaction.fetch("read_run_to_clear", run.id)
        # The transaction that broke has committed: all is done.
        if item.tried and row["clear_id"] in item.ids:
            return ClearResult((), RunState.RUNNING)
        check_cleared(row, command)
        if command.ended:
            raise InvalidInput(f"run {command.run_id} has not ended: clear tasks of it instead")
        if command.newest:
            raise InvalidInput(f"run {command.run_id} has not ended: its version cannot change now")
        rows = await self._transaction.fetch("read_finished_tasks", run.id)
        states: dict[InstanceKey, TaskState] = {
            (row["node"], row["map_index"]): TaskState(row["state"]) for row in rows
        }
        states.update((key, task.state) for key, task in run.live.items())
        chosen = _choose(run.version, run.progress, states, command)
        cleared = describe_tasks(run.version, states, chosen)
        if command.dry_run:
            return ClearResult(cleared, RunState.RUNNING)
        await self.record(run.id, run.progress, chosen, item)
        live = [key for key in chosen if key in run.live]
        for key in live:
            self._lifecycle.waits.stop(run, key, run.live[key], cancelled=True)
            # Its row is deleted under the slots' lock; see `save_cleared`.
            del run.live[key]
        choices = await self.choices(run.id, run.version)
        again = clear(run.version.plan, run.progress, states, chosen, choices)
        if live:
            before = first_delivery(run.progress.clear_number, self._uow.epoch)
            message = CancelMessage(run.id, "cleared", tuple(live), before)
            self._uow.outbox.cancellations.append(message)
        self._lifecycle.resume(run, again)
        return ClearResult(cleared, run.outcome or RunState.RUNNING)

    async def reopen(
        self, run_id: int, dag: LockedDag, command: ClearTasks, item: InboxItem
    ) -> ClearResult | None:
        """Clear tasks of a run that had ended and open it again; its DAG's state is locked.

        Returns:
            What was cleared; None when the run has been opened again meanwhile.

        Raises:
            InvalidInput: The run has not started, its tasks have changed places, or the command
                selects nothing.
            NotFound: A task does not exist.
        """
        rows = await self._transaction.fetch("read_run_to_clear", run_id)
        if not rows:
            raise NotFound("run", str(command.run_id))
        row = rows[0]
        state = RunState(row["state"])
        if item.tried and row["clear_id"] in item.ids:
            return ClearResult((), state)
        if state is RunState.QUEUED:
            raise InvalidInput(f"run {command.run_id} has not started: there is nothing to clear")
        if state is RunState.RUNNING:
            return None
        check_cleared(row, command)
        version = await self._version(row, command, dag)
        progress, states, choices = await self.rebuild(version, row)
        chosen = _choose(version, progress, states, command)
        await self.check_complete(run_id, version, chosen)
        cleared = describe_tasks(version, states, chosen)
        if command.dry_run:
            return ClearResult(cleared, state)
        await self.record(run_id, progress, chosen, item)
        again = clear(version.plan, progress, states, chosen, choices)
        source = dag.source if command.newest else row["source"]
        state = await self.open_again(row, dag, version, (progress, again), source=source)
        return ClearResult(cleared, state)

    async def open_again(
        self,
        row: Row,
        dag: LockedDag,
        version: DagVersion,
        reopened: tuple[Progress, list[InstanceKey]],
        *,
        source: str,
    ) -> RunState:
        """Open a run that had ended, and return its state then.

        Args:
            row: The run, locked.
            dag: Its DAG, locked.
            version: The version with which it goes on.
            reopened: The progress from which it goes on, and instances to run again.
            source: The bundle and version that it is pinned to.
        """
        run_id = row["id"]
        info = await self.info(row, version)
        # Behind the runs that are queued: a run that is opened again has no precedence, unless
        # those that are active wait for it, and would wait for ever.
        ahead = version.plan.past and (await self._transaction.fetch("is_waited_for", run_id))[0][0]
        state = advance_state(RunState(row["state"]), dag.admit(ahead=ahead))
        await self._transaction.fetch("reopen_run", run_id, state, version.id, source)
        if state is RunState.RUNNING:
            self._lifecycle.start(run_id, version, info, reopened=reopened, source=source)
            return self._uow.runs.by_id[run_id].outcome or state
        progress, again = reopened
        kept = encode((Raw(STORED_PROGRESS.encode(progress)), again))
        await self._transaction.fetch("queue_reopened_run", dag.id, run_id, info, kept)
        self._uow.outbox.queue_changes.append(
            RunChanged(
                run_id=str(row["run_id"]),
                dag_id=version.spec.dag_id,
                state=state,
                time=self._uow.now,
            )
        )
        return state

    async def check_complete(
        self, run_id: int, version: DagVersion, chosen: Sequence[InstanceKey]
    ) -> None:
        """Check that retention has left what the tasks of a run need to run again.

        Raises:
            InvalidInput: Its events, or results of tasks that are not cleared, are gone.
        """
        gone = (await self._transaction.fetch("count_removed_events", run_id))[0][0]
        if gone:
            raise InvalidInput(
                f"{gone} of the events that the run consumed were pruned: start a new run"
            )
        rows = await self._transaction.fetch("list_removed_results", run_id, REMOVED_RESULT)
        nodes = sorted({node for node, index in rows if (node, index) not in chosen})
        if nodes:
            names = ", ".join(version.spec.tasks[node].task_id for node in nodes)
            raise InvalidInput(
                f"the results of {names} were pruned: clear the whole run, or start a new one"
            )

    async def record(
        self, run_id: int, progress: Progress, chosen: Sequence[InstanceKey], item: InboxItem
    ) -> None:
        """Record a clearing; its tasks are deleted once the slots are locked."""
        clear_number = progress.clear_number + 1
        await self._transaction.fetch("record_clearing", run_id, clear_number, item.ids[0])
        self._uow.runs.cleared_tasks.extend((run_id, *key) for key in chosen)
        self._uow.runs.clear_numbers[run_id] = clear_number

    async def _version(self, row: Row, command: ClearTasks, dag: LockedDag) -> DagVersion:
        versions = await self._specs.versions(self._transaction, [row["version"]])
        version = versions[row["version"]]
        if not command.newest:
            return version
        if not compatible(version.spec, dag.version.spec):
            raise InvalidInput(
                f"the tasks of {dag.version.spec.dag_id} have changed places since run "
                f"{command.run_id}: clear it without the newest version, or start a new run"
            )
        return dag.version

    async def rebuild(
        self, version: DagVersion, row: Row
    ) -> tuple[Progress, dict[InstanceKey, TaskState], Choices]:
        """Return the progress of a run that has ended, the states of its tasks, its choices."""
        run_id = row["id"]
        rows = await self._transaction.fetch("read_finished_tasks", run_id)
        ended = [(r["node"], r["map_index"], TaskState(r["state"]), r["length"]) for r in rows]
        choices = await self.choices(run_id, version, everywhere=True)
        progress = rebuild(version.plan, ended, choices, row["clear_number"])
        return progress, {(node, index): state for node, index, state, _ in ended}, choices

    async def choices(
        self, run_id: int, version: DagVersion, *, everywhere: bool = False
    ) -> Choices:
        """Return what branches and short circuits have chosen: those in mapped groups, or all."""
        group_of = version.plan.group_of
        forks = [
            (run_id, task.node)
            for task in version.spec.tasks
            if task.role in FORKS and (everywhere or task.node in group_of)
        ]
        found: dict[InstanceKey, object] = {}
        for row in await self._transaction.fetch_rows("read_results", forks) if forks else ():
            stored = row["result"]
            value = _decode_result(stored) if stored not in (None, b"", REMOVED_RESULT) else None
            found[row["node"], row["map_index"]] = value
        return found

    async def info(self, row: Row, version: DagVersion) -> bytes:
        """Return what tasks may know of a run, as it was when it started."""
        rows = await self._transaction.fetch("read_collected_events", [row["id"]], _EVENT_ROWS)
        events = await load_events(rows, self._specs, self._transaction)
        known = {event.id: event for event in events}
        ancestry = longest_ancestry(events, version.dag) or await self._ancestry_of(row["cause"])
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
                inline_events(list(known.values())) if len(rows) < _EVENT_ROWS else None,
                ancestry,
            )
        )

    async def _ancestry_of(self, cause: str) -> tuple[int, ...]:
        """Return the DAGs whose runs led to a run that a task started, as far as they are kept."""
        found: tuple[int, ...] = ()
        for _ in range(_MOST_STARTERS):
            starter = starting_run(cause)
            if starter is None:
                break
            rows = await self._transaction.fetch("find_starting_run", starter)
            if not rows:
                break
            found = (rows[0]["dag"], *found)
            consumed = await self._transaction.fetch(
                "read_collected_events", [rows[0]["id"]], _EVENT_ROWS
            )
            events = await load_events(consumed, self._specs, self._transaction)
            if ancestry := longest_ancestry(events, rows[0]["dag"]):
                return (*ancestry, *found)
            cause = rows[0]["cause"]
        return found


def decode_reopened(kept: bytes) -> tuple[Progress, list[InstanceKey]]:
    """Return the progress of a queued run that was opened again, and the instances to run again."""
    progress, again = _decode_reopened(kept)
    return STORED_PROGRESS.decode(progress), again


async def save_cleared(uow: UnitOfWork, transaction: ManagerTransaction) -> None:
    """Delete cleared tasks; count the prior attempts of those that run again."""
    numbers = uow.runs.clear_numbers
    await transaction.write(
        "clear_tasks",
        [
            (*task, first_delivery(numbers[task[0]], uow.epoch) - 1)
            for task in uow.runs.cleared_tasks
        ],
    )
    begun = {
        (run.id, *key): task
        for run in uow.runs.by_id.values()
        if run.progress.clear_number
        for key, task in run.live.items()
        if not task.stored
    }
    for row in await transaction.fetch_rows("read_prior_attempts", sorted(begun)):
        task = begun[row["run"], row["node"], row["map_index"]]
        task.prior_attempts = row["attempt"]
        task.attempt += task.prior_attempts


def check_cleared(row: Row, command: ClearTasks | MarkTasks) -> None:
    """Check that a run is as its sender has seen it.

    Raises:
        InvalidInput: Tasks of it were cleared since.
    """
    if command.cleared not in (None, row["clear_number"]):
        raise InvalidInput(f"tasks of run {command.run_id} were cleared meanwhile")


def _choose(
    version: DagVersion, progress: Progress, states: States, command: ClearTasks
) -> list[InstanceKey]:
    selection = TaskSelection(
        command.tasks, command.downstream, command.upstream, command.only_failed
    )
    chosen = sorted(select(version.plan, progress, states, selection))
    if not chosen:
        what = (
            "none of these tasks has failed" if command.only_failed else "none of them has started"
        )
        raise InvalidInput(f"there is nothing to clear in run {command.run_id}: {what}")
    return chosen


def describe_tasks(
    version: DagVersion, states: States, chosen: Sequence[InstanceKey]
) -> tuple[ClearedTask, ...]:
    """Return instances with the states that they have; `none` for those not started."""
    return tuple(
        ClearedTask(
            version.spec.tasks[node].task_id,
            None if index == NOT_MAPPED else index,
            states.get((node, index), NOT_STARTED),
        )
        for node, index in chosen
    )
