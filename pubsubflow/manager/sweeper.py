"""The safety net: nothing is fast because of it, and nothing is lost without it.

It finds tasks whose message may be lost (the manager died between commit and publish, NATS lost
its store) and publishes them again: while the first message is outstanding that is refused, so a
backlog is never doubled. Workers that fell silent are declared gone, through the bus, so that
their last results are folded first.

Nothing is held against anybody that may be our own fault: silence counts only while both servers
have been at hand, and a task whose result may be among those not folded yet is not lost.
"""

import anyio
import anyio.lowlevel
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.bus import STREAM_IN, Bus
from pubsubflow.bus.consumer import ACK_WAIT_SECONDS
from pubsubflow.errors import MessageRefused, ServiceStopped, Unavailable
from pubsubflow.manager.liveness import Vigil
from pubsubflow.manager.outbox.orders import Dispatch
from pubsubflow.manager.spec_cache import Versions
from pubsubflow.manager.unit_of_work import Ledger, LiveTask, RunWork, decode_progress
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.commands import Calls, LookForEvents
from pubsubflow.model.wire.messages import GoneMessage, TaskMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.database import Database
from pubsubflow.store.manager_transaction import FoldTransaction, Row

log = structlog.get_logger()

_FORGET_SECONDS = 60.0
_FORGET_ROWS = 1000


class SweeperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the sweeper works.

    Attributes:
        every_seconds: Pause between two sweeps.
        undelivered_seconds: How long a task may be queued before it is looked at.
        worker_seconds: How long a worker may be silent.
        tasks: Tasks looked at in one sweep at most.
        news_hours: How long the log of news goes back.
    """

    every_seconds: float = 2.5
    undelivered_seconds: float = 5.0
    worker_seconds: float = 10.0
    tasks: int = 500
    news_hours: float = 24.0


class Sweeper:
    """Sweeps now and then; several may run, what they do is idempotent.

    Args:
        database: Postgres.
        bus: NATS.
        calls: Lets tasks look for events that somebody was about to tell them of; None to leave
            that to others.
        settings: See there.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        calls: Calls | None = None,
        settings: SweeperSettings | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._calls = calls
        self._settings = settings or SweeperSettings()
        self._versions = Versions(1000)
        self._vigil = Vigil(bus)
        self._forget_at = 0.0

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Sweep until `stopping` is set."""
        task_status.started()
        pause = self._settings.every_seconds
        while not stopping.is_set():
            with anyio.move_on_after(pause):
                await stopping.wait()
                return
            pause = self._settings.every_seconds
            try:
                with anyio.fail_after(30):
                    if await self._sweep_fairly() >= self._settings.tasks:
                        pause = 0  # a whole stream was lost: there is more
            except (Unavailable, ServiceStopped, TimeoutError) as error:
                self._vigil.restart()
                log.debug("sweeper.postponed", reason=str(error))

    async def sweep(self) -> int:
        """Sweep once, whatever the circumstances; return how many tasks were published again."""
        await self._bury_workers()
        await self._look_again()
        await self._forget_news()
        return await self._publish_again(self._settings.undelivered_seconds)

    async def _sweep_fairly(self) -> int:
        settings, watched = self._settings, self._vigil.seconds
        await self._look_again()
        if anyio.current_time() >= self._forget_at:
            await self._forget_news()
            self._forget_at = anyio.current_time() + _FORGET_SECONDS
        if watched >= settings.worker_seconds:
            await self._bury_workers()
        unfolded = await self._bus.count_unhandled(STREAM_IN, "managers")
        seconds = settings.undelivered_seconds
        if unfolded.delivered:  # perhaps to a manager that is no more: they come again
            seconds += ACK_WAIT_SECONDS
        if unfolded.waiting or watched < settings.undelivered_seconds:
            return 0
        return await self._publish_again(seconds)

    async def _bury_workers(self) -> None:
        async with self._database.connection() as connection:
            dead = await FoldTransaction(connection).fetch(
                "find_dead_workers", self._settings.worker_seconds
            )
        for row in dead:
            log.warning("worker.gone", worker=row["worker"])
            await self._bus.publish_durable(
                f"{Subjects.GONE}.0", encode(GoneMessage(row["worker"]))
            )

    async def _look_again(self) -> None:
        """Let tasks look for events where whoever was to do so is no more."""
        async with self._database.connection() as connection:
            overdue = await FoldTransaction(connection).fetch(
                "find_overdue_looks", self._settings.undelivered_seconds, self._settings.tasks
            )
        if overdue and self._calls is not None:
            log.warning("sweeper.looks_again", tasks=len(overdue))
            await self._calls.call(LookForEvents(tuple(map(tuple, overdue))))

    async def _forget_news(self) -> None:
        """Remove news that nobody may ask for any more."""
        seconds = self._settings.news_hours * 3600
        async with self._database.connection() as connection:
            transaction = FoldTransaction(connection)
            while await transaction.fetch("forget_news", seconds, _FORGET_ROWS):
                await anyio.lowlevel.checkpoint()

    async def _publish_again(self, undelivered_seconds: float) -> int:
        settings = self._settings
        async with self._database.connection() as connection:
            transaction = FoldTransaction(connection)
            lost = await transaction.fetch(
                "find_undelivered", undelivered_seconds, settings.worker_seconds, settings.tasks
            )
            orders = await self._orders(lost, transaction)
        published = 0
        for queue, order in orders:
            try:
                published += await self._bus.publish_durable(
                    Subjects.task(queue, order), encode(order)
                )
            except MessageRefused as error:
                log.error("sweeper.message_refused", reason=str(error))  # noqa: TRY400
        if published:
            log.warning("sweeper.republished", tasks=published)
        async with self._database.connection() as connection:
            await FoldTransaction(connection).write(
                "note_swept", [(row["run"], row["node"], row["map_index"]) for row in lost]
            )
        return published

    async def _orders(
        self, lost: list[Row], transaction: FoldTransaction
    ) -> list[tuple[str, TaskMessage]]:
        if not lost:
            return []
        ledger = Ledger(lost[0]["queued_at"])
        rows = await transaction.fetch("read_runs_of_tasks", sorted({row["run"] for row in lost}))
        await self._versions.load(transaction, (row["version"] for row in rows))
        for row in rows:
            version = self._versions.get(row["version"])
            progress = decode_progress(row["progress"])
            ledger.runs[row["run"]] = RunWork(row["run"], version, progress, row["info"], new=False)
        for row in lost:
            run = ledger.runs.get(row["run"])
            if run is not None:
                key = (row["node"], row["map_index"])
                run.live[key] = LiveTask(
                    row["attempt"], row["delivery"], row["crashes"], TaskState(row["state"])
                )
                run.dispatch.append(key)
        return await Dispatch(ledger, transaction).build()
