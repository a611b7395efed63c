"""The fork server: forks processes for user code from a zygote, and reports how they end."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import structlog

import pubsubflow
from pubsubflow.errors import ServiceStopped
from pubsubflow.runner.async_channel import AsyncChannel
from pubsubflow.runner.forked_process import ChildProcess, ChildState
from pubsubflow.runner.frames import send_frame
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.runner.zygote import REQUEST, STATUS, ChildCall, ZygoteSetup

log = structlog.get_logger(__name__)

RUNNER_MODULES = ("pubsubflow.runner.main", "uvloop", "anyio._backends._asyncio")
"""What processes of tasks begin with."""
PRELOAD = ("pubsubflow", *RUNNER_MODULES)
_STOP_SECONDS = 5.0
_FAILED_STARTS = 3
_RETRY_SECONDS = 1.0
_OURS = "PUBSUBFLOW"


def _environment() -> dict[str, str]:
    """Return the daemon's environment without its own settings, which hold passwords and tokens."""
    return {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}


class _Zygote:
    """One zygote process."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.ready = anyio.Event()
        self.alive = True
        self._process = process
        self._control = control
        self._number = 0
        self._sending = anyio.Lock()  # wait_writable allows one waiter per descriptor
        self._forking: dict[int, ChildState] = {}
        self._children: dict[int, ChildState] = {}

    @classmethod
    def spawn(cls, setup: ZygoteSetup) -> "_Zygote":
        ours, theirs = socket.socketpair()
        package = str(Path(pubsubflow.__file__).parent.parent)
        search = os.pathsep.join(filter(None, (package, setup.python_path)))
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pubsubflow.runner.zygote", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment() | {"PYTHONPATH": search},
            )
        send_frame(ours, msgspec.msgpack.encode(setup))
        ours.settimeout(0)
        return cls(process, ours)

    async def import_later(self) -> None:
        """Have it import what is left."""
        async with self._sending:
            await self._send(REQUEST.pack(0), [])

    async def request(self, state: ChildState, fds: Sequence[int]) -> None:
        """Request a fork, unless the zygote is gone: then the child has ended.

        Raises:
            OSError: The system passes on no more descriptors now.
        """
        self._number += 1
        number = self._number
        self._forking[number] = state
        sent = False
        # A zygote that is frozen takes no more than its socket has room for: others wait in line.
        try:
            async with self._sending:
                sent = await self._send(REQUEST.pack(number), list(fds))
        finally:
            if not sent:
                self._forking.pop(number, None)
        if not sent:
            state.ended()

    async def _send(self, request: bytes, fds: list[int]) -> bool:
        """Send a request; False if the zygote is gone."""
        while self.alive:
            try:
                socket.send_fds(self._control, [request], fds)
            except BlockingIOError:
                with suppress(anyio.ClosedResourceError):  # the zygote is given up
                    await anyio.wait_writable(self._control)
            except ConnectionError:
                return False
            else:
                return True
        return False

    async def watch(self) -> None:
        """Read the zygote's status records until it ends."""
        rest = b""
        while True:
            try:
                data = self._control.recv(65536)
            except BlockingIOError:
                await anyio.wait_readable(self._control)
                continue
            except OSError:
                return
            if not data:
                return
            rest += data
            whole = len(rest) - len(rest) % STATUS.size
            for number, pid, status in STATUS.iter_unpack(rest[:whole]):
                self._on_status(number, pid, status)
            rest = rest[whole:]

    def _on_status(self, number: int, pid: int, status: int) -> None:
        if number:
            state = self._forking.pop(number)
            state.forked(pid)
            if pid > 0:
                self._children[pid] = state
        elif pid:
            self._children.pop(pid).ended(status)
        else:
            self.ready.set()

    async def end(self) -> None:
        """End the zygote with all its children, and set their exit codes."""
        self.alive = False
        self.ready.set()
        # Who waits to write would wait for ever, and the loop go on with a number that others get.
        anyio.notify_closing(self._control)
        self._control.close()
        with anyio.CancelScope(shield=True):
            try:
                await anyio.to_thread.run_sync(partial(self._process.wait, _STOP_SECONDS))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        # A zygote that was killed has not killed its children; on Linux the kernel does, elsewhere
        # a thread in each child, which may take a moment.
        for state in (*self._children.values(), *self._forking.values()):
            state.kill()
            state.ended()


class ForkServer:
    """Forks warm processes for user code; starts another zygote when one ends.

    Attributes:
        account: The account of the processes; None for the daemon's own.
    """

    def __init__(
        self,
        preload: Sequence[str],
        open_files: int = 0,
        account: TaskAccount | None = None,
        later: Sequence[str] = (),
    ) -> None:
        self.account = account
        self._preload = list(preload)
        self._later = list(later)
        self._open_files = open_files
        self._later_requested = False
        self._zygote: _Zygote | None = None
        self._changed = anyio.Event()

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        preload: Sequence[str] = PRELOAD,
        open_files: int = 0,
        account: TaskAccount | None = None,
        later: Sequence[str] = (),
    ) -> AsyncIterator[Self]:
        """Run a fork server for the length of the context; its children end with it.

        The zygote has been started by then, and gets ready meanwhile: a fork waits for that.

        Args:
            preload: Modules that are imported once, before all forks. They must start no thread.
            open_files: Soft limit of open files of the children; 0 for the daemon's own.
            account: The account of the children; None for the daemon's own.
            later: Further modules, which are imported by `import_later`.

        Raises:
            ServiceStopped: The zygote ended several times before it was ready (in a group).
        """
        server = cls(preload, open_files, account, later)
        async with anyio.create_task_group() as group:
            await group.start(server._supervise)
            try:
                yield server
            finally:
                group.cancel_scope.cancel()

    async def import_later(self) -> None:
        """Have what is left imported, now that no start waits for it: children then share it."""
        if self._later and not self._later_requested:
            zygote = await self._ready_zygote()
            self._later_requested = True
            await zygote.import_later()

    def environment(self) -> dict[str, str]:
        """Return the environment that children begin with."""
        found = _environment()
        return found if self.account is None else self.account.environment(found)

    async def fork(
        self,
        target: str,
        argument: bytes = b"",
        *,
        on_frame: Callable[[bytes], None] | None = None,
        on_end: Callable[[], None] | None = None,
        output: tuple[int, int] = (1, 2),
    ) -> ChildProcess:
        """Fork a process that calls `function(sock, argument)` and exits.

        Args:
            target: `package.module:function`; imported in the child.
            argument: Handed to the function.
            on_frame: Called with each frame that the child sends; otherwise use `receive`.
            on_end: Called when the child's end of the stream is closed.
            output: File descriptors that become the child's stdout and stderr.

        Raises:
            OSError: The system refuses another process.
        """
        while True:
            # Again with the next zygote, if this one ends before it has forked.
            zygote = await self._ready_zygote()
            ours, theirs = socket.socketpair()
            state = ChildState()
            try:
                with theirs:
                    await zygote.request(state, (theirs.fileno(), *output))
                if await state.wait_forked():
                    channel = AsyncChannel(ours, on_frame, on_end)
                    channel.post(msgspec.msgpack.encode(ChildCall(target, argument)))
                    return ChildProcess(state, channel)
            except BaseException:
                ours.close()
                raise
            ours.close()

    async def _ready_zygote(self) -> _Zygote:
        while self._zygote is None or not self._zygote.alive:
            await self._changed.wait()
        return self._zygote

    async def _supervise(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        failures, ready = 0, task_status
        while failures < _FAILED_STARTS:
            zygote = await self._spawn()
            ready.started()
            ready = anyio.TASK_STATUS_IGNORED
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._announce, zygote)
                    await zygote.watch()
                    group.cancel_scope.cancel()
            finally:
                failures = 0 if zygote.ready.is_set() else failures + 1
                await zygote.end()
            log.warning("forkserver.zygote_lost", failed_starts=failures)
        raise ServiceStopped("forkserver")

    async def _spawn(self) -> _Zygote:
        while True:
            try:
                return _Zygote.spawn(
                    ZygoteSetup(
                        os.getpid(),
                        [place or str(Path.cwd()) for place in sys.path],
                        os.environ.get("PYTHONPATH"),
                        self._preload,
                        self._open_files,
                        self.account,
                        self._later,
                    )
                )
            except OSError as error:
                # For a moment no file can be opened, or no process started: the daemon goes on.
                log.warning("forkserver.start_failed", error=str(error))
                await anyio.sleep(_RETRY_SECONDS)

    async def _announce(self, zygote: _Zygote) -> None:
        """Serve forks from this zygote once it is ready."""
        await zygote.ready.wait()
        self._zygote = zygote
        self._changed.set()
        self._changed = anyio.Event()
        if self._later_requested:
            await zygote.import_later()
