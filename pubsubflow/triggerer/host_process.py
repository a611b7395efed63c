"""The host process as the daemon sees it: there while there are triggers, started when it dies."""

import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import structlog
from msgspec import Struct

from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.triggerer.host import recorder
from pubsubflow.triggerer.host.recorder import Recorded
from pubsubflow.triggerer.protocol import (
    Finish,
    HostSettings,
    Order,
    Ping,
    Pong,
    Report,
    decode_report,
    encode,
)
from pubsubflow.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_TARGET = "pubsubflow.triggerer.host.main:main"
_DAEMONS_STDERR = (2, 2)
_FINISH_SECONDS = 3.0
_STACK_SECONDS = 0.3
_STEADY_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 5.0


class Death(Struct, frozen=True):
    """How a host process ended although nobody asked it to.

    Attributes:
        exit_code: Negative for a signal.
        deaf: Whether it was killed because it did not answer any more.
        recorded: What it did last.
    """

    exit_code: int
    deaf: bool
    recorded: Recorded


class Hosting:
    """Keeps a host process while there is need of one.

    Args:
        fork_server: Forks it.
        settings: See there.
        orders: Returns all that a new host has to be told.
        report: Called with each report.
        died: Called when a host has died, before there is another.
    """

    def __init__(
        self,
        fork_server: ForkServer,
        settings: TriggererSettings,
        *,
        orders: Callable[[], Iterable[Order]],
        report: Callable[[Report], None],
        died: Callable[[Death], None],
    ) -> None:
        self._fork_server = fork_server
        self._settings = settings
        self._orders = orders
        self._report = report
        self._died = died
        self._child: ChildProcess | None = None
        self._wanted = anyio.Event()
        self._finishing = False
        self._asked_at: float | None = None
        self._idle_since: float | None = None
        self._deaf = False

    @property
    def pid(self) -> int | None:
        """The host's process id, while there is one."""
        return None if self._child is None else self._child.pid

    def need(self) -> None:
        """Have a host; it is told everything at its start."""
        self._idle_since = None
        self._wanted.set()

    def send(self, order: Order) -> None:
        """Tell the host something, if there is one."""
        if self._child is not None:
            self._child.link.post(encode(order))

    def kill(self) -> None:
        """End the host at once; another one follows."""
        if self._child is not None:
            self._child.kill()

    async def tend(self, *, busy: bool) -> None:
        """Look whether the host answers, and whether it is still needed; call it now and then."""
        if self._child is None:
            return
        now = time.monotonic()
        if busy:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > self._settings.idle_seconds:
            self._wanted, self._idle_since = anyio.Event(), None
            self._finish()
            return
        patience = self._settings.stuck_seconds + 2 * self._settings.heartbeat_seconds
        if self._asked_at is None:
            self._asked_at = now
            self.send(Ping())
        elif now - self._asked_at > patience:
            await self._end_deaf(self._child)

    async def run(self) -> None:
        """Keep hosts until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        with TemporaryDirectory(prefix="pubsubflow-triggers-") as folder:
            while True:
                await self._wanted.wait()
                started = time.monotonic()
                try:
                    await self._live(Path(folder) / "recorder")
                except OSError as error:
                    log.warning("triggerer.host_not_started", error=str(error))
                if time.monotonic() - started > _STEADY_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def finish(self) -> None:
        """Let the host close everything, and end it; no other one follows."""
        self._wanted = anyio.Event()
        child = self._child
        if child is not None:
            self._finish()
            with anyio.move_on_after(_FINISH_SECONDS):
                await child.wait()

    async def _live(self, path: Path) -> None:
        ended = anyio.Event()
        recorder.prepare(path)
        self._finishing = self._deaf = False
        self._asked_at = None
        child = await self._fork_server.fork(
            _TARGET,
            encode(self._host_settings(path)),
            on_frame=self._on_frame,
            on_end=ended.set,
            output=_DAEMONS_STDERR,
        )
        async with child:
            self._child = child
            log.info("triggerer.host_started", pid=child.pid)
            try:
                for order in tuple(self._orders()):
                    self.send(order)
                await ended.wait()
            finally:
                self._child = None
            with anyio.move_on_after(_FINISH_SECONDS):
                await child.wait()
        if not self._finishing:
            exit_code = -signal.SIGKILL if child.exit_code is None else child.exit_code
            self._died(Death(exit_code, self._deaf, recorder.read(path)))

    def _host_settings(self, path: Path) -> HostSettings:
        settings = self._settings
        return HostSettings(
            str(path),
            settings.block_seconds,
            settings.stuck_seconds,
            settings.threads,
            settings.acknowledge_seconds,
            settings.cleanup_seconds,
        )

    def _on_frame(self, frame: bytes) -> None:
        report = decode_report(frame)
        if isinstance(report, Pong):
            self._asked_at = None
        else:
            self._report(report)

    def _finish(self) -> None:
        self._finishing = True
        self.send(Finish())

    async def _end_deaf(self, child: ChildProcess) -> None:
        """Have the interpreter write down where it stands, then kill the process."""
        self._deaf = True
        child.kill(signal.SIGUSR1)
        await anyio.sleep(_STACK_SECONDS)
        child.kill()
