"""The runner of orders: attempts of executors, each read from the stream and run to its end.

A process of an attempt has one order; a host has many, which share connection, code and warm
runners. The worker that started the attempt holds its message, and acknowledges it in the end.
"""

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.bus import STREAM_TASK, Bus, Delivery, Message, read_last
from pubsubflow.executors import DONE, NOT_BEGUN
from pubsubflow.model.wire.messages import Outcome, TaskError, decode_cancel
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.object_store import FileStore
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.worker.assignment import (
    Assignment,
    AttemptOutcome,
    decode_header,
    is_cancelled,
    without_chain,
)
from pubsubflow.worker.executors.kept_results import KeptResults, ResultExchange
from pubsubflow.worker.executors.settings import AttemptSettings
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.processes.pool import ProcessPool
from pubsubflow.worker.processes.runner_settings import runner_settings
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.result_publisher import ResultPublisher
from pubsubflow.worker.result_store import ResultStore
from pubsubflow.worker.source_cache import SourceCache

log = structlog.get_logger(__name__)

# An acknowledgement subject of JetStream, of a first delivery; nothing listens to it.
_REPLY = b"$JS.ACK.PSF_TASK.attempt.1.1.1.0.0"
_MAX_NUMBER = 0xFFFFFFFF
ORDERED = AttemptOutcome(Outcome.LOST, TaskError("Lost", "its process was ordered to end"))
"""The task is handed back: no attempt is counted."""


class _Running:
    """An attempt that runs.

    Attributes:
        over: Set once nothing is left of it, and its result is stored.
        returned: Whether it has not begun, so another process may run it.
    """

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.returned = False
        self._released = self._answered = False

    def release(self) -> None:
        """Note that nothing is left to run."""
        self._released = True
        self._check()

    def answer(self, frame: bytes) -> None:
        """Note what would be answered to the message, were it ours."""
        self.returned = self.returned or b"-NAK" in frame
        self._answered = True
        self._check()

    def give_back(self) -> None:
        """Note that it has not begun."""
        self.returned = self._released = self._answered = True
        self._check()

    def _check(self) -> None:
        if self._released and self._answered:
            self.over.set()


class OrderRunner:
    """Runs orders.

    Args:
        settings: What the processes of its attempts got; subjects differ. Its worker's processes
            and slots say how many run at once.
        bus: The connection.
        fork_server: Forks the runners.
        group: The task group of all that it does.
        cache: Keeps the code.
        exchange: Hands results that are kept to the executor; without one they are not.
    """

    def __init__(
        self,
        settings: AttemptSettings,
        *,
        bus: Bus,
        fork_server: ForkServer,
        group: anyio.abc.TaskGroup,
        cache: BundleCache,
        exchange: ResultExchange | None = None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._fork_server = fork_server
        self._group = group
        self._worker = f"{settings.executor}-{socket.gethostname()}-{secrets.token_hex(4)}"
        self._managers = ManagerClient(bus, group, ask_seconds=settings.worker.ask_seconds)
        self._sources = SourceCache(self._managers, cache, group)
        limits = settings.worker
        self._publisher = ResultPublisher(bus, self._worker, max_log_bytes=limits.max_log_bytes)
        self._confinements = Confinements(limits, self._worker)
        stored = settings.results
        store = FileStore(stored.store, setting="results.store") if stored.store else None
        self._keeper = None if exchange is None else settings.keeper
        self._results = (
            ResultStore(store, stored.wait_seconds)
            if exchange is None
            else KeptResults(store, stored.wait_seconds, exchange)
        )
        self._pools = {kind: self._pool(kind) for kind in ("sync", "async")}
        self._running: dict[Assignment, _Running] = {}
        self._number = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: AttemptSettings, exchange: ResultExchange | None = None
    ) -> AsyncIterator[Self]:
        """Connect, and run orders for the length of the block.

        Raises:
            BusUnavailable: NATS is out of reach.
            ConfigError: It refuses the credentials.
        """
        account = _account(settings)
        async with (
            _cache(account) as cache,
            ForkServer.start(account=account) as fork_server,
            Bus.connect(settings.bus) as bus,
            anyio.create_task_group() as group,
        ):
            found = cls(
                settings,
                bus=bus,
                fork_server=fork_server,
                group=group,
                cache=cache,
                exchange=exchange,
            )
            async with await bus.subscribe(Subjects.CANCEL, found._on_cancel):
                group.start_soon(found._maintain)
                group.start_soon(found._publisher.pacer.run)
                yield found
                await found._publisher.wait_all_stored()
            found._close()
            group.cancel_scope.cancel()

    async def read(self, subject: str) -> bytes | None:
        """Return an order by its subject; None if it is void."""
        # The message stays in the stream until the worker that holds it acknowledges it. Without it
        # the attempt has ended, or has another delivery: nothing is to be run under this fence.
        data = await read_last(self._bus, STREAM_TASK, subject)
        if data is None:
            log.info("attempt.void", subject=subject)
        return data

    async def run(self, subject: str, data: bytes, *, again: bool) -> int:
        """Run an order, and return the exit code of its process.

        Args:
            subject: Of the order.
            data: The order.
            again: Whether the same attempt may have begun before.
        """
        running = _Running()
        delivery = Delivery(running.answer, subject.encode(), _REPLY, without_chain(data), b"")
        self._number = (self._number + 1) & _MAX_NUMBER
        header = decode_header(delivery.data)
        assignment = Assignment(self._number, header, delivery, redelivered=again)
        self._running[assignment] = running
        try:
            # After the subscription: an order to stop that came before it is found by the lease.
            self._pools[header.kind].submit(assignment)
            await running.over.wait()
        finally:
            del self._running[assignment]
        return NOT_BEGUN if running.returned else DONE

    def stop(self, subject: str, outcome: AttemptOutcome = ORDERED) -> None:
        """End the attempt of a subject, if it runs, with this outcome and its grace."""
        for each in tuple(self._running):
            if each.delivery.subject == subject:
                self._pools[each.header.kind].stop(each, outcome)

    def _on_cancel(self, message: Message) -> None:
        order = decode_cancel(message.data)
        error = TaskError("Cancelled", order.reason, final=True)
        for each in tuple(self._running):
            if is_cancelled(each.header, order):
                outcome = AttemptOutcome(Outcome.CANCELLED, error)
                self._pools[each.header.kind].stop(each, outcome)

    def _pool(self, kind: str) -> ProcessPool:
        settings = self._settings.worker
        runner = runner_settings(
            kind,
            self._worker,
            settings,
            self._settings.results,
            max_payload=self._bus.max_payload,
        )
        if self._keeper is not None:
            name, most = self._keeper.name, self._keeper.max_bytes
            runner = msgspec.structs.replace(runner, keeper=name, max_kept_bytes=most)
        return ProcessPool(
            settings=settings,
            runner_settings=runner,
            fork_server=self._fork_server,
            group=self._group,
            managers=self._managers,
            sources=self._sources,
            publisher=self._publisher,
            confinements=self._confinements,
            on_parked=lambda _: None,
            results=self._results,
            on_returned=self._on_returned,
            on_finished=self._on_finished,
        )

    # Late ones belong to what was given up.
    def _on_returned(self, assignment: Assignment) -> None:
        if assignment in self._running:
            self._running[assignment].give_back()

    def _on_finished(self, assignment: Assignment) -> None:
        if assignment in self._running:
            self._running[assignment].release()

    async def _maintain(self) -> None:
        while True:
            await anyio.sleep(self._settings.worker.heartbeat_seconds)
            for pool in self._pools.values():
                pool.maintain()
            self._publisher.resend()
            used = [bundle for pool in self._pools.values() for bundle in pool.bundles]
            self._sources.release(set(used))

    def _close(self) -> None:
        self._publisher.close()
        for pool in self._pools.values():
            pool.close()


def _account(settings: AttemptSettings) -> TaskAccount | None:
    """Return the account of user code: that of the worker, where it is on the same machine."""
    account = settings.account
    if account is None or os.geteuid() != 0 or not Path(account.shared).is_dir():
        return None
    return account


@asynccontextmanager
async def _cache(account: TaskAccount | None) -> AsyncIterator[BundleCache]:
    parent = None if account is None else account.shared
    folder = Path(tempfile.mkdtemp(prefix="pubsubflow-attempt-", dir=parent))
    try:
        yield BundleCache(folder, account=account)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
