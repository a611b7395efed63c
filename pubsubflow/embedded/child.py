"""Child processes that cannot outlive the daemon, and whose exit is awaited without polling."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import anyio

from pubsubflow.embedded import server_exec
from pubsubflow.embedded.os_account import OsAccount

ParentDeathMode = Literal["kernel", "pipe"]
"""What kills a server whose daemon has died: PDEATHSIG, or a watchdog at the end of a pipe."""

PARENT_DEATH_MODE: ParentDeathMode = "kernel" if sys.platform == "linux" else "pipe"

_KILL_SECONDS = 2.0  # seconds until the kernel has reaped a killed process
# Without the caller's PG* and locale variables.
_CLEAN_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Child:
    """A child process.

    The process and its children inherit the writing end of a pipe: end of file means that the last
    of them has exited. Postgres' backends may outlive a killed postmaster by a moment, and Postgres
    refuses to start on their data before they have exited.

    Args:
        process: The started process.
        exit_fd: Reading end of the pipe that it and its children hold open.
        parent_fd: Writing end of the pipe whose end kills it; -1 where the kernel does.
    """

    def __init__(self, process: subprocess.Popen[bytes], exit_fd: int, parent_fd: int) -> None:
        self._process = process
        self._exit_fd = exit_fd
        self._parent_fd = parent_fd
        self._waiting = anyio.Lock()  # wait_readable allows one waiter per descriptor

    @classmethod
    def spawn(
        cls,
        command: Sequence[str | Path],
        *,
        cwd: Path,
        output: int,
        death_signal: signal.Signals,
        account: OsAccount | None = None,
        inherit: Iterable[int] = (),
        stdin: int = subprocess.DEVNULL,
        parent_death: ParentDeathMode = PARENT_DEATH_MODE,
        environ: Mapping[str, str] = {},
    ) -> Self:
        """Start a command, on the daemon's main thread: it dies with the thread that starts it.

        Args:
            command: Absolute path of a program, and its arguments.
            cwd: Working folder, entered before root privileges are dropped.
            output: Descriptor for standard output and error.
            death_signal: The signal it gets when the daemon dies.
            account: Account to run under; the daemon's own if None.
            inherit: Descriptors that it keeps open while it runs.
            stdin: Descriptor to read from.
            parent_death: What kills it when the daemon dies.
            environ: Variables that it gets besides a path, a locale and a time zone.

        Raises:
            OSError: The process could not be started.
        """
        exit_fd, held_fd = os.pipe()
        watched_fd, parent_fd = os.pipe() if parent_death == "pipe" else (-1, -1)
        ids = (account.uid, account.gid) if account else (-1, -1)
        words = (os.getpid(), *ids, int(death_signal), watched_fd, *command)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", server_exec.__file__, *map(str, words)],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env={**_CLEAN_ENVIRONMENT, **environ},
                pass_fds=[held_fd, *inherit, *((watched_fd,) if watched_fd >= 0 else ())],
                # Ctrl-C goes to the daemon alone, which stops its children in order.
                start_new_session=True,
            )
        except BaseException:
            _close(exit_fd, parent_fd)
            raise
        finally:
            _close(held_fd, watched_fd)
        return cls(process, exit_fd, parent_fd)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exited(self) -> bool:
        """Whether the process has exited; its children may still run."""
        return self._process.poll() is not None

    async def wait(self) -> int:
        """Wait until the process and its children have exited; return the exit code."""
        async with self._waiting:
            if self._exit_fd >= 0:
                await anyio.wait_readable(self._exit_fd)
                _close(self._exit_fd, self._parent_fd)
                self._exit_fd = self._parent_fd = -1
        # Descriptors are closed a moment before the exit code is available.
        return self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has exited."""
        self._process.send_signal(number)

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Stop the process by a sequence of signals, SIGKILL last.

        Args:
            steps: Signals, each with the seconds until the next one.
        """
        for number, seconds in (*steps, (signal.SIGKILL, _KILL_SECONDS)):
            self.send(number)
            with anyio.move_on_after(seconds):
                await self.wait()
                return


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
