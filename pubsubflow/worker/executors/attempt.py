"""Attempt process: a worker of one order, which an executor starts anywhere that reaches NATS.

It fetches the order under its subject, and the code from a manager; a runner, which it forks,
executes the task. Output, events and result go over NATS under the attempt's fence. It exits with
`DONE` once all of that is stored, and with `NOT_BEGUN` if another process may do the same.
"""

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.bus import STREAM_TASK, Bus, Delivery, Message, read_last
from pubsubflow.errors import BusUnavailable, ConfigError, PubsubflowError
from pubsubflow.executors import BEGUN, BEGUN_FILE, DONE, NOT_BEGUN
from pubsubflow.model.wire.messages import Outcome, TaskError, decode_cancel
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.object_store import FileStore
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import TaskAccount, set_inspectable
from pubsubflow.worker.assignment import (
    Assignment,
    AttemptOutcome,
    decode_header,
    is_cancelled,
    without_chain,
)
from pubsubflow.worker.executors.settings import ENVIRONMENT, AttemptSettings
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.process_pool import ProcessPool, runner_settings
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.result_publisher import ResultPublisher
from pubsubflow.worker.result_store import ResultStore
from pubsubflow.worker.source_cache import SourceCache

log = structlog.get_logger(__name__)

# An acknowledgement subject of JetStream, of a first delivery; nothing listens to it.
_REPLY = b"$JS.ACK.PSF_TASK.attempt.1.1.1.0.0"


class AttemptProcess:
    """Runs one order to its end.

    Args:
        settings: What the process got.
        bus: The connection.
        fork_server: Forks the runner.
        group: The task group of all that it does.
        cache: Keeps the code.
        begun_file: Where it says that the task begins; None for nowhere.
    """

    def __init__(
        self,
        settings: AttemptSettings,
        *,
        bus: Bus,
        fork_server: ForkServer,
        group: anyio.abc.TaskGroup,
        cache: BundleCache,
        begun_file: Path | None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._fork_server = fork_server
        self._group = group
        self._cache = cache
        self._begun_file = begun_file
        self._worker = f"{settings.executor}-{socket.gethostname()}-{secrets.token_hex(4)}"
        self._over = anyio.Event()
        self._returned = False

    async def run(self) -> int:
        """Run the order, and return the exit code of the process."""
        # The message stays in the stream until the worker that holds it acknowledges it. Without it
        # the attempt has ended, or has another delivery: nothing is to be run under this fence.
        data = await read_last(self._bus, STREAM_TASK, self._settings.subject)
        if data is None:
            log.info("attempt.void", subject=self._settings.subject)
            return DONE
        assignment = self._assignment(without_chain(data))
        worker = self._settings.worker
        publisher = ResultPublisher(self._bus, self._worker, max_log_bytes=worker.max_log_bytes)
        pool = self._pool(assignment.header.kind, publisher)
        async with await self._bus.subscribe(
            Subjects.CANCEL, lambda message: _on_cancel(message, assignment, pool)
        ):
            self._group.start_soon(_stop_on_signal, assignment, pool)
            self._group.start_soon(self._maintain, pool, publisher)
            self._group.start_soon(publisher.pacer.run)
            self._note_begin()
            # After the subscription: an order to stop that came before it is found by the lease.
            pool.submit(assignment)
            await self._over.wait()
            await publisher.wait_all_stored()
        publisher.close()
        pool.close()
        return NOT_BEGUN if self._returned else DONE

    def _note_begin(self) -> None:
        """Write that lines of the task may run from here on."""
        if self._begun_file is not None:
            try:
                self._begun_file.write_text(BEGUN, encoding="utf-8")
            except OSError as error:
                log.warning("attempt.begin_not_noted", file=str(self._begun_file), error=str(error))

    def _assignment(self, data: bytes) -> Assignment:
        delivery = Delivery(self._on_answer, self._settings.subject.encode(), _REPLY, data, b"")
        return Assignment(1, decode_header(data), delivery, redelivered=self._settings.again)

    def _on_answer(self, frame: bytes) -> None:
        """Note that the message goes back; its acknowledgement is the business of the worker."""
        self._returned = self._returned or b"-NAK" in frame

    def _pool(self, kind: str, publisher: ResultPublisher) -> ProcessPool:
        settings, stored = self._settings.worker, self._settings.results
        managers = ManagerClient(self._bus, self._group, ask_seconds=settings.ask_seconds)
        store = FileStore(stored.store, setting="results.store") if stored.store else None
        return ProcessPool(
            settings=settings,
            runner_settings=runner_settings(
                kind, self._worker, settings, stored, max_payload=self._bus.max_payload
            ),
            fork_server=self._fork_server,
            group=self._group,
            managers=managers,
            sources=SourceCache(managers, self._cache, self._group),
            publisher=publisher,
            confinements=Confinements(settings, self._worker),
            on_parked=lambda _: None,
            results=ResultStore(store, stored.wait_seconds),
            on_returned=self._on_returned,
            on_finished=lambda _: self._over.set(),
        )

    def _on_returned(self, _: Assignment) -> None:
        self._returned = True
        self._over.set()

    async def _maintain(self, pool: ProcessPool, publisher: ResultPublisher) -> None:
        while True:
            await anyio.sleep(self._settings.worker.heartbeat_seconds)
            pool.maintain()
            publisher.resend()


def _on_cancel(message: Message, assignment: Assignment, pool: ProcessPool) -> None:
    order = decode_cancel(message.data)
    if is_cancelled(assignment.header, order):
        error = TaskError("Cancelled", order.reason, final=True)
        pool.stop(assignment, AttemptOutcome(Outcome.CANCELLED, error))


async def _stop_on_signal(assignment: Assignment, pool: ProcessPool) -> None:
    """Hand the task back when the machine orders the process to end: no attempt is counted."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            error = TaskError("Lost", "its process was ordered to end")
            pool.stop(assignment, AttemptOutcome(Outcome.LOST, error))


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


async def main(settings: AttemptSettings, begun_file: Path | None) -> int:
    """Run an attempt, and return the exit code of the process."""
    account, code = _account(settings), NOT_BEGUN
    try:
        async with (
            _cache(account) as cache,
            ForkServer.start(account=account) as fork_server,
            Bus.connect(settings.bus) as bus,
            anyio.create_task_group() as group,
        ):
            process = AttemptProcess(
                settings,
                bus=bus,
                fork_server=fork_server,
                group=group,
                cache=cache,
                begun_file=begun_file,
            )
            code = await process.run()
            group.cancel_scope.cancel()
    except* (BusUnavailable, ConfigError) as errors:
        for error in _leaves(errors):
            log.error("attempt.not_begun", error=str(error))  # noqa: TRY400 - it says all
    return code


def _leaves(group: BaseExceptionGroup[PubsubflowError]) -> list[BaseException]:
    return [
        leaf
        for each in group.exceptions
        for leaf in (_leaves(each) if isinstance(each, BaseExceptionGroup) else [each])
    ]


def run() -> None:
    """Run the attempt that the environment describes; the entry point of the process."""
    text, file = os.environ.pop(ENVIRONMENT, ""), os.environ.pop(BEGUN_FILE, "")
    # It holds credentials of NATS, and so does the memory.
    set_inspectable(allowed=False)
    try:
        settings = msgspec.json.decode(text, type=AttemptSettings)
    except msgspec.MsgspecError as error:
        sys.exit(f"pubsubflow: {ENVIRONMENT} does not describe an attempt: {error}")
    sys.exit(
        anyio.run(
            main, settings, Path(file) if file else None, backend_options={"use_uvloop": False}
        )
    )


if __name__ == "__main__":
    run()
