"""The host process as the daemon sees it: runs while there are triggers, restarted when it dies."""

import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import structlog
from msgspec import Struct

from pubsubflow.runner import flight_recorder
from pubsubflow.runner.flight_recorder import FlightRecord
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.triggerer.protocol import (
    HostCommand,
    HostLogLine,
    HostReport,
    HostSettings,
    Ping,
    PingReply,
    Shutdown,
    decode_report,
    encode,
)
from pubsubflow.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)

_TARGET = "pubsubflow.triggerer.host.main:main"
_DAEMONS_STDERR = (2, 2)
_SHUTDOWN_SECONDS = 3.0
_STACK_SECONDS = 0.3
_START_SECONDS = 30.0
"""A host that has not replied yet is still being loaded, which takes long on a busy machine."""
_STEADY_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 5.0
_RESERVED_FIELDS = frozenset({"event", "level", "timestamp", "trigger", "trigger_id"})


class HostExit(Struct, frozen=True):
    """An exit of the host process that was not ordered.

    Attributes:
        exit_code: Negative for a signal.
        unresponsive: Whether it was killed because it did not reply any more.
        record: What it did last.
    """

    exit_code: int
    unresponsive: bool
    record: FlightRecord


class HostProcess:
    """Supervises the host process, which runs while it is needed.

    Args:
        fork_server: Forks it.
        settings: Intervals and limits.
        commands: Returns all commands that a new host needs.
        on_report: Called with each report about triggers.
        on_exit: Called when a host has died, before the next one starts.
    """

    def __init__(
        self,
        fork_server: ForkServer,
        settings: TriggererSettings,
        *,
        commands: Callable[[], Iterable[HostCommand]],
        on_report: Callable[[HostReport], None],
        on_exit: Callable[[HostExit], None],
    ) -> None:
        self._fork_server = fork_server
        self._settings = settings
        self._commands = commands
        self._on_report = on_report
        self._on_exit = on_exit
        self._child: ChildProcess | None = None
        self._needed = anyio.Event()
        self._shutting_down = False
        self._pinged_at: float | None = None
        self._replied = False
        self._idle_since: float | None = None
        self._unresponsive = False

    @property
    def pid(self) -> int | None:
        """The host's process id, while it runs."""
        return None if self._child is None else self._child.pid

    def require(self) -> None:
        """Start the host if it does not run; it gets all commands at its start."""
        self._idle_since = None
        self._needed.set()

    def send(self, command: HostCommand) -> None:
        """Send a command to the host, if it runs."""
        if self._child is not None:
            self._child.channel.post(encode(command))

    def kill(self) -> None:
        """Kill the host; another one follows."""
        if self._child is not None:
            self._child.kill()

    async def check(self, *, busy: bool) -> None:
        """Kill a host that does not reply, and shut down an idle one; call it regularly.

        Args:
            busy: Whether the host has triggers.
        """
        if self._child is None:
            return
        now = time.monotonic()
        if busy:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > self._settings.idle_seconds:
            self._needed, self._idle_since = anyio.Event(), None
            self._shut_down()
            return
        limit = self._settings.stuck_seconds + 2 * self._settings.heartbeat_seconds
        if not self._replied:
            limit = max(limit, _START_SECONDS)
        if self._pinged_at is None:
            self._pinged_at = now
            self.send(Ping())
        elif now - self._pinged_at > limit:
            await self._kill_unresponsive(self._child)

    async def run(self) -> None:
        """Run hosts one after the other until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        with TemporaryDirectory(prefix="pubsubflow-triggers-") as folder:
            while True:
                await self._needed.wait()
                started = time.monotonic()
                try:
                    await self._run_host(Path(folder) / "recorder")
                except OSError as error:
                    log.warning("triggerer.host_start_failed", error=str(error))
                if time.monotonic() - started > _STEADY_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                await anyio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def shut_down(self) -> None:
        """Shut the host down for good, after it has closed its triggers."""
        self._needed = anyio.Event()
        child = self._child
        if child is not None:
            self._shut_down()
            with anyio.move_on_after(_SHUTDOWN_SECONDS):
                await child.wait()

    async def _run_host(self, path: Path) -> None:
        ended = anyio.Event()
        flight_recorder.prepare(path, self._fork_server.account)
        self._shutting_down = self._unresponsive = False
        self._pinged_at, self._replied = None, False
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
                for command in tuple(self._commands()):
                    self.send(command)
                await ended.wait()
            finally:
                self._child = None
            with anyio.move_on_after(_SHUTDOWN_SECONDS):
                await child.wait()
        if not self._shutting_down:
            exit_code = -signal.SIGKILL if child.exit_code is None else child.exit_code
            self._on_exit(HostExit(exit_code, self._unresponsive, flight_recorder.read(path)))

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
        match report:
            case PingReply():
                self._pinged_at, self._replied = None, True
            case HostLogLine():
                _log(report)
            case _:
                self._on_report(report)

    def _shut_down(self) -> None:
        self._shutting_down = True
        self.send(Shutdown())

    async def _kill_unresponsive(self, child: ChildProcess) -> None:
        self._unresponsive = True
        # On SIGUSR1 the interpreter writes its stacks into the flight recorder, also while C code
        # holds the GIL: they show which call it was.
        child.kill(signal.SIGUSR1)
        await anyio.sleep(_STACK_SECONDS)
        child.kill()


def _log(line: HostLogLine) -> None:
    """Log a line of the host; a field that would hide one of ours gets an underscore."""
    fields = {
        f"{key}_" if key in _RESERVED_FIELDS else key: line.fields[key] for key in line.fields
    }
    write = getattr(log, line.level)
    write(line.event, trigger=line.name, trigger_id=line.trigger_id, **fields)
