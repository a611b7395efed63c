"""A forked process for user code, as the daemon sees it."""

import contextlib
import os
import signal
from types import TracebackType
from typing import Self

import anyio

from pubsubflow.runner.async_channel import AsyncChannel
from pubsubflow.runner.zygote import kill_group

_STOP_SECONDS = 5.0


class ChildState:
    """The state of one child, as the zygote reports it.

    Attributes:
        pid: Its process id, which is also that of its process group and session; 0 before.
        exit_code: None while it runs; negative for a signal.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.exit_code: int | None = None
        self._error = 0
        self._forked = anyio.Event()
        self._exited = anyio.Event()

    def forked(self, pid: int) -> None:
        """Set the pid, or the negative errno of a fork that failed."""
        self.pid, self._error = max(pid, 0), max(-pid, 0)
        self._forked.set()

    def ended(self, exit_code: int = -signal.SIGKILL) -> None:
        """Set the exit code."""
        # Wakes also those that wait for the fork, which a dead zygote will not report.
        self.exit_code = exit_code
        self._forked.set()
        self._exited.set()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it started."""
        # After the exit the pid may belong to another process.
        if self.exit_code is None and self.pid:
            kill_group(self.pid, number)

    async def wait_forked(self) -> bool:
        """Wait for the fork; False when the zygote ended before it.

        Raises:
            OSError: The system refuses another process.
        """
        await self._forked.wait()
        if self._error:
            raise OSError(self._error, f"fork failed: {os.strerror(self._error)}")
        return bool(self.pid)

    async def wait_ended(self) -> int:
        """Wait until the process is gone and return its exit code."""
        await self._exited.wait()
        return self.exit_code or 0


class ChildProcess:
    """A running child with a stream of frames to it; a context manager that kills it at its end.

    Attributes:
        pid: Its process id, which is also that of its process group and session.
        channel: The stream, for callers that send without waiting.
    """

    def __init__(self, state: ChildState, channel: AsyncChannel) -> None:
        self._state = state
        self.pid = state.pid
        self.channel = channel

    @property
    def exit_code(self) -> int | None:
        """How it ended: negative for a signal, None while it runs."""
        return self._state.exit_code

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            anyio.BrokenResourceError: The child is gone.
        """
        await self.channel.send(frame)

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            anyio.EndOfStream: The child closed its end, or is gone.
        """
        return await self.channel.receive()

    async def wait(self) -> int:
        """Wait until the process is gone; return its exit code, negative for a signal."""
        return await self._state.wait_ended()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it started."""
        self._state.kill(number)

    def interrupt(self, number: int) -> None:
        """Send a signal to the process alone."""
        # After the exit the pid may belong to another process.
        if self._state.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def aclose(self) -> None:
        """Kill the process if it still runs, and wait for its end, for 5 s at most."""
        self.channel.close()
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
