"""Loading of what a batch decides on: live tasks, condition states, events, publishers, run ids."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from time import monotonic

from msgspec import Struct, ValidationError, field

from pubsubflow.manager.persistence.large_progress import take_kept
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import (
    ConditionWork,
    LiveTask,
    LockedDag,
    LoggedEvent,
    RunDraft,
    RunWork,
)
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress
from pubsubflow.model.runs.states import TaskState, needs_slot
from pubsubflow.model.runs.stored.split_progress import decode_stored, is_split
from pubsubflow.model.schedule.condition_state import STORED_CONDITION
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    JournalEntry,
    ResultMessage,
    TaskKey,
)
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.codecs import decode_event_info, decode_journal_entry
from pubsubflow.store.slices import SLICE_LEFT_ALONE_SECONDS

_IDS_A_BLOCK = 1000
# A slice of runs is left alone for longer: no id of a removed slice is given out.
_BLOCK_SECONDS = SLICE_LEFT_ALONE_SECONDS / 2
Route = tuple[LockedDag, str]
"""A DAG, and the key of a state of its condition."""


class IdAllocator:
    """Hands out run ids, taken from the store in blocks; every manager has blocks of its own.

    Args:
        clock: Seconds; a block is used for a while only.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._blocks: deque[range] = deque()
        self._oldest_at = 0.0
        self._left = 0

    @property
    def left(self) -> int:
        """How many are at hand."""
        return self._left if self._clock() - self._oldest_at < _BLOCK_SECONDS else 0

    async def reserve(self, transaction: ManagerTransaction, count: int) -> None:
        """Make sure that `count` ids are at hand.

        A transaction that is rolled back loses no id for good: sequences do not roll back.
        """
        # The rest of a block that is old, or of a manager that stops, is lost: ids may have gaps.
        if not self.left:
            self._blocks.clear()
            self._left = 0
            self._oldest_at = self._clock()
        while self._left < count:
            first = (await transaction.fetch("allocate_run_ids"))[0][0]
            self._blocks.append(range(first, first + _IDS_A_BLOCK))
            self._left += _IDS_A_BLOCK

    def allocate(self) -> int:
        """Return an id that was reserved."""
        block = self._blocks.popleft()
        if len(block) > 1:
            self._blocks.appendleft(block[1:])
        self._left -= 1
        return block[0]


class RunLocks(Struct):
    """The runs that messages concern, and what is read once they are locked.

    Attributes:
        runs: Runs of which every live task is loaded.
        bare: Runs of which no task is needed.
        tasks: Task instances that are loaded, with their runs.
        chained: Results of tasks that a runner went straight on with.
        publishers: Tasks that published events while they ran.
        failed_triggers: Triggers that report a failure.
    """

    runs: set[int] = field(default_factory=set)
    bare: set[int] = field(default_factory=set)
    tasks: set[TaskKey] = field(default_factory=set)
    chained: list[ResultMessage] = field(default_factory=list)
    publishers: set[TaskKey] = field(default_factory=set)
    failed_triggers: set[int] = field(default_factory=set)


async def lock_runs(
    locks: RunLocks, uow: UnitOfWork, specs: SpecCache, transaction: ManagerTransaction
) -> None:
    """Lock runs in order, and load those of their live tasks that are needed."""
    # A run that has ended has no live row: what messages say of it is void.
    wanted = {run for run, _, _ in locks.tasks} | locks.runs | locks.bare
    # Every task of these is read anyway.
    single = [task for task in locks.tasks if task[0] not in locks.runs]
    rows, tasks = await transaction.lock_runs(wanted, single)
    if rows and rows[0]["tag_limits"]:
        uow.runs.tag_limits = frozenset(rows[0]["tag_limits"])
    await _add_runs(rows, await _locked_progress(rows, transaction), uow, specs, transaction)
    # A failure there stops all that the run has left.
    locks.runs |= {run.id for run in uow.runs.by_id.values() if run.version.spec.fail_fast}
    load_tasks((row for row in tasks if row["run"] not in locks.runs), uow)
    if locks.runs:
        load_tasks(await transaction.fetch("read_live_tasks_of_runs", sorted(locks.runs)), uow)
    # A chained result is early, not void, if the task before it is live: that must be known.
    if locks.chained:
        heads = _heads_of_chains(locks.chained, uow)
        _, tasks = await transaction.lock_runs((), heads)
        load_tasks(tasks, uow)
    if locks.failed_triggers:
        rows = await transaction.fetch("read_trigger_epochs", sorted(locks.failed_triggers))
        uow.waits.lease_epochs.update((row["id"], row["epoch"]) for row in rows)


def _heads_of_chains(results: Iterable[ResultMessage], uow: UnitOfWork) -> list[TaskKey]:
    """Return where chained results came from that is not loaded: it may still be to come."""
    keys: set[TaskKey] = set()
    for result in results:
        run = uow.runs.by_id.get(result.run)
        if run is None or run.progress.nodes[result.node].complete:
            continue
        chain = [result.node, *run.chain_before(result.node)]
        if not any((node, NOT_MAPPED) in run.live for node in chain):
            keys.update((result.run, node, NOT_MAPPED) for node in chain)
    return sorted(keys)


async def _locked_progress(rows: Sequence[Row], transaction: ManagerTransaction) -> list[Progress]:
    """Return the progress of runs that are locked."""
    large = [row for row in rows if is_split(row["progress"])]
    if not large:
        return [STORED_PROGRESS.decode(row["progress"]) for row in rows]
    found = {row["run"]: take_kept(row["progress"]) for row in large}
    unknown = [run for run, progress in found.items() if progress is None]
    chunks: dict[int, list[bytes]] = {}
    # The locks hold meanwhile: they are those of the heads that were read.
    for row in await transaction.fetch("read_progress_chunks", unknown) if unknown else ():
        chunks.setdefault(row["run"], []).append(row["progress"])
    return [
        found.get(row["run"]) or decode_stored(row["progress"], chunks.get(row["run"]))
        for row in rows
    ]


async def load_runs(
    rows: Sequence[Row], uow: UnitOfWork, specs: SpecCache, transaction: ManagerTransaction
) -> None:
    """Add live runs that are not locked to the unit of work; their tasks are loaded apart."""
    progress = [decode_stored(row["progress"], row["chunks"]) for row in rows]
    await _add_runs(rows, progress, uow, specs, transaction)


async def _add_runs(
    rows: Sequence[Row],
    progress: Sequence[Progress],
    uow: UnitOfWork,
    specs: SpecCache,
    transaction: ManagerTransaction,
) -> None:
    versions = await specs.versions(transaction, (row["version"] for row in rows))
    for row, own in zip(rows, progress, strict=True):
        uow.runs.by_id[row["run"]] = RunWork(
            row["run"],
            versions[row["version"]],
            own,
            row["info"],
            source=row["source"],
            new=False,
        )


def load_tasks(rows: Iterable[Row], uow: UnitOfWork) -> None:
    """Add live tasks to runs that are locked."""
    for row in rows:
        run = uow.runs.by_id.get(row["run"])
        if run is None:
            continue
        state = TaskState(row["state"])
        spec = run.version.spec.tasks[row["node"]]
        run.live[row["node"], row["map_index"]] = LiveTask(
            row["attempt"],
            row["delivery"],
            row["crashes"],
            state,
            row["chained"],
            row["worker"],
            row["queued_at"],
            row["started_at"],
            row["wait_set"],
            row["prior_attempts"],
            direct=row["direct"],
            stored=True,
            uses_slot=needs_slot(state, keeps_slots=spec.keeps_slots),
            changed=False,
            stored_as=(state, row["attempt"]),
        )


async def load_journals(
    tasks: Sequence[TaskKey], transaction: ManagerTransaction
) -> dict[TaskKey, list[JournalEntry]]:
    """Return the journals of tasks; those with an empty one are left out."""
    found: dict[TaskKey, list[JournalEntry]] = {}
    for row in await transaction.fetch_rows("read_journals", tasks):
        task = (row["run"], row["node"], row["map_index"])
        found.setdefault(task, []).append(decode_journal_entry(row))
    return found


class ConditionStates:
    """Loads states of conditions of locked DAGs, and the runs that collect events for them."""

    def __init__(self, uow: UnitOfWork, transaction: ManagerTransaction) -> None:
        self._uow = uow
        self._transaction = transaction

    async def load(self, routes: Iterable[Route]) -> None:
        """Load the states that exist and are not loaded yet."""
        missing = {(dag.id, key) for dag, key in routes if key not in dag.conditions}
        await self.add(await self._transaction.fetch_rows("read_condition_states", sorted(missing)))

    async def load_open(self, dag: LockedDag) -> list[ConditionWork]:
        """Load and return the states in which events are pending or a run collects them."""
        rows = await self._transaction.fetch("read_open_condition_states", [dag.id])
        await self.add([row for row in rows if row["partition_key"] not in dag.conditions])
        return dag.open_conditions

    async def add(self, rows: Sequence[Row]) -> None:
        """Add rows of states to their DAGs, which are locked."""
        schedule = self._uow.schedule
        collecting = {}
        for row in rows:
            dag, key = schedule.dags[row["dag"]], row["partition_key"]
            try:
                state = STORED_CONDITION.decode_known(row["state"])
            except ValidationError:
                state = STORED_CONDITION.decode_newer(row["state"])
            dag.conditions[key] = ConditionWork(key, state)
            # Further events join the run that collects, so it must be here as a draft.
            if state.collecting_run and state.collecting_run not in schedule.drafts:
                collecting[state.collecting_run] = (dag, key)
        if not collecting:
            return
        for row in await self._transaction.fetch("read_collecting_runs", sorted(collecting)):
            dag, key = collecting[row["id"]]
            schedule.drafts[row["id"]] = RunDraft(
                row["id"],
                row["run_id"],
                dag,
                row["run_key"],
                row["kind"],
                row["cause"],
                row["created_at"],
                condition_key=key,
                logical_time=row["logical_time"],
                partition=row["partition"],
                stored=True,
                collecting=True,
            )


async def load_events(
    rows: Sequence[Row], specs: SpecCache, transaction: ManagerTransaction
) -> list[LoggedEvent]:
    """Return the recorded events of rows, in their order."""
    ids = {row["version"] for row in rows if row["version"] is not None}
    versions = await specs.versions(transaction, ids)
    found = []
    for row in rows:
        spec = None if row["version"] is None else versions[row["version"]].spec
        info = decode_event_info(row, spec)
        found.append(
            LoggedEvent(
                info,
                min(row["time"], row["recorded_at"]),
                id=row["id"],
                recorded_at=row["recorded_at"],
                ancestry=tuple(row["ancestry"]),
            )
        )
    return found


class PublishingTask(Struct, frozen=True):
    """The task that published an event, as those who consume the event see it.

    Attributes:
        ancestry: The DAGs whose runs led to the event, its own included.
    """

    run_id: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    ancestry: tuple[int, ...] = ()


async def load_publishers(
    tasks: Collection[TaskKey], uow: UnitOfWork, specs: SpecCache, transaction: ManagerTransaction
) -> dict[TaskKey, PublishingTask]:
    """Return the tasks that published events while they ran.

    The run may have ended meanwhile; then its ancestry is not known any more and begins with it.
    """
    ended = sorted({run for run, _, _ in tasks} - uow.runs.by_id.keys())
    rows = await transaction.fetch("read_run_ids", ended) if ended else []
    versions = await specs.versions(transaction, (row["version"] for row in rows))
    known = {row["id"]: row for row in rows}
    found = {}
    for task in tasks:
        run_id, node, _ = task
        run = uow.runs.by_id.get(run_id)
        if run is not None:
            version, name = run.version, run.info.run_id
            ancestry = (*run.info.ancestry, version.dag)
        elif run_id in known:
            version, name = versions[known[run_id]["version"]], str(known[run_id]["run_id"])
            ancestry = (version.dag,)
        else:
            # Its run does not exist any more: the event stays, without its task.
            found[task] = PublishingTask()
            continue
        spec = version.spec
        found[task] = PublishingTask(name, spec.dag_id, spec.tasks[node].task_id, ancestry)
    return found
