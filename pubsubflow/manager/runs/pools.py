"""Pools and other limits: tasks wait in queues for slots, and are handed out when they get them.

All slots have one lock, the last that a transaction takes. Its holder may hand out any task that
waits, also of a run that it has not locked: a row in state `ready` is removed only under both
locks, and changed by no other transaction. Transactions without limited tasks do not come here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pubsubflow.errors import NotFound
from pubsubflow.manager.persistence.load import load_runs
from pubsubflow.manager.runs.rate_limits import RateLimits
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import InstanceKey, LiveTask, RunWork
from pubsubflow.model.limits.keys import FurtherKey, KeyPart, render_key
from pubsubflow.model.revisions import check_revision, pool_revision
from pubsubflow.model.runs.concurrency import (
    KEY,
    POOL,
    RATE,
    TAG,
    Capacity,
    Limit,
    Waiter,
    WaitQueue,
)
from pubsubflow.model.runs.states import TaskState, advance_state, needs_slot
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.wire.commands import DeletePool, SetPool
from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row

_Limits = tuple[Limit, ...]


async def change_pool(
    transaction: ManagerTransaction, change: SetPool | DeletePool, *, tried: bool
) -> None:
    """Set or delete a pool, or the limit of a tag.

    Args:
        transaction: Where it is written.
        change: What to do.
        tried: A transaction with it may have committed before: then all is done already.

    Raises:
        StaleRevision: The pool has changed since its sender read it.
        NotFound: The pool to delete does not exist.
    """
    name = change.name
    rows = await transaction.fetch("read_pools", [name])
    slots = rows[0]["slots"] if rows else None
    if tried and slots == (change.slots if isinstance(change, SetPool) else None):
        return
    revision = pool_revision(rows[0]["changed_at"] if rows else None)
    check_revision(f"pool {name!r}", revision, change.revisions)
    if isinstance(change, SetPool):
        await transaction.fetch("save_pool", name, change.slots)
    elif not await transaction.fetch("delete_pool", name):
        raise NotFound("pool", name)


class SlotAllocator:
    """The slots of one transaction.

    Args:
        uow: What the transaction changes.
        transaction: Locks, reads and writes slots.
        specs: DAG versions.
        known: Wait queues that are known: their limits → id.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        known: dict[_Limits, int],
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._known = known
        self._leaving = _leaving(uow)
        self._joining = _joining(uow)
        self._chained = _chained(uow) if uow.runs.tag_limits else []
        self._rates = RateLimits(uow, transaction)
        self._freed = {f"{RATE}{name}" for name in uow.runs.woken_rate_limits}
        self._withdrawn: list[str] = []
        self._used: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._passing: set[int] = set()
        self._passing_queues: dict[_Limits, int] = {}

    @property
    def needed(self) -> bool:
        """Whether a task of this batch needs a slot, or needs one no longer."""
        return bool(self._leaving or self._joining or self._freed or self._chained)

    async def lock(self) -> None:
        """Lock the slots; release those of tasks that need none any more."""
        await self._transaction.fetch("lock_slots")
        for row in await self._transaction.fetch_rows("release_slots", self._leaving):
            self._count(row["wait_queue"], used=-row["held"], waiting=row["held"] - 1)

    def free(self, limits: Iterable[str]) -> None:
        """Look for tasks that wait for these limits: they may have slots now."""
        self._freed.update(limits)

    def withdraw(self, limit: str) -> None:
        """Release the slots of which a limit that is gone is the only one, once granted."""
        self._withdrawn.append(limit)

    async def grant(self) -> None:
        """Grant slots to the tasks that are next; the others wait.

        Tasks to hand out that get no slot are `ready` instead; waiting ones that get one are
        handed out with the batch, whatever run they belong to.
        """
        # Those that join are among the waiting, so no task passes another that came first.
        await self._join()
        if self._chained:
            await self._hold_chained()
        chosen = await self._choose()
        for waiter in chosen:
            self._count(waiter.queue, used=1, waiting=-1)
        # In order: managers lock rows of tasks in one order.
        granted = sorted(waiter.task for waiter in chosen)
        await self._transaction.write("grant_slots", granted)
        counts = [
            (queue, used, self._waiting[queue])
            for queue, used in sorted(self._used.items())
            if used or self._waiting[queue]
        ]
        await self._transaction.write("adjust_wait_queue_counts", counts)
        # One without counts was emptied here, or counts to nothing: both may go.
        if self._passing:
            await self._transaction.fetch("delete_passing_wait_queues", sorted(self._passing))
        for limit in self._withdrawn:
            await self._transaction.fetch("delete_slots_of_limit", limit)
            await self._transaction.fetch("count_wait_queues")
        joined = set(self._joining)
        for task in joined.difference(granted):
            run, key = self._uow.runs.by_id[task[0]], task[1:]
            run.dispatch.remove(key)
            run.live[key].withhold()
        await self._hand_out([task for task in granted if task not in joined])

    async def _join(self) -> None:
        """Put tasks that need a slot into the wait queue of their limits."""
        rows = []
        for task in self._joining:
            run, spec = self._uow.runs.by_id[task[0]], self._spec(task)
            if spec.has_rendered_keys:
                queue = await self._passing_queue(limits_of(run, spec, task[2]))
            else:
                queue = await self._queue(run.limits[spec.node])
            if spec.rate_limit is not None:
                self._rates.require(spec.rate_limit)
            rows.append((*task, queue, run.version.spec.priority + spec.priority))
            self._count(queue, waiting=1)
        await self._transaction.write("join_wait_queues", rows)

    async def _hold_chained(self) -> None:
        """Give slots to tasks that run already: their runner went straight on with them.

        The order for that was sent before the tag of their DAG was limited.
        """
        rows = []
        for task in self._chained:
            run, spec = self._uow.runs.by_id[task[0]], self._spec(task)
            limits = run.limits[spec.node]
            if spec.has_rendered_keys:
                queue = await self._passing_queue(limits_of(run, spec, task[2]))
            else:
                queue = await self._queue(limits)
            rows.append((*task, queue, run.version.spec.priority + spec.priority, True))
            self._count(queue, used=1)
        await self._transaction.write("enrol_slots", rows)

    def _spec(self, task: TaskKey) -> TaskSpec:
        return self._uow.runs.by_id[task[0]].version.spec.tasks[task[1]]

    async def _queue(self, limits: _Limits) -> int:
        # One that was registered here is known to others only after the commit.
        found = self._known.get(limits) or self._uow.runs.wait_queues.get(limits)
        if found is None:
            found = self._uow.runs.wait_queues[limits] = await self._register(limits, passing=False)
        return found

    async def _passing_queue(self, limits: _Limits) -> int:
        # Not remembered from batch to batch: it goes when it is empty.
        found = self._passing_queues.get(limits)
        if found is None:
            found = self._passing_queues[limits] = await self._register(limits, passing=True)
        return found

    async def _register(self, limits: _Limits, *, passing: bool) -> int:
        names, capacities = zip(*((limit.name, limit.capacity) for limit in limits), strict=True)
        rows = await self._transaction.fetch("register_wait_queue", names, capacities, passing)
        return int(rows[0]["id"])

    def _count(self, queue: int, *, used: int = 0, waiting: int = 0) -> None:
        self._used[queue] = self._used.get(queue, 0) + used
        self._waiting[queue] = self._waiting.get(queue, 0) + waiting

    async def _choose(self) -> list[Waiter]:
        queues, concerned = await self._read_queues()
        pools, rates = setting_names(concerned), _names(concerned, RATE)
        slots = await self._transaction.fetch("read_pools", pools) if pools else []
        if rates:
            await self._rates.read(rates)
        capacity = Capacity(
            queues, {row["name"]: row["slots"] for row in slots}, self._rates.available()
        )
        wanted = [
            (queue.number, capacity.heads(queue)) for queue in concerned if capacity.heads(queue)
        ]
        heads = await self._transaction.fetch_rows("read_queue_heads", wanted)
        waiters = [
            Waiter(
                (row["run"], row["node"], row["map_index"]),
                row["wait_queue"],
                row["priority"],
                row["position"],
            )
            for row in heads
        ]
        chosen = capacity.choose(concerned, waiters)
        if rates:
            started = Counter(waiter.queue for waiter in chosen)
            waiting = [queue for queue in concerned if queue.waiting > started[queue.number]]
            await self._rates.save(capacity.started, _names(waiting, RATE))
        return chosen

    async def _read_queues(self) -> tuple[list[WaitQueue], list[WaitQueue]]:
        """Return the queues that count, and those of them in which a task may be next."""
        numbers = set(self._used)
        while True:
            queues, concerned, gathering = [], [], set()
            for row in await self._transaction.fetch(
                "read_wait_queues", sorted(numbers), sorted(self._freed)
            ):
                queue = self._read(row)
                queues.append(queue)
                if row["passing"] and not (queue.used or queue.waiting):
                    self._passing.add(queue.number)
                if queue.waiting and row["concerned"]:
                    concerned.append(queue)
                elif queue.waiting and queue.weighted:
                    gathering.add(queue.number)
            # A task that gathers slots keeps them free from queues of another limit, too.
            if not gathering:
                return queues, concerned
            numbers |= gathering

    def _read(self, row: Row) -> WaitQueue:
        return WaitQueue(
            row["id"],
            tuple(map(Limit.stored, row["limits"], row["capacities"])),
            row["used"] + self._used.get(row["id"], 0),
            row["waiting"] + self._waiting.get(row["id"], 0),
        )

    async def _hand_out(self, tasks: Sequence[TaskKey]) -> None:
        """Hand out tasks that waited, with this batch; their runs may be locked by others."""
        rows = await self._transaction.fetch_rows("queue_ready_tasks", tasks)
        # Their rows in state `ready` change under the slots' lock alone; see above.
        foreign = sorted({row["run"] for row in rows} - self._uow.runs.by_id.keys())
        runs = await self._transaction.fetch("read_live_runs", foreign) if foreign else []
        await load_runs(runs, self._uow, self._specs, self._transaction)
        for row in rows:
            run, key = self._uow.runs.by_id[row["run"]], (row["node"], row["map_index"])
            run.live[key] = LiveTask(
                row["attempt"],
                row["delivery"],
                row["crashes"],
                advance_state(TaskState.READY, TaskState.QUEUED),
                started_at=row["started_at"],
                prior_attempts=row["prior_attempts"],
                stored=True,
                uses_slot=True,
                changed=False,
                stored_as=(TaskState.READY, row["attempt"]),
            )
            run.dispatch.append(key)


def _leaving(uow: UnitOfWork) -> list[TaskKey]:
    """Return the tasks that may have a slot and need none any more."""
    found = {
        task for task in uow.runs.cleared_tasks if _limited(uow.runs.by_id.get(task[0]), task[1])
    }
    for run in uow.runs.by_id.values():
        limits = run.limits
        if limits:
            found.update((run.id, *key) for key in run.removed if limits[key[0]])
            found.update(
                (run.id, *key)
                for key, task in run.live.items()
                if task.uses_slot
                and limits[key[0]]
                and (_is_without(run, key) or _starts_anew(run, key))
            )
    return sorted(found)


def _limited(run: RunWork | None, node: int) -> bool:
    return run is None or bool(run.limits and run.limits[node])


def _joining(uow: UnitOfWork) -> list[TaskKey]:
    """Return the tasks that are to be handed out and need a slot first, in order."""
    return sorted(
        (run.id, *key)
        for run in uow.runs.by_id.values()
        if run.limits
        for key in run.dispatch
        if run.limits[key[0]] and (not run.live[key].uses_slot or _starts_anew(run, key))
    )


def _chained(uow: UnitOfWork) -> list[TaskKey]:
    """Return the limited tasks that a runner went straight on with, in order."""
    return sorted(
        (run.id, *key)
        for run in uow.runs.by_id.values()
        if run.limits
        for key, task in run.live.items()
        if task.chained and not task.stored and run.limits[key[0]]
    )


def _is_without(run: RunWork, key: InstanceKey) -> bool:
    spec = run.version.spec.tasks[key[0]]
    return not needs_slot(run.live[key].state, keeps_slots=spec.keeps_slots)


def _starts_anew(run: RunWork, key: InstanceKey) -> bool:
    """Return whether a task that has its slots needs another start of its rate limit.

    A further attempt does; one that is handed out again for its worker's death does not.
    """
    stored = run.live[key].stored_as
    if stored is None or run.version.spec.tasks[key[0]].rate_limit is None:
        return False
    return stored[1] != run.live[key].attempt


def limits_of(run: RunWork, spec: TaskSpec, map_index: int) -> _Limits:
    """Return the limits of a task whose concurrency keys follow from its run."""
    info = run.info
    day = "" if info.logical_time is None else f"{info.logical_time:%Y-%m-%d}"
    facts: dict[str, Any] = {
        "params": info.params,
        "run": {
            "run_id": info.run_id,
            "dag_id": info.dag_id,
            "kind": info.kind,
            "logical_time": info.logical_time,
            "partition": info.partition,
        },
        "task": {"task_id": spec.task_id, "map_index": map_index},
        "ds": day,
    }
    parts = spec.key_parts or (KeyPart(spec.concurrency_key),)
    own = FurtherKey(parts, spec.concurrency_limit)
    keys = (
        Limit(f"{KEY}{render_key(each.parts, facts)}", each.limit)
        for each in (own, *spec.further_keys)
    )
    others = (each for each in run.limits[spec.node] if not each.name.startswith(KEY))
    return tuple(sorted((*others, *keys)))


def setting_names(queues: Iterable[WaitQueue]) -> list[str]:
    """Return under which names the slots of pools and tags are set, for the limits of queues."""
    tags = (f"{TAG}{name}" for name in _names(queues, TAG))
    return sorted({*_names(queues, POOL), *tags})


def _names(queues: Iterable[WaitQueue], prefix: str) -> list[str]:
    """Return the names of the limits of one kind that queues have, in order."""
    return sorted(
        {
            limit.name.removeprefix(prefix)
            for queue in queues
            for limit in queue.limits
            if limit.name.startswith(prefix)
        }
    )
