"""A process forked for user code, as the daemon sees it."""

import os
import signal
from types import TracebackType
from typing import Self

import anyio

from pubsubflow.runner.async_channel import Link
from pubsubflow.runner.zygote import kill_group

_STOP_SECONDS = 5.0


class Life:
    """What the zygote tells about one child, from its birth to its end.

    Attributes:
        pid: Its process id, which is also that of its process group and session; 0 before.
        exit_code: None while it runs; negative for a signal.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.exit_code: int | None = None
        self._error = 0
        self._known = anyio.Event()
        self._exited = anyio.Event()

    def forked(self, pid: int) -> None:
        """Note the pid, or the negative errno of a fork that failed."""
        self.pid, self._error = max(pid, 0), max(-pid, 0)
        self._known.set()

    def ended(self, exit_code: int = -signal.SIGKILL) -> None:
        """Note the end."""
        self.exit_code = exit_code
        self._known.set()
        self._exited.set()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it started."""
        if self.exit_code is None and self.pid:
            kill_group(self.pid, number)

    async def await_fork(self) -> bool:
        """Wait for the zygote's answer; False when the zygote ended instead.

        Raises:
            OSError: The system refuses another process.
        """
        await self._known.wait()
        if self._error:
            raise OSError(self._error, f"fork failed: {os.strerror(self._error)}")
        return bool(self.pid)

    async def await_end(self) -> int:
        """Wait until the process is gone and return its exit code."""
        await self._exited.wait()
        return self.exit_code or 0


class ChildProcess:
    """A running child with a stream of frames to it; a context manager that kills it at its end.

    Attributes:
        pid: Its process id, which is also that of its process group and session.
        link: The stream, for callers that want it without waiting.
    """

    def __init__(self, life: Life, link: Link) -> None:
        self._life = life
        self.pid = life.pid
        self.link = link

    @property
    def exit_code(self) -> int | None:
        """How it ended: negative for a signal, None while it runs."""
        return self._life.exit_code

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            anyio.BrokenResourceError: The child is gone.
        """
        await self.link.send(frame)

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            anyio.EndOfStream: The child closed its end, or is gone.
        """
        return await self.link.receive()

    async def wait(self) -> int:
        """Wait until the process is gone; return its exit code, negative for a signal."""
        return await self._life.await_end()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it started."""
        self._life.kill(number)

    async def aclose(self) -> None:
        """Kill the process if it still runs, and wait for its end (at most 5 s)."""
        self.link.close()
        self.kill()
        with anyio.move_on_after(_STOP_SECONDS, shield=True):
            await self.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
