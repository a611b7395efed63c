"""Batch: one transaction over the messages that gathered; what follows is published afterwards.

The phases are in lock order, the same for every manager:

1. `resolve`: limits of tags, dead letters and watched datasets are locked.
2. `before_runs`: idempotency keys are claimed; then runs are locked, by id.
3. `on_runs`, `apply`: runs change in memory, events are taken in.
4. `before_dags`: the table of event waits is locked, timers are claimed; then DAG states are
   locked, by id, and events get their ids.
5. `on_dags`: commands and timers of DAGs are carried out, events are decided, runs are admitted.
6. `on_pools`: all slots are locked at once, if a limited task is concerned.

Event ids are allocated under the locks of the DAG states, so for every DAG the order of ids is the
order in which its events were decided. Two managers may still meet on DAGs that a cascade adds;
Postgres then ends one of the transactions, and it starts over.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from pubsubflow.manager.handlers import HANDLERS, BatchContext, DagLocks, Handler, Phase
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.outbox.changes import encode_changes
from pubsubflow.manager.outbox.direct_orders import DirectOrders
from pubsubflow.manager.outbox.orders import build_orders
from pubsubflow.manager.persistence.load import IdAllocator, RunLocks, load_publishers, lock_runs
from pubsubflow.manager.persistence.save import is_saved_at_once, save
from pubsubflow.manager.runs.clearing import save_cleared
from pubsubflow.manager.runs.pools import SlotAllocator
from pubsubflow.manager.runs.tag_limits import limit_by_tags
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import CommittedBatch, UnitOfWork
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.concurrency import Limit
from pubsubflow.model.runs.plan import MAX_MAP_LENGTH
from pubsubflow.model.traces import NoTracing, Tracing
from pubsubflow.model.wire.messages import TaskMessage
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.batches.remembered import NotRememberedError, RememberedTransaction

_KINDS = tuple(dict.fromkeys(HANDLERS.values()))


class BatchProcessor:
    """Processes batches of items, each in the transaction that the caller opened.

    Args:
        now: The time.
        new_id: Gives ids for outsiders.
        new_event_id: Gives those of events.
        chance: Draws the jitter of retries, from 0 up to 1.
        max_loops: How often one DAG may occur in the ancestry of its run.
        tracing: Draws trace contexts; none unless given.
        max_map_length: Instances of a mapped task at most.

    Attributes:
        epoch: The epoch of the database; see `model.runs.fences`.
        direct: Chooses the orders that the worker of this daemon gets; None without one.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], UUID] = new_id,
        new_event_id: Callable[[], str] = new_id.text,
        chance: Callable[[], float] = random.random,
        max_loops: int = 100,
        tracing: Tracing | None = None,
        max_map_length: int = MAX_MAP_LENGTH,
    ) -> None:
        self._now = now
        self._new_id = new_id
        self._new_event_id = new_event_id
        self._chance = chance
        self._max_loops = max_loops
        self._tracing = tracing or NoTracing()
        self._run_ids = IdAllocator()
        self._specs = SpecCache(max_map_length=max_map_length)
        self._wait_queues: dict[tuple[Limit, ...], int] = {}
        self.epoch = 0
        self.direct: DirectOrders | None = None

    async def process(
        self, items: Sequence[InboxItem], transaction: ManagerTransaction
    ) -> CommittedBatch:
        """Decide about a batch and write it.

        Items that came too early are marked `postponed`; requests that cannot be carried out get
        their `error`. Any other failure is raised: the transaction must be rolled back, and the
        items be reset before another one tries them.
        """
        uow = await self._decide(items, transaction)
        await save(uow, transaction, encode_changes(uow))
        # Orders carry results and journals, so they are built after all is written.
        return CommittedBatch(await _orders(uow, transaction), uow)

    async def prepare(
        self, items: Sequence[InboxItem], transaction: RememberedTransaction
    ) -> CommittedBatch:
        """Decide about a batch from memory, for `write`.

        Raises:
            NotRememberedError: It needs more than is remembered; the items must be reset.
        """
        uow = await self._decide(items, transaction)
        return CommittedBatch(await _orders(uow, transaction), uow)

    async def write(self, prepared: CommittedBatch, transaction: RememberedTransaction) -> None:
        """Write and commit a batch that was decided from memory.

        Raises:
            NotRememberedError: What it was decided by has changed, or it takes further statements;
                the items must be reset.
        """
        uow = prepared.uow
        if not is_saved_at_once(uow):
            raise NotRememberedError("further statements")
        await save(uow, transaction, encode_changes(uow))
        for event in uow.log.recorded:
            event.id = transaction.event_ids[event.id - 1]

    async def _decide(
        self, items: Sequence[InboxItem], transaction: ManagerTransaction
    ) -> UnitOfWork:
        uow = UnitOfWork(self._now(), self.epoch)
        context = BatchContext(
            uow,
            transaction,
            self._specs,
            self._run_ids,
            new_id=self._new_id,
            new_event_id=self._new_event_id,
            chance=self._chance,
            max_loops=self._max_loops,
            tracing=self._tracing,
        )
        handlers = _Handlers(items, context)
        for handler, own in handlers.having(Phase.RESOLVE):
            await handler.resolve(own)
            handlers.regroup(own)
        await self._change_runs(items, handlers, context)
        await self._change_dags(handlers, context)
        runs = uow.runs.by_id.values()
        # Registering a dataset may wait for a manager that registers the same one: it must come
        # before the slots, whose lock is the last.
        if uow.waits.begun:
            await self._register_awaited(uow, transaction)
        if uow.runs.tag_limits:
            limit_by_tags(runs, uow.runs.tag_limits)
        pools = list(handlers.having(Phase.ON_POOLS))
        if (
            pools
            or uow.runs.cleared_tasks
            or uow.runs.woken_rate_limits
            or any(run.limits for run in runs)
        ):
            await self._change_slots(pools, uow, transaction)
        if uow.runs.cleared_tasks or any(run.progress.clear_number for run in runs):
            await save_cleared(uow, transaction)
        dispatched = any(run.dispatch for run in runs)
        # What was tried before is handed out over the bus: whether the first try was committed is
        # decided by the rows of its direct orders, which must not be these.
        if dispatched and self.direct is not None and not any(item.tried for item in items):
            self.direct.choose(uow)
        return uow

    async def _change_runs(
        self, items: Sequence[InboxItem], handlers: "_Handlers", context: BatchContext
    ) -> None:
        """Lock the runs that messages concern, and apply what they say."""
        locks = RunLocks()
        for handler, own in handlers.having(Phase.BEFORE_RUNS):
            await handler.before_runs(own, locks)
        if locks.runs or locks.tasks or locks.bare:
            await lock_runs(locks, context.uow, self._specs, context.transaction)
        if locks.publishers:
            context.publishers = await load_publishers(
                locks.publishers, context.uow, self._specs, context.transaction
            )
        for handler, own in handlers.having(Phase.ON_RUNS):
            await handler.on_runs(own)
        applying = {type(handler): handler for handler, _ in handlers.having(Phase.APPLY)}
        # By order of arrival, not kind by kind: the stream's order is that of causes. A task that
        # follows another in a runner publishes events after the other's result.
        for item in items:
            kind = HANDLERS[type(item.message)]
            if kind in applying:
                applying[kind].apply(item)

    async def _change_dags(self, handlers: "_Handlers", context: BatchContext) -> None:
        """Lock the DAGs that messages, events and ended runs concern, and decide."""
        uow, locks = context.uow, DagLocks()
        for handler, own in handlers.having(Phase.BEFORE_DAGS):
            await handler.before_dags(own, locks)
        # Most batches of results in the middle of runs concern no DAG: they end here.
        deciding = list(handlers.having(Phase.ON_DAGS))
        ended = any(run.uncounted for run in uow.runs.by_id.values())
        if not (deciding or uow.log.undecided or ended):
            return
        if locks.names:
            locks.dags |= await context.dags.find(locks.names)
        await context.dags.lock(locks.dags)
        if locks.names:
            await context.dags.confirm_names()
        for handler, own in deciding:
            await handler.on_dags(own)
        await context.dags.decide()

    async def _change_slots(
        self,
        pools: Sequence[tuple[Handler, Sequence[InboxItem]]],
        uow: UnitOfWork,
        transaction: ManagerTransaction,
    ) -> None:
        """Take back and grant slots as what is decided needs it."""
        slots = SlotAllocator(uow, transaction, self._specs, self._wait_queues)
        if not (pools or slots.needed):
            return
        await slots.lock()
        for handler, own in pools:
            await handler.on_pools(own, slots)
        await slots.grant()

    async def _register_awaited(self, uow: UnitOfWork, transaction: ManagerTransaction) -> None:
        """Register the datasets that tasks begin to wait for."""
        waits = [each.wait for each in uow.waits.begun]
        uris = {wait.name for wait in waits if wait.kind == "event" and not wait.pattern}
        ids = await self._specs.dataset_ids(transaction, uris - uow.log.datasets.keys())
        uow.log.datasets.update(ids)

    def committed(self, batch: CommittedBatch) -> None:
        """Remember what the committed transaction of a batch has registered."""
        self._specs.remember_datasets(batch.uow.log.datasets)
        self._wait_queues.update(batch.uow.runs.wait_queues)


async def _orders(
    uow: UnitOfWork, transaction: ManagerTransaction
) -> list[tuple[str, TaskMessage]]:
    if any(run.dispatch for run in uow.runs.by_id.values()):
        return await build_orders(uow, transaction)
    return []


class _Handlers:
    """The handlers of a batch, with their items; a kind that does not occur has none."""

    def __init__(self, items: Sequence[InboxItem], context: BatchContext) -> None:
        self._context = context
        self._handlers: dict[type[Handler], Handler] = {}
        self._items: dict[type[Handler], list[InboxItem]] = {}
        for item in items:
            self._items.setdefault(HANDLERS[type(item.message)], []).append(item)
        self._kinds = sorted(self._items, key=_KINDS.index)

    def regroup(self, items: Sequence[InboxItem]) -> None:
        """Also give items to the handlers of what they stand for."""
        for item in items:
            if item.message is not item.received:
                self._items.setdefault(HANDLERS[type(item.message)], []).append(item)
        self._kinds = sorted(self._items, key=_KINDS.index)

    def having(self, phase: Phase) -> Iterator[tuple[Handler, list[InboxItem]]]:
        """Yield the handlers that have a phase, in the order of the table."""
        for kind in self._kinds:
            if phase in kind.phases:
                if kind not in self._handlers:
                    self._handlers[kind] = kind(self._context)
                yield self._handlers[kind], self._items[kind]
