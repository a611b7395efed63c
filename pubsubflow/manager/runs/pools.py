"""Pools and other limits: tasks wait in queues for slots, and are handed out when they get one.

All slots have one lock, the last that a transaction takes. Its holder may hand out any task that
waits, also of a run that it has not locked: a row in state `ready` is removed only under both
locks, and changed by no other transaction. Transactions without limited tasks do not come here.
"""

from collections.abc import Sequence

from pubsubflow.errors import NotFound
from pubsubflow.manager.persistence.load import load_runs
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LiveTask, RunWork
from pubsubflow.model.revisions import check_revision, pool_revision
from pubsubflow.model.runs.concurrency import POOL, Capacity, Limit, Waiter, WaitQueue
from pubsubflow.model.runs.states import WITHOUT_SLOT, TaskState, advance_state
from pubsubflow.model.wire.commands import DeletePool, SetPool
from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.manager_transaction import ManagerTransaction

_Limits = tuple[Limit, ...]


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
        self._pools: set[str] = set()
        self._used: dict[int, int] = {}
        self._waiting: dict[int, int] = {}

    @property
    def needed(self) -> bool:
        """Whether a task of this batch needs a slot, or needs one no longer."""
        return bool(self._leaving or self._joining)

    async def lock(self) -> None:
        """Lock the slots; release those of tasks that need none any more."""
        await self._transaction.fetch("lock_slots")
        for row in await self._transaction.fetch_rows("release_slots", self._leaving):
            self._count(row["wait_queue"], used=-row["held"], waiting=row["held"] - 1)

    async def change_pool(self, change: SetPool | DeletePool, *, tried: bool) -> None:
        """Set or delete a pool.

        Args:
            change: What to do.
            tried: A transaction with it may have committed before: then all is done already.

        Raises:
            StaleRevision: The pool has changed since its sender read it.
            NotFound: The pool to delete does not exist.
        """
        name = change.name
        rows = await self._transaction.fetch("read_pools", [name])
        slots = rows[0]["slots"] if rows else None
        if not (tried and slots == (change.slots if isinstance(change, SetPool) else None)):
            revision = pool_revision(rows[0]["changed_at"] if rows else None)
            check_revision(f"pool {name!r}", revision, change.revisions)
            if isinstance(change, SetPool):
                await self._transaction.fetch("save_pool", name, change.slots)
            elif not await self._transaction.fetch("delete_pool", name):
                raise NotFound("pool", name)
        self._pools.add(f"{POOL}{name}")

    async def grant(self) -> None:
        """Grant slots to the tasks that are next; the others wait.

        Tasks to hand out that get no slot are `ready` instead; waiting ones that get one are
        handed out with the batch, whatever run they belong to.
        """
        # Those that join are among the waiting, so no task passes another that came first.
        await self._join()
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
            version = self._uow.runs.by_id[task[0]].version
            queue = await self._queue(version.plan.limits[task[1]])
            rows.append((*task, queue, version.spec.tasks[task[1]].priority))
            self._count(queue, waiting=1)
        await self._transaction.write("join_wait_queues", rows)

    async def _queue(self, limits: _Limits) -> int:
        # One that was registered here is known to others only after the commit.
        found = self._known.get(limits) or self._uow.runs.wait_queues.get(limits)
        if found is None:
            names, capacities = [limit.name for limit in limits], [limit.most for limit in limits]
            rows = await self._transaction.fetch("register_wait_queue", names, capacities)
            found = self._uow.runs.wait_queues[limits] = int(rows[0]["id"])
        return found

    def _count(self, queue: int, *, used: int = 0, waiting: int = 0) -> None:
        self._used[queue] = self._used.get(queue, 0) + used
        self._waiting[queue] = self._waiting.get(queue, 0) + waiting

    async def _choose(self) -> list[Waiter]:
        rows = await self._transaction.fetch(
            "read_wait_queues", sorted(self._used), sorted(self._pools)
        )
        queues, concerned = [], []
        for row in rows:
            number = row["id"]
            limits = tuple(map(Limit, row["limits"], row["capacities"]))
            used = row["used"] + self._used.get(number, 0)
            waiting = row["waiting"] + self._waiting.get(number, 0)
            queue = WaitQueue(number, limits, used, waiting)
            queues.append(queue)
            if row["concerned"] and queue.waiting:
                concerned.append(queue)
        pools = {
            limit.name.removeprefix(POOL)
            for queue in concerned
            for limit in queue.limits
            if limit.name.startswith(POOL)
        }
        slots = await self._transaction.fetch("read_pools", sorted(pools)) if pools else []
        capacity = Capacity(queues, {row["name"]: row["slots"] for row in slots})
        wanted = [
            (queue.number, capacity.available(queue))
            for queue in concerned
            if capacity.available(queue)
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
        return capacity.choose(concerned, waiters)

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
        limits = run.version.plan.limits
        if limits:
            found.update((run.id, *key) for key in run.removed if limits[key[0]])
            found.update(
                (run.id, *key)
                for key, task in run.live.items()
                if task.uses_slot and task.state in WITHOUT_SLOT and limits[key[0]]
            )
    return sorted(found)


def _limited(run: RunWork | None, node: int) -> bool:
    return run is None or bool(run.version.plan.limits and run.version.plan.limits[node])


def _joining(uow: UnitOfWork) -> list[TaskKey]:
    """Return the tasks that are to be handed out and need a slot first, in order."""
    return sorted(
        (run.id, *key)
        for run in uow.runs.by_id.values()
        if run.version.plan.limits
        for key in run.dispatch
        if run.version.plan.limits[key[0]] and not run.live[key].uses_slot
    )
