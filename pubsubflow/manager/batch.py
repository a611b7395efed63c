"""One transaction over a batch: lock, read, decide, write; what follows is published afterwards.

Lock order, the same for every manager: dead letters that become events, watched datasets, claimed
event keys, runs by number, the table of waits for events, gates by DAG, the slots of pools and
other limits (one lock for all, and only where a limited task is concerned). Event ids are taken
under the gates' locks, so for every DAG the order of ids is the order in which its events were
decided. Two managers may still meet on gates that a cascade adds; Postgres then ends one of the
two, and it starts over.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.inbox import Item, acceptable
from pubsubflow.manager.outbox.orders import Dispatch
from pubsubflow.manager.outbox.spans import begin_trace
from pubsubflow.manager.persistence.load import addressed, origins_of_chains, take_in
from pubsubflow.manager.persistence.publishers import Origin, Place, read_origins
from pubsubflow.manager.persistence.run_ids import Numbers
from pubsubflow.manager.persistence.save import write
from pubsubflow.manager.runs.clearing import Clearing, find_run, write_cleared
from pubsubflow.manager.runs.event_waits import Looking, read_epochs, take_watched
from pubsubflow.manager.runs.lifecycle import Running
from pubsubflow.manager.runs.pools import Slots
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.dag_states import Gates
from pubsubflow.manager.schedules.firing import Scheduling
from pubsubflow.manager.schedules.redrive import take_events
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import (
    DeadLetter,
    Ledger,
    LoggedEvent,
    RunWork,
    decode_progress,
)
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.ids import new_id
from pubsubflow.model.traces import NoTracing, Tracing
from pubsubflow.model.wire.commands import (
    CancelRun,
    ClearTasks,
    KeepLetter,
    LookForEvents,
    PostEvents,
    Recorded,
    TimersDue,
)
from pubsubflow.model.wire.messages import (
    EventInfo,
    FiredMessage,
    GoneMessage,
    LogMessage,
    ResultMessage,
    StartedMessage,
    TaskMessage,
)
from pubsubflow.store.database import printable
from pubsubflow.store.manager_transaction import FoldTransaction, Row


class Folded(Struct):
    """What a committed batch leaves to do.

    Attributes:
        orders: Tasks to hand out: (queue, order).
        ledger: What was written, for the news.
        replies: Subjects of those who want to know that what they told is durable.
    """

    orders: list[tuple[str, TaskMessage]]
    ledger: Ledger
    replies: list[str]


class Fold:
    """Folds batches of items, each batch in the transaction that the caller opened."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        ids: Callable[[], UUID] = new_id,
        chance: Callable[[], float] = random.random,
        max_loops: int = 100,
        tracing: Tracing | None = None,
    ) -> None:
        self._now = now
        self._new_id = ids
        self._chance = chance
        self._max_loops = max_loops
        self._tracing = tracing or NoTracing()
        self._numbers = Numbers()
        self._versions = Versions()
        self._slots = Slots()
        self._recorded: set[UUID] = set()

    async def fold(self, items: Sequence[Item], transaction: FoldTransaction) -> Folded:
        """Decide about a batch and write it.

        Items that came too early are marked `postponed`; those that cannot be done because of
        what they ask for get their `error`. Any other failure is raised and the transaction must
        be rolled back.
        """
        for item in items:
            item.reset()
        self._recorded = set()
        ledger = Ledger(self._now())
        running = Running(ledger, new_id=self._new_id, chance=self._chance)
        clearing = Clearing(ledger, transaction, self._versions, running)
        await self._take_in_items(items, ledger, transaction, running, clearing)
        await self._gates(ledger, transaction, running, clearing).settle(items)
        for item in items:
            if isinstance(item.what, CancelRun):
                item.answer = None
        await self._name_awaited(ledger, transaction)
        await self._slots.settle(items, ledger, transaction, self._versions)
        await write_cleared(ledger, transaction)
        await write(ledger, transaction)
        orders = await Dispatch(ledger, transaction).build()
        replies = [item.message.reply for item in items if isinstance(item.message, FiredMessage)]
        return Folded(orders, ledger, [subject for subject in replies if subject])

    async def _take_in_items(
        self,
        items: Sequence[Item],
        ledger: Ledger,
        transaction: FoldTransaction,
        running: Running,
        clearing: Clearing,
    ) -> None:
        """Lock the runs that items concern, and carry out what they say about them."""
        looking = {
            place
            for item in items
            if isinstance(item.what, LookForEvents)
            for place in item.what.places
        }
        await take_events(items, transaction)
        await take_watched(items, ledger, transaction)
        await self._claim_keys(items, transaction)
        cleared = await self._lock_runs(items, ledger, transaction)
        await clearing.clear_running(items, cleared)
        if looking:
            await transaction.fetch("await_event_writers")
        await read_epochs(items, ledger, transaction)
        origins = await read_origins(items, ledger, self._versions, transaction)
        for item in items:
            if isinstance(item.what, PostEvents):
                self._take(item, item.what, ledger, origins)
            else:
                self._apply(item, ledger, running)
        if looking:
            looker = Looking(ledger, transaction, self._versions, running.deferring)
            await looker.look(looking)

    def _gates(
        self,
        ledger: Ledger,
        transaction: FoldTransaction,
        running: Running,
        clearing: Clearing,
    ) -> Gates:
        """Return the scheduling half of a batch."""
        scheduling = Scheduling(ledger, new_id=self._new_id, take_number=self._numbers.take)
        admission = Admission(
            ledger,
            transaction,
            self._versions,
            running=running,
            scheduling=scheduling,
            max_loops=self._max_loops,
            tracing=self._tracing,
        )
        return Gates(
            ledger,
            transaction,
            self._versions,
            self._numbers,
            scheduling=scheduling,
            running=running,
            admission=admission,
            clearing=clearing,
        )

    async def _name_awaited(self, ledger: Ledger, transaction: FoldTransaction) -> None:
        """Make the datasets known that tasks begin to wait for."""
        uris = {wait.name for *_, wait in ledger.waits if wait.kind == "event" and not wait.pattern}
        ids = await self._versions.dataset_ids(transaction, uris - ledger.datasets.keys())
        ledger.datasets.update(ids)

    def committed(self, folded: Folded) -> None:
        """Note that the transaction of a batch has committed."""
        self._versions.remember_datasets(folded.ledger.datasets)
        self._slots.committed(folded.ledger)

    async def _claim_keys(self, items: Sequence[Item], transaction: FoldTransaction) -> None:
        """Give every posted event its id, or the id it got when it was posted before."""
        posts = [(item, item.what) for item in items if isinstance(item.what, PostEvents)]
        posts = [(item, post) for item, post in posts if acceptable(item, post)]
        claims: dict[str, UUID] = {}
        for item, post in posts:
            item.ids = item.ids or [self._new_id() for _ in post.events]
            for key, event_id in zip(post.keys, item.ids, strict=True):
                if key is not None:
                    claims.setdefault(key, event_id)
        if claims:
            await self._look_up(claims, transaction)
        for item, post in posts:
            ids = [
                event_id if key is None else claims[key]
                for key, event_id in zip(post.keys, item.ids, strict=True)
            ]
            item.answer = [
                Recorded(first, duplicate=first != event_id)
                for first, event_id in zip(ids, item.ids, strict=True)
            ]
        tried = [event_id for item, _ in posts if item.tried for event_id in item.ids]
        if tried:
            rows = await transaction.fetch("find_recorded_events", tried)
            self._recorded = {row["event_id"] for row in rows}

    @staticmethod
    async def _look_up(claims: dict[str, UUID], transaction: FoldTransaction) -> None:
        """Claim keys; put the first event's id in place of the new one where a key is taken."""
        free = await transaction.fetch_rows("claim_event_keys", list(claims.items()))
        taken = sorted(claims.keys() - {row["key"] for row in free})
        if taken:
            rows = await transaction.fetch("find_event_keys", taken)
            claims.update((row["key"], row["event_id"]) for row in rows)

    async def _lock_runs(
        self, items: Sequence[Item], ledger: Ledger, transaction: FoldTransaction
    ) -> dict[int, Row]:
        """Lock the runs that the batch concerns and take in their live tasks, as far as needed.

        Returns:
            Position of an item that is to clear tasks → the run.
        """
        cleared: dict[int, Row] = {}
        tasks = {place for item in items for place in addressed(item.what)}
        whole: set[int] = set()
        for position, item in enumerate(items):
            what = item.what
            if isinstance(what, GoneMessage):
                await transaction.fetch("forget_worker", what.worker)
                rows = await transaction.fetch("find_chained_runs", what.worker)
                whole.update(row["run"] for row in rows)
            elif isinstance(what, TimersDue):
                whole.update(
                    timer.run
                    for timer in what.timers
                    if timer.run is not None and timer.kind == "run_timeout"
                )
            elif isinstance(what, CancelRun):
                item.answer = await self._find_run(what.run_id, item, transaction)
                if item.answer is not None:
                    whole.add(item.answer["id"])
            elif isinstance(what, ClearTasks):
                item.ids = item.ids or [self._new_id()]
                found = await find_run(item, transaction)
                if found is not None:
                    cleared[position] = found
                    whole.add(found["id"])
        rows = await transaction.lock_runs({run for run, _, _ in tasks} | whole)
        await self._versions.load(transaction, (row["version"] for row in rows))
        for row in rows:
            ledger.runs[row["run"]] = RunWork(
                row["run"],
                self._versions.get(row["version"]),
                decode_progress(row["progress"]),
                row["info"],
                new=False,
            )
        asked = sorted(key for key in tasks if key[0] in ledger.runs and key[0] not in whole)
        take_in(ledger, await transaction.fetch_rows("read_live_tasks", asked))
        if whole:
            take_in(ledger, await transaction.fetch("read_run_live_tasks", sorted(whole)))
        origins = origins_of_chains(items, ledger)
        take_in(ledger, await transaction.fetch_rows("read_live_tasks", origins))
        return cleared

    @staticmethod
    async def _find_run(run_id: UUID, item: Item, transaction: FoldTransaction) -> Row | None:
        rows = await transaction.fetch("find_runs", [run_id])
        if not rows:
            item.error = NotFound("run", str(run_id))
            return None
        if item.tried and rows[0]["state"] == "cancelled":
            return None
        if rows[0]["state"] not in ("queued", "running"):
            item.error = InvalidInput(f"run {run_id} has ended: {rows[0]['state']}")
            return None
        return rows[0]

    def _apply(self, item: Item, ledger: Ledger, running: Running) -> None:
        what = item.what
        if isinstance(what, ResultMessage):
            if running.too_early(what):
                item.postponed = True
            else:
                running.finished(what)
        elif isinstance(what, StartedMessage):
            running.started(what)
        elif isinstance(what, LogMessage):
            running.logged(what)
        elif isinstance(what, FiredMessage):
            running.deferring.fired(what)
        elif isinstance(what, GoneMessage):
            running.worker_gone(what.worker)
        elif isinstance(what, CancelRun):
            run = ledger.runs.get(item.answer["id"]) if item.answer is not None else None
            if run is not None and run.outcome is None:
                running.cancel(run, printable(what.reason))
        elif isinstance(what, KeepLetter):
            letter = DeadLetter(what.kind, what.subject, None, what.payload, what.reason)
            ledger.dead_letters.append(letter)

    def _take(
        self, item: Item, what: PostEvents, ledger: Ledger, origins: dict[Place, Origin]
    ) -> None:
        """Take events in; one from the bus that cannot be is kept as a dead letter."""
        if item.error is None:
            origin = origins[what.origin] if what.origin is not None else Origin()
            self._post(item, what, ledger, origin)
        elif item.subject:
            letter = DeadLetter(item.letter, item.subject, None, item.payload, str(item.error))
            ledger.dead_letters.append(letter)

    def _post(self, item: Item, what: PostEvents, ledger: Ledger, origin: Origin) -> None:
        run, node, map_index = what.origin or (None, None, None)
        for event, recorded in zip(what.events, item.answer, strict=True):
            if recorded.duplicate or recorded.event_id in self._recorded:
                continue
            info = EventInfo(
                str(recorded.event_id),
                normalise_uri(event.dataset),
                event.extra,
                None if event.partition is None else printable(event.partition),
                event.time or ledger.now,
                what.source,
                origin.run_id,
                origin.dag_id,
                origin.task_id,
                event.trace or item.trace,
            )
            logged = LoggedEvent(
                recorded.event_id,
                info,
                run,
                node,
                map_index,
                trail=origin.trail,
                accepted_at=item.arrived_at,
            )
            begin_trace(self._tracing, ledger, logged)
            ledger.events.append(logged)
