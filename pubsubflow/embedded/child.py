"""Child processes that cannot outlive the daemon, and whose end is news rather than a poll."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

import anyio

from pubsubflow.embedded import server_exec
from pubsubflow.embedded.os_account import Account

Leash = Literal["kernel", "pipe"]
"""What kills a server whose daemon is gone: PDEATHSIG, or a watchdog at the end of a pipe."""

LEASH: Leash = "kernel" if sys.platform == "linux" else "pipe"

_SHUTDOWN_OF_LAST_RESORT = 2.0  # seconds for the kernel to bury what SIGKILL hit


class Child:
    """A process of ours.

    The process, and all that it forks, inherits the writing end of a pipe: end of file tells that
    the last of them is gone. Postgres' backends may outlive a killed postmaster by a moment, and
    starting on their data before they are gone is refused.

    Args:
        process: The started process.
        gone_fd: Reading end of the pipe that it and its children hold open.
        life_fd: Writing end of the pipe whose end kills it, -1 where the kernel does.
    """

    def __init__(self, process: subprocess.Popen[bytes], gone_fd: int, life_fd: int) -> None:
        self._process = process
        self._gone_fd = gone_fd
        self._life_fd = life_fd
        self._waiting = anyio.Lock()  # a descriptor takes one waiter

    @classmethod
    def spawn(
        cls,
        command: Sequence[str | Path],
        *,
        cwd: Path,
        output: int,
        death_signal: signal.Signals,
        account: Account | None = None,
        inherit: Iterable[int] = (),
        stdin: int = subprocess.DEVNULL,
        leash: Leash = LEASH,
    ) -> Self:
        """Start a command; call it on the daemon's main thread, which its life is tied to.

        Args:
            command: Absolute path of a program, and its arguments.
            cwd: Working folder, entered before root is given up.
            output: Descriptor that takes standard output and error.
            death_signal: What it gets when the daemon dies.
            account: Account to run under; ours when None.
            inherit: Descriptors that it keeps open for as long as it lives.
            stdin: Descriptor to read from.
            leash: How its life is tied to ours.

        Raises:
            OSError: No process could be made.
        """
        gone_fd, held_fd = os.pipe()
        watched_fd, life_fd = os.pipe() if leash == "pipe" else (-1, -1)
        ids = (account.uid, account.gid) if account else (-1, -1)
        words = (os.getpid(), *ids, int(death_signal), watched_fd, *command)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", server_exec.__file__, *map(str, words)],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=_clean_environment(),
                pass_fds=[held_fd, *inherit, *((watched_fd,) if watched_fd >= 0 else ())],
                start_new_session=True,  # Ctrl-C is for the daemon, which stops its children
            )
        except BaseException:
            _close(gone_fd, life_fd)
            raise
        finally:
            _close(held_fd, watched_fd)
        return cls(process, gone_fd, life_fd)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exited(self) -> bool:
        """Whether the process itself has ended, be its children still there or not."""
        return self._process.poll() is not None

    async def wait(self) -> int:
        """Wait until it and its children are gone; give its exit code, negative for a signal."""
        async with self._waiting:
            if self._gone_fd >= 0:
                await anyio.wait_readable(self._gone_fd)
                _close(self._gone_fd, self._life_fd)
                self._gone_fd = self._life_fd = -1
        return self._process.wait()  # descriptors close a moment before the exit code is there

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """End it by ever stronger means.

        Args:
            steps: Signals, each with the seconds it is given to work.
        """
        for number, seconds in (*steps, (signal.SIGKILL, _SHUTDOWN_OF_LAST_RESORT)):
            self.send(number)
            with anyio.move_on_after(seconds):
                await self.wait()
                return


def describe_exit(code: int) -> str:
    """Say how a process ended: ``"SIGKILL"`` or ``"exit code 1"``."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _clean_environment() -> dict[str, str]:
    """Nothing of the caller's PG* or locale variables may bend a server."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
