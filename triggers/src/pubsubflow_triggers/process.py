"""Process triggers: wait for a process, or run a command, on the triggerer's machine."""

import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Self

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.to_thread import run_sync

from pubsubflow.embedded import server_exec
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.checks import check_interval
from pubsubflow_triggers.credentials import resolve_all

_TERMINATE_SECONDS = 5.0
_KILL_SECONDS = 2.0
_OUTPUT_SECONDS = 1.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class ProcessEnds(Trigger, frozen=True, kw_only=True):
    """Fires when a process has ended, also if it ended before the trigger started.

    Linux reports the end (pidfd); elsewhere the trigger polls at intervals. The number means a
    process of the machine on which the triggerer runs. `ProcessEnds.of(pid)` fills in `start_time`.

    Attributes:
        pid: Its number.
        start_time: The result of `start_time(pid)` while it ran: it distinguishes a later process
            with the same number. None: the process with that number when the trigger starts.
        interval: Time between two polls, where the system reports nothing; at least 0.1 s.

    The payload is `{"pid"}`; only the parent knows an exit code.
    """

    pid: int
    start_time: str | None = None
    interval: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid process."""
        check_interval("ProcessEnds", self.interval)
        if self.pid < 1:
            raise DefinitionError(f"ProcessEnds: pid must be above 0, not {self.pid}")

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the trigger for a process that runs now, on this machine.

        Raises:
            DefinitionError: None runs under this number.
        """
        started = start_time(pid)
        if started is None:
            raise DefinitionError(f"ProcessEnds: no process {pid} runs here")
        return cls(pid=pid, start_time=started)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield one event when the process has ended.

        Raises:
            TriggerError: The process is one of another machine.
        """
        if self.start_time is not None and _machine(self.start_time) != _machine(_here()):
            raise TriggerError(
                f"process {self.pid} runs on {_machine(self.start_time)!r}, but the trigger on "
                f"{_machine(_here())!r}"
            )
        await self._end(ctx)
        yield TriggerEvent(payload={"pid": self.pid}, id=f"{self.pid}:{self.start_time}")

    async def _end(self, ctx: TriggerContext) -> None:
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError) as error:
            # Not Linux, an old one, or not permitted.
            ctx.log("process.polled", pid=self.pid, reason=str(error))
            await self._poll(ctx)
            return
        try:
            # The handle is of one process for ever, so the number is compared after it was taken.
            if start_time(self.pid) == (self.start_time or start_time(self.pid)):
                await anyio.wait_readable(handle)
        finally:
            os.close(handle)

    async def _poll(self, ctx: TriggerContext) -> None:
        first = self.start_time or await run_sync(start_time, self.pid)
        while first is not None and await run_sync(start_time, self.pid) == first:
            await ctx.sleep(self.interval.total_seconds())


class Command(Trigger, frozen=True, kw_only=True):
    """Runs a command beside the triggerer, and fires when it has ended.

    It is for small commands that wait, such as `kubectl wait`. When the triggerer stops or is lost,
    the command runs again from its start, perhaps on another machine. Once nothing waits for it,
    it is ended with all that it started: SIGTERM, and SIGKILL 5 s later. On Linux it dies with the
    triggerer, also when that is killed.

    Attributes:
        argv: Program (on the triggerer's PATH, or absolute) and arguments; without a shell.
        cwd: Its folder; the triggerer's when left out.
        env: Variables beside the triggerer's. A value `env:NAME` stands for a variable there,
            `connection:NAME` for a connection's secret.
        check: Whether an exit code other than 0 fails the wait.
        tail_bytes: Bytes of the end of its output to keep, from 0 to 65536.

    The payload is `{"code", "output"}`: the exit code, negative for a signal, and the end of its
    standard output and error.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    env: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    check: bool = True
    tail_bytes: int = 4096

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid command."""
        if not self.argv or not self.argv[0]:
            raise DefinitionError("Command: argv is empty")
        if any("\0" in text for text in self.argv):
            raise DefinitionError("Command: argv holds a zero byte")
        if not 0 <= self.tail_bytes <= 2**16:
            raise DefinitionError(
                f"Command: tail_bytes must be from 0 to 65536, not {self.tail_bytes}"
            )

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Run the command, and yield one event when it has ended.

        Raises:
            TriggerError: It could not be started, or failed.
        """
        code, output = await self._run_command(ctx)
        if self.check and code != 0:
            last = output.strip().rpartition("\n")[2]
            raise TriggerError(f"{self.argv[0]} ended with {code}" + (f": {last}" if last else ""))
        yield TriggerEvent(payload={"code": code, "output": output})

    async def _run_command(self, ctx: TriggerContext) -> tuple[int, str]:
        """Return the command's code and the end of its output."""
        env = os.environ | await resolve_all(ctx, self.env)
        program = shutil.which(self.argv[0], path=env.get("PATH"))
        if program is None:
            raise TriggerError(f"{self.argv[0]} cannot be started: the program does not exist here")
        try:
            process = await anyio.open_process(
                [*_guarded(), program, *self.argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                cwd=self.cwd,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise TriggerError(f"{self.argv[0]} cannot be started: {error}") from error
        ctx.log("command.started", program=self.argv[0], pid=process.pid)
        tail = bytearray()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, process.stdout, tail)
                code = await process.wait()
                # What it left running in the background may hold the output open.
                group.cancel_scope.deadline = anyio.current_time() + _OUTPUT_SECONDS
        finally:
            await _end(process)
        return code, tail.decode(errors="replace")

    async def _read(self, stream: ByteReceiveStream | None, tail: bytearray) -> None:
        if stream is None:
            raise RuntimeError("the command has no output")
        async for chunk in stream:
            tail += chunk
            del tail[: max(0, len(tail) - self.tail_bytes)]


def _guarded() -> list[str]:
    """Return the prefix of a command that makes it die with this process, also by SIGKILL."""
    if sys.platform != "linux":
        return []
    words = (os.getpid(), -1, -1, int(signal.SIGKILL), -1)
    return [sys.executable, "-I", "-S", server_exec.__file__, *map(str, words)]


def start_time(pid: int) -> str | None:
    """Return what distinguishes a process from a later one under its number; None if there is none.

    It has the form `machine/boot/time`.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if _BOOT.exists():
            return None
        return _start_time_by_ps(pid)
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else f"{_here()}/{fields[18]}"  # proc(5): field 22


def _start_time_by_ps(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 - where it is differs
        capture_output=True,
        text=True,
        check=False,
    )
    state, _, started = done.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else f"{_here()}/{started.strip()}"


def _here() -> str:
    """Return this machine and its boot."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return f"{platform.node()}/{boot}"


def _machine(started: str) -> str:
    return started.partition("/")[0]


async def _end(process: Process) -> None:
    """End a process and all of its group."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            with anyio.move_on_after(_TERMINATE_SECONDS):
                await process.wait()
        _signal_group(process, signal.SIGKILL)
        with anyio.move_on_after(_KILL_SECONDS):
            await process.aclose()


def _signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal; the group keeps the leader's number for as long as it has a member."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
