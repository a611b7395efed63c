"""Attempt host: a warm process that runs attempts, for executors that cannot start one for each.

It reads orders from its input and reports on its output; `pubsubflow.executors.hosting` has both.
Attempts of one configuration share a connection, a zygote and warm runners. Output, events and
results go over NATS, as those of the process of an attempt do.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.errors import BusUnavailable, ConfigError, PubsubflowError
from pubsubflow.executors import DONE, NOT_BEGUN
from pubsubflow.executors.hosting import (
    Begin,
    Drain,
    Ended,
    FetchKept,
    HostOrder,
    KeptFile,
    Prepare,
    Stop,
    decode_order,
    encode_line,
)
from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.model.wire.stored_results import StoredResult
from pubsubflow.runner.task_account import set_inspectable
from pubsubflow.worker.assignment import AttemptOutcome, decode_header
from pubsubflow.worker.executors.kept_results import ResultExchange
from pubsubflow.worker.executors.orders import ORDERED, OrderRunner
from pubsubflow.worker.executors.settings import ENVIRONMENT, AttemptSettings

log = structlog.get_logger(__name__)

_GONE = "the process of the attempt ended: what its host belonged to is gone"
_CRASHED = AttemptOutcome(Outcome.CRASHED, TaskError("Crashed", _GONE))
_WARM = 2
_END_SECONDS = 30.0
_EXIT_SECONDS = 10.0
_IDLE_SECONDS = 300.0
_LINE_BYTES = 1 << 20


class _Attempt:
    """An attempt that was prepared."""

    def __init__(self, settings: AttemptSettings) -> None:
        self.settings = settings
        self.begin = anyio.Event()
        self.stopped: AttemptOutcome | None = None
        self.orders: OrderRunner | None = None
        self.data = b""

    def stop(self, outcome: AttemptOutcome) -> None:
        """End it with this outcome; without one if it has not begun."""
        self.stopped = self.stopped or outcome
        self.begin.set()
        if self.orders is not None:
            self.orders.stop(self.settings.subject, outcome)


class AttemptHost:
    """Runs attempts on order.

    Args:
        slots: How many of a kind run at once.
        group: The task group of all that it does.
        report: Called with what has ended, and with requests for results.
        folder: Where results are handed over that the executor keeps; without one they are not.
    """

    def __init__(
        self,
        slots: int,
        group: anyio.abc.TaskGroup,
        report: Callable[[Ended | FetchKept], None],
        folder: Path | None = None,
    ) -> None:
        self._exchange = None if folder is None else ResultExchange(folder, report)
        self._slots = slots
        self._group = group
        self._report = report
        self._runners: dict[bytes, _SharedRunner] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._none_left = anyio.Event()

    def carry_out(self, order: HostOrder) -> None:
        """Carry out an order; `Drain` is for the caller, who ends the host."""
        match order:
            case Prepare():
                self._prepare(order)
            case Begin(name):
                if name in self._attempts:
                    self._attempts[name].begin.set()
            case Stop(name):
                if name in self._attempts:
                    self._attempts[name].stop(ORDERED)
            case KeptFile():
                if self._exchange is not None:
                    self._exchange.on_reply(order)
            case Drain():
                self._stop_all(ORDERED)

    async def end(self, *, lost: bool) -> None:
        """End all attempts, and wait until nothing is left of them.

        Args:
            lost: Whether it came without an order, so they have crashed.
        """
        self._stop_all(_CRASHED if lost else ORDERED)
        while self._attempts:
            self._none_left = anyio.Event()
            await self._none_left.wait()
        for each in self._runners.values():
            each.close()
        for each in self._runners.values():
            await each.closed.wait()

    def _stop_all(self, outcome: AttemptOutcome) -> None:
        for each in self._attempts.values():
            each.stop(outcome)

    def _prepare(self, order: Prepare) -> None:
        try:
            text = order.environment[ENVIRONMENT]
            settings = msgspec.json.decode(text, type=AttemptSettings)
        except (KeyError, msgspec.MsgspecError) as error:
            reason = f"its settings cannot be read here: {error}; install the same version"
            self._report(Ended(order.name, NOT_BEGUN, reason))
            return
        attempt = self._attempts[order.name] = _Attempt(settings)
        self._group.start_soon(self._run, order.name, attempt)

    async def _run(self, name: str, attempt: _Attempt) -> None:
        code, reason = NOT_BEGUN, ""
        try:
            code = await self._outcome(attempt)
        except PubsubflowError as error:
            reason = str(error)
        self._report(Ended(name, code, reason, self._kept_by(attempt)))
        del self._attempts[name]
        if not self._attempts:
            self._none_left.set()

    async def _outcome(self, attempt: _Attempt) -> int:
        with self._runner_of(attempt.settings).used() as runner:
            return await self._run_by(await runner.ready(), attempt)

    async def _run_by(self, orders: OrderRunner, attempt: _Attempt) -> int:
        settings = attempt.settings
        data = await orders.read(settings.subject)
        if data is None:
            return DONE
        await attempt.begin.wait()
        if attempt.stopped is not None:
            return NOT_BEGUN
        attempt.orders, attempt.data = orders, data
        return await orders.run(settings.subject, data, again=settings.again)

    def _kept_by(self, attempt: _Attempt) -> str:
        """Return the file of the result of an attempt if that is to be kept; empty for none."""
        keeper, exchange = attempt.settings.keeper, self._exchange
        if keeper is None or exchange is None or not attempt.data:
            return ""
        header = decode_header(attempt.data)
        fence = header.run, header.node, header.map_index, header.attempt, header.delivery
        return exchange.take(StoredResult(*fence, 0, keeper.name).kept_name)

    def _runner_of(self, settings: AttemptSettings) -> "_SharedRunner":
        """Return what runs attempts of the same settings."""
        warm = min(_WARM, self._slots)
        worker = msgspec.structs.replace(
            settings.worker, processes=self._slots, async_slots=self._slots, warm_processes=warm
        )
        shared = msgspec.structs.replace(settings, subject="", again=False, worker=worker)
        key = msgspec.json.encode(shared)
        found = self._runners.get(key)
        if found is None or found.failed:
            found = self._runners[key] = _SharedRunner(shared, self._exchange)
            self._group.start_soon(found.run)
        return found

    async def close_idle(self) -> None:
        """Close what no attempt has used for long: its credentials may be of yesterday."""
        while True:
            await anyio.sleep(_IDLE_SECONDS)
            for key, each in tuple(self._runners.items()):
                if each.is_idle():
                    each.close()
                    del self._runners[key]


class _SharedRunner:
    """What attempts of one configuration share, from the first of them on.

    Attributes:
        failed: Whether it could not be opened, or has ended.
        closed: Set once it has ended.
    """

    def __init__(self, settings: AttemptSettings, exchange: ResultExchange | None) -> None:
        self._settings = settings
        self._exchange = exchange if settings.keeper is not None else None
        self._opened = anyio.Event()
        self._closing = anyio.Event()
        self._orders: OrderRunner | None = None
        self._error = ""
        self._users = 0
        self._unused_since = anyio.current_time()
        self.failed = False
        self.closed = anyio.Event()

    @contextmanager
    def used(self) -> Iterator[Self]:
        """Keep it from being idle for the length of the block."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            self._unused_since = anyio.current_time()

    def is_idle(self) -> bool:
        """Return whether it was not used for five minutes."""
        return not self._users and anyio.current_time() - self._unused_since > _IDLE_SECONDS

    async def ready(self) -> OrderRunner:
        """Return the runner of orders, once it is connected.

        Raises:
            BusUnavailable: It could not connect.
        """
        await self._opened.wait()
        if self._orders is None:
            raise BusUnavailable(self._error)
        return self._orders

    async def run(self) -> None:
        """Keep it open until it is closed."""
        try:
            async with OrderRunner.open(self._settings, self._exchange) as self._orders:
                self._opened.set()
                await self._closing.wait()
        except* (BusUnavailable, ConfigError) as errors:
            self._error = "; ".join(str(each) for each in errors.exceptions)
            log.error("host.not_connected", error=self._error)  # noqa: TRY400 - it says all
        finally:
            self.failed = True
            self._opened.set()
            self.closed.set()

    def close(self) -> None:
        """End it."""
        self._closing.set()


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    """Yield the lines of a pipe until its end."""
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            async for line in reader:
                yield line
        finally:
            transport.close()


async def main(slots: int, source: int, target: int, folder: Path | None) -> None:
    """Run a host until it is drained, or its input ends."""

    def report(message: Ended | FetchKept) -> None:
        try:
            os.write(target, encode_line(message) + b"\n")
        except BrokenPipeError:
            log.warning("host.unheard", attempt=message.name)

    lost = True
    async with anyio.create_task_group() as group:
        host = AttemptHost(slots, group, report, folder)
        group.start_soon(host.close_idle)
        async with anyio.create_task_group() as reading:

            async def end_on_signal() -> None:
                nonlocal lost
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async for _ in signals:
                        lost = False
                        reading.cancel_scope.cancel()

            reading.start_soon(end_on_signal)
            async for line in _lines(source):
                order = decode_order(line)
                if isinstance(order, Drain):
                    lost = False
                    break
                host.carry_out(order)
            reading.cancel_scope.cancel()
        # What NATS does not take within that time is lost with the host. Nothing may keep it alive.
        asyncio.get_running_loop().call_later(_END_SECONDS + _EXIT_SECONDS, os._exit, 1)
        group.cancel_scope.deadline = anyio.current_time() + _END_SECONDS
        await host.end(lost=lost)
        group.cancel_scope.cancel()


def run() -> None:
    """Run a host; the entry point of the process."""
    set_inspectable(allowed=False)
    # What user code or a library prints must not get between the reports.
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    slots, folder = int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None
    anyio.run(main, slots, source, target, folder, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    run()
