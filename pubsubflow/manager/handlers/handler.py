"""Handler of one kind of message: what it does in each phase of a batch."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from msgspec import Struct, field

from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import IdAllocator, PublishingTask, RunLocks
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.runs.pools import SlotAllocator
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.dag_states import DagStates
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.schedules.timers import ScheduleTimers
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag
from pubsubflow.model.traces import Tracing
from pubsubflow.model.wire.messages import TaskKey
from pubsubflow.store.batches.manager_transaction import ManagerTransaction


class BatchContext:
    """What the handlers of one batch share.

    Args:
        uow: What the transaction changes.
        transaction: Its queries.
        specs: DAG versions and dataset ids.
        run_ids: Gives run ids.
        new_id: Gives ids for outsiders.
        new_event_id: Gives those of events.
        chance: Draws the jitter of retries.
        max_loops: See `Admission`.
        tracing: Draws trace contexts.

    Attributes:
        publishers: The tasks that published events of this batch.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        run_ids: IdAllocator,
        *,
        new_id: Callable[[], UUID],
        new_event_id: Callable[[], str],
        chance: Callable[[], float],
        max_loops: int,
        tracing: Tracing,
    ) -> None:
        self.uow = uow
        self.transaction = transaction
        self.specs = specs
        self.run_ids = run_ids
        self.new_id = new_id
        self.new_event_id = new_event_id
        self.tracing = tracing
        self.publishers: dict[TaskKey, PublishingTask] = {}
        self.lifecycle = RunLifecycle(uow, new_id=new_event_id, chance=chance)
        self.scheduler = Scheduler(uow, new_id=new_id, allocate_id=run_ids.allocate)
        self.admission = Admission(
            uow,
            transaction,
            specs,
            lifecycle=self.lifecycle,
            max_loops=max_loops,
            tracing=tracing,
        )
        self.dags = DagStates(
            uow,
            transaction,
            specs,
            run_ids,
            scheduler=self.scheduler,
            lifecycle=self.lifecycle,
            admission=self.admission,
        )

    async def resume(self, dag: LockedDag) -> None:
        """Decide the events and ticks that waited while a DAG was paused or missing."""
        await self.dags.catch_up(dag)
        await self.dags.checks.start_waiting(dag)
        conditions = await self.dags.conditions.load_open(dag)
        held = await self.transaction.fetch("release_held_ticks", dag.id)
        timers = ScheduleTimers(self.uow, self.scheduler)
        timers.resume(dag, conditions, {row["slot"]: row["due_at"] for row in held})
        dag.advancing = True


class DagLocks(Struct):
    """The DAGs that messages concern: by id, and by name."""

    dags: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


class Phase(StrEnum):
    """The phases of a batch in lock order; each is named like the method of a handler."""

    RESOLVE = "resolve"
    BEFORE_RUNS = "before_runs"
    ON_RUNS = "on_runs"
    APPLY = "apply"
    BEFORE_DAGS = "before_dags"
    ON_DAGS = "on_dags"
    ON_POOLS = "on_pools"


class Handler:
    """What one kind of message does in the phases of a batch.

    A subclass overrides the phases in which its messages have something to do; the others are not
    entered. One handler is made a kind and batch, so it may keep in one phase what it needs in a
    later one. `items` are those of its kind, in order of arrival.

    Args:
        context: What the handlers of the batch share.

    Attributes:
        phases: The phases that it overrides.
    """

    phases: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.phases = frozenset(
            phase for phase in Phase if getattr(cls, phase) is not getattr(Handler, phase)
        )

    def __init__(self, context: BatchContext) -> None:
        self._context = context
        self._uow = context.uow
        self._transaction = context.transaction

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Lock dead letters and watched datasets; put what messages stand for in their place."""
        raise NotImplementedError

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Claim idempotency keys; add the runs and tasks that messages concern to `locks`."""
        raise NotImplementedError

    async def on_runs(self, items: Sequence[InboxItem]) -> None:
        """Change locked runs before any message of the batch is applied."""
        raise NotImplementedError

    def apply(self, item: InboxItem) -> None:
        """Apply one message to the locked runs, or take its events."""
        raise NotImplementedError

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Do what is left to do about runs; add the DAGs that messages concern to `locks`."""
        raise NotImplementedError

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Change locked DAGs, and make runs."""
        raise NotImplementedError

    async def on_pools(self, items: Sequence[InboxItem], slots: SlotAllocator) -> None:
        """Change pools; all slots are locked."""
        raise NotImplementedError
