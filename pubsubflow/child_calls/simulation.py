"""Simulations of schedules: each in a process of its own, under limits of time and memory.

An expression comes from a person and may be as expensive as its partitions make it; the
daemon's loop and memory are left alone by it. The process is forked from one that has imported
what simulations need: that one starts with the first of them, and ends when none comes any more.
"""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.errors import InvalidInput, ServiceStopped
from pubsubflow.exit_codes import describe_exit
from pubsubflow.model.schedule.simulations import SimulationOrder, SimulationReply, SimulationView
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import TaskAccount

SECONDS = 60.0
"""How long one simulation may take, with the start of its process on a busy machine."""

IDLE_SECONDS = 120.0
"""How long after the last simulation the process is kept from which they are forked."""

_AT_ONCE = 2
_PRELOAD = ("pubsubflow.testing.simulations.order",)
_TARGET = "pubsubflow.testing.simulations.order:serve"
_decode = msgspec.json.Decoder(SimulationReply).decode
log = structlog.get_logger(__name__)


class Simulations:
    """Carries out simulations: a few at once, of one person one after the other.

    A service: it carries them out while it runs.

    Args:
        account: The account of the processes; None for the daemon's own.
        idle_seconds: How long the process is kept from which they are forked.
    """

    def __init__(
        self, account: TaskAccount | None = None, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._account = account
        self._idle_seconds = idle_seconds
        self._limiter = anyio.Semaphore(_AT_ONCE)
        self._turns: dict[str, anyio.Lock] = {}
        self._requested: Counter[str] = Counter()
        self._server: ForkServer | None = None
        self._wanted = anyio.Event()
        self._started = anyio.Event()
        self._begun = 0

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until `stopping` is set."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_server)
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def __call__(self, order: SimulationOrder, by: str = "") -> SimulationView:
        """Return what a schedule makes of events.

        Args:
            order: What is simulated.
            by: The person or token that requests it.

        Raises:
            InvalidInput: The order is invalid, or it takes too long or too much memory.
        """
        async with self._turn(by):
            reply = SimulationReply(fault=f"it takes more than {SECONDS:g} s: simulate less")
            # The process ends itself by its own limits; this one is for a machine without time.
            with anyio.move_on_after(SECONDS):
                async with await self._fork(order) as child:
                    reply = await _reply_of(child, order)
        if reply.found is None:
            raise InvalidInput(reply.fault or "it failed")
        return reply.found

    @asynccontextmanager
    async def _turn(self, by: str) -> AsyncIterator[None]:
        """Wait for the turn of a person; many requests of one delay others by one at most."""
        self._requested[by] += 1
        try:
            async with self._turns.setdefault(by, anyio.Lock()), self._limiter:
                self._begun += 1
                yield
        finally:
            self._requested[by] -= 1
            if not self._requested[by]:
                del self._requested[by], self._turns[by]

    async def _fork(self, order: SimulationOrder) -> ChildProcess:
        while self._server is None:
            self._wanted.set()
            await self._started.wait()
        silence = os.open(os.devnull, os.O_WRONLY)
        try:
            return await self._server.fork(
                _TARGET, msgspec.json.encode(order), output=(silence, silence)
            )
        finally:
            os.close(silence)

    async def _keep_server(self) -> None:
        """Start the fork server when it is wanted, and end it when it is idle."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            try:
                async with ForkServer.start(preload=_PRELOAD, account=self._account) as server:
                    self._server = server
                    self._started.set()
                    self._started = anyio.Event()
                    await self._wait_idle()
            except* ServiceStopped:
                log.warning("simulations.cannot_start")
            finally:
                self._server = None

    async def _wait_idle(self) -> None:
        begun = -1
        while self._requested or begun != self._begun:
            begun = self._begun
            await anyio.sleep(self._idle_seconds)
        # Before anything else runs: who comes from here on gets another one.
        self._server = None


async def _reply_of(child: ChildProcess, order: SimulationOrder) -> SimulationReply:
    try:
        return _decode(await child.receive())
    except anyio.EndOfStream:
        code = await child.wait()
    if code == -signal.SIGPROF:
        text = f"it takes more than {order.cpu_seconds:g} s of processor time: simulate less"
        return SimulationReply(fault=text)
    return SimulationReply(fault=f"its process ended: {describe_exit(code)}")
