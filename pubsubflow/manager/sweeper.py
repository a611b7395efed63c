"""Sweeper: the safety net; nothing is fast because of it, and nothing is lost without it.

It finds tasks whose message may be lost (the manager died between commit and publish, NATS lost
its store) and publishes them again: while the first message is outstanding that is refused, so a
backlog is never doubled. Workers that fell silent are declared lost, through the bus, so that
their last results are processed first.

What may be our own fault is held against no worker and no task: silence counts only while both
servers have been reachable, and a task whose result may be among those that are not processed yet
is not lost.
"""

import time
from collections import Counter
from functools import partial

import anyio
import anyio.lowlevel
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import STREAM_IN, Bus
from pubsubflow.bus.consumer import ACK_WAIT_SECONDS
from pubsubflow.errors import (
    MessageRefused,
    NewerFormat,
    ServiceStopped,
    StoreConflict,
    Unavailable,
)
from pubsubflow.instruments import Instrument
from pubsubflow.manager.liveness import Uptime
from pubsubflow.manager.orphans import OrphanFinder
from pubsubflow.manager.outbox.orders import build_orders
from pubsubflow.manager.persistence.load import load_runs
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LiveTask
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.commands import (
    AdvanceBackfills,
    CheckEventWaits,
    CheckPastWaits,
    CommandHandler,
    StartQueuedRuns,
    SweepChecks,
)
from pubsubflow.model.wire.messages import TaskMessage, WorkerLostMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.services import next_turn, run_until
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.database import Database
from pubsubflow.store.read.task_waits import ServedQueues

log = structlog.get_logger()

_PRUNE_SECONDS = 60.0
_PRUNE_ROWS = 1000
_REPEAT_SECONDS = 300.0
_CHECKS_SECONDS = 5.0


class SweeperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the sweeper works.

    Attributes:
        every_seconds: Pause between two sweeps.
        undelivered_seconds: How long a task may be queued before it is checked.
        worker_seconds: How long a worker may be silent.
        tasks: Tasks checked in one sweep at most.
        history_hours: How long the change log goes back.
        orphan_seconds: Pause between two looks for orphaned tasks, and how long a task has run
            that is looked at.
    """

    every_seconds: float = 2.0
    undelivered_seconds: float = 5.0
    worker_seconds: float = 7.0
    tasks: int = 500
    history_hours: float = 24.0
    orphan_seconds: float = 20.0


class Sweeper:
    """Sweeps now and then; several may run, what they do is idempotent.

    Args:
        database: Postgres.
        bus: NATS.
        commands: Carries out the checks of event waits that a manager lost; None to leave them to
            another sweeper.
        settings: How it works.
        uptime: For how long both servers have been reachable, as a manager of this daemon watches
            it; watched here if left out.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        commands: CommandHandler | None = None,
        settings: SweeperSettings | None = None,
        uptime: Uptime | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._commands = commands
        self._settings = settings or SweeperSettings()
        self._specs = SpecCache(1000)
        self._watches = uptime is None
        self._uptime = uptime or Uptime(bus)
        self._prune_at = 0.0
        self._checks_at = 0.0
        self._orphans_at = 0.0
        self._orphans = (
            None
            if commands is None
            else OrphanFinder(
                database=database,
                bus=bus,
                commands=commands,
                running_seconds=self._settings.orphan_seconds,
                worker_seconds=self._settings.worker_seconds,
            )
        )
        self._unserved: dict[str, float] = {}  # queue → when the next warning of it is due

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Sweep until `stopping` is set."""
        # Cancelled in the middle of a sweep as well: one that waits for JetStream would hold up the
        # stop, and what it leaves undone the next sweeper does.
        watch = partial(self._uptime.watch, self._database)
        watching = (watch,) if self._watches else ()
        await run_until(stopping, self._keep_sweeping, *watching, task_status=task_status)

    async def _keep_sweeping(self) -> None:
        pause = self._settings.every_seconds
        while True:
            # Between the heartbeats: so a server is heard every second, and not asked for it.
            await anyio.sleep_until(next_turn(pause, after=pause / 2))
            pause = self._settings.every_seconds
            try:
                with anyio.fail_after(30):
                    if await self._sweep_fairly() >= self._settings.tasks:
                        pause = 0  # a whole stream was lost: there is more
            except StoreConflict as error:
                # It and a manager would have waited for each other; what is left is found again.
                log.info("sweeper.restarted", reason=str(error))
            except (Unavailable, ServiceStopped, TimeoutError) as error:
                self._uptime.restart()
                log.debug("sweeper.postponed", reason=str(error))

    async def sweep(self) -> int:
        """Sweep once, whatever the circumstances; return how many tasks were published again."""
        await self._declare_lost_workers()
        await self._check_event_waits()
        await self._check_past_waits()
        await self._advance_backfills()
        await self._sweep_checks()
        await self._start_queued_runs()
        await self._prune_changes()
        return await self._publish_again(self._settings.undelivered_seconds)

    async def _sweep_fairly(self) -> int:
        settings = self._settings
        async with self._database.connection() as connection:
            read_at = time.monotonic()
            (due,) = await ManagerTransaction(connection).fetch(
                "find_sweep_work", settings.worker_seconds
            )
        self._uptime.note_clock(due["clock"], read_at)
        reachable = self._uptime.seconds
        await self._repair(due)
        # A worker that could not get through for that long is not silent.
        if due["workers"] and reachable >= settings.worker_seconds:
            await self._declare_lost_workers(settings.worker_seconds)
        if due["tasks"]:
            await self._look_for_orphans()
        if not (due["tasks"] or self._unserved):
            return 0
        # Before the tasks are read: a result that is processed after this changes its row first.
        stats = await self._bus.read_consumer_stats(STREAM_IN, "managers")
        seconds = settings.undelivered_seconds
        if stats.unacknowledged:  # perhaps to a manager that has died: they come again
            seconds += ACK_WAIT_SECONDS
        if stats.waiting or reachable < settings.undelivered_seconds:
            return 0
        return await self._publish_again(seconds)

    @property
    def metrics(self) -> tuple[Instrument, ...]:
        """What it counts."""
        return () if self._orphans is None else (self._orphans.found,)

    async def _look_for_orphans(self) -> None:
        if self._orphans is not None and anyio.current_time() >= self._orphans_at:
            self._orphans_at = anyio.current_time() + self._settings.orphan_seconds
            await self._orphans.look()

    async def _repair(self, due: Row) -> None:
        """Have done what a manager that has died has left, as far as there may be any."""
        if due["event_waits"]:
            await self._check_event_waits()
        if due["past_waits"]:
            await self._check_past_waits()
        if due["backfills"]:
            await self._advance_backfills()
        if anyio.current_time() >= self._checks_at:
            await self._sweep_checks()
            await self._start_queued_runs()
            self._checks_at = anyio.current_time() + _CHECKS_SECONDS
        if anyio.current_time() >= self._prune_at:
            await self._prune_changes()
            self._prune_at = anyio.current_time() + _PRUNE_SECONDS

    async def _declare_lost_workers(self, reachable_seconds: float = 0.0) -> None:
        async with self._database.connection() as connection:
            silent = await ManagerTransaction(connection).fetch(
                "find_dead_workers", self._settings.worker_seconds
            )
        # Not if the answer took long: a server that hung has not heard the workers meanwhile.
        if self._uptime.seconds < reachable_seconds:
            return
        for row in silent:
            log.warning("worker.lost", worker=row["worker"])
            await self._bus.publish_durable(
                f"{Subjects.WORKER_LOST}.0", encode(WorkerLostMessage(row["worker"]))
            )

    async def _check_event_waits(self) -> None:
        """Check the event waits that a manager which has died was about to check."""
        async with self._database.connection() as connection:
            overdue = await ManagerTransaction(connection).fetch(
                "find_overdue_event_waits", self._settings.undelivered_seconds, self._settings.tasks
            )
        if overdue and self._commands is not None:
            log.warning("sweeper.event_waits_checked", tasks=len(overdue))
            await self._commands.execute(CheckEventWaits(tuple(map(tuple, overdue))))

    async def _check_past_waits(self) -> None:
        """Check tasks that wait for a previous run which has ended or is gone since."""
        async with self._database.connection() as connection:
            rows = await ManagerTransaction(connection).fetch(
                "find_overdue_past_waits", self._settings.undelivered_seconds, self._settings.tasks
            )
        if rows and self._commands is not None:
            await self._commands.execute(CheckPastWaits(tuple(row["run"] for row in rows)))

    async def _advance_backfills(self) -> None:
        """Advance backfills that a manager which has died, or an older one, did not."""
        async with self._database.connection() as connection:
            rows = await ManagerTransaction(connection).fetch(
                "find_idle_backfills", self._settings.undelivered_seconds
            )
        if rows and self._commands is not None:
            await self._commands.execute(AdvanceBackfills(tuple(row["dag"] for row in rows)))

    async def _sweep_checks(self) -> None:
        """Have checks looked at that hold events, or whose runs may be gone."""
        async with self._database.connection() as connection:
            rows = await ManagerTransaction(connection).fetch("list_open_checks")
        if rows and self._commands is not None:
            await self._commands.execute(SweepChecks(tuple(row["id"] for row in rows)))

    async def _start_queued_runs(self) -> None:
        """Have runs started that a manager which has died did not start."""
        async with self._database.connection() as connection:
            rows = await ManagerTransaction(connection).fetch("find_idle_run_queues")
        if rows[0]["found"] and self._commands is not None:
            await self._commands.execute(StartQueuedRuns())

    async def _prune_changes(self) -> None:
        """Delete what the change log need not hold any longer."""
        seconds = self._settings.history_hours * 3600
        async with self._database.connection() as connection:
            transaction = ManagerTransaction(connection)
            while await transaction.fetch("prune_changes", seconds, _PRUNE_ROWS):
                await anyio.lowlevel.checkpoint()

    async def _publish_again(self, undelivered_seconds: float) -> int:
        async with self._database.connection() as connection:
            transaction = ManagerTransaction(connection)
            lost = await self._claim(transaction, undelivered_seconds)
            orders = await self._orders(lost, transaction) if lost else []
            if orders or self._unserved:
                self._warn_unserved(
                    Counter(queue for queue, _ in orders), await ServedQueues.read(connection)
                )
        published = 0
        for queue, order in orders:
            try:
                published += await self._bus.publish_durable(
                    Subjects.task(queue, order), encode(order)
                )
            except MessageRefused as error:
                log.error("sweeper.message_refused", reason=str(error))  # noqa: TRY400
        if published:
            log.warning("sweeper.tasks_republished", tasks=published)
        return published

    async def _claim(
        self, transaction: ManagerTransaction, undelivered_seconds: float
    ) -> list[Row]:
        """Find tasks whose message may be lost, and take those that no other sweeper has taken.

        Two that published the same task would be refused the second message only while the first
        is outstanding: a short task has ended by then, and would run again.
        """
        settings = self._settings
        found = await transaction.fetch(
            "find_undelivered_tasks", undelivered_seconds, settings.worker_seconds, settings.tasks
        )
        queued = [
            (*_place(row), row["queued_at"]) for row in found if row["state"] == TaskState.QUEUED
        ]
        claimed = set(
            map(_place, await transaction.fetch_rows("claim_undelivered_tasks", sorted(queued)))
        )
        return [row for row in found if row["state"] != TaskState.QUEUED or _place(row) in claimed]

    def _warn_unserved(self, waiting: Counter[str], served: ServedQueues) -> None:
        """Log which queues have tasks and no worker: at once, and now and then."""
        now = anyio.current_time()
        for queue in [each for each in self._unserved if served.unserved(each) is None]:
            del self._unserved[queue]
            log.info("sweeper.queue_served", queue=queue)
        for queue, tasks in waiting.items():
            reason = served.unserved(queue)
            if reason is not None and now >= self._unserved.get(queue, 0.0):
                self._unserved[queue] = now + _REPEAT_SECONDS
                log.warning("sweeper.queue_unserved", queue=queue, tasks=tasks, reason=reason)

    async def _orders(
        self, lost: list[Row], transaction: ManagerTransaction
    ) -> list[tuple[str, TaskMessage]]:
        uow = UnitOfWork(lost[0]["queued_at"])
        rows = await transaction.fetch("read_live_runs", sorted({row["run"] for row in lost}))
        for each in rows:
            try:
                await load_runs([each], uow, self._specs, transaction)
            except NewerFormat as error:
                self._bus.left_to_newer.note("stored", str(error), subject="sweeper")
        for row in lost:
            run = uow.runs.by_id.get(row["run"])
            if run is not None:
                key = (row["node"], row["map_index"])
                run.live[key] = LiveTask(
                    row["attempt"], row["delivery"], row["crashes"], TaskState(row["state"])
                )
                run.dispatch.append(key)
        return await build_orders(uow, transaction)


def _place(row: Row) -> tuple[int, int, int]:
    return row["run"], row["node"], row["map_index"]
