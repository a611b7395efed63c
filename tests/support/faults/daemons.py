"""Daemon processes, started again when they die, as a supervisor would."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import psutil
from anyio.streams.buffered import BufferedByteReceiveStream

from support.faults.daemon import DaemonOptions

SCRIPT = Path(__file__).with_name("daemon.py")
START_SECONDS = 180
STOP_SECONDS = 120
MARK = "FAULT_ROUND"


class DaemonProcess:
    """One daemon, started again each time it ends.

    Args:
        name: Names its log.
        options: What it is started with.
        environ: Its environment.
        folder: Where its log goes.
        script: What runs it; that of another version belongs to an environment that imports that.
        prefix: Of its command: puts it into a network of its own.

    Attributes:
        ready: Set while it runs and is ready.
        url: Where its HTTP answers, while it is ready.
        pid: Its process id.
        unexpected_exits: Exit codes of ends that the test did not cause.
    """

    def __init__(
        self,
        name: str,
        options: DaemonOptions,
        environ: dict[str, str],
        folder: Path,
        *,
        script: Path = SCRIPT,
        prefix: Sequence[str] = (),
    ):
        self._script = script
        self._prefix = prefix
        self.name = name
        self.ready = anyio.Event()
        self.url = ""
        self.pid = 0
        self.unexpected_exits: list[int] = []
        self.log = folder / f"{name}.log"
        self.options = options
        self._environ = environ
        self._end_expected = False
        self._stopping = False
        self._ended = anyio.Event()
        self._facts_marked = 0

    def kill(self):
        self._end_expected = True
        self.ready = anyio.Event()
        os.kill(self.pid, signal.SIGKILL)

    async def stop(self):
        """End it as its supervisor would at shutdown; it must end well."""
        with anyio.fail_after(START_SECONDS):
            await self.ready.wait()
        self._end_expected = self._stopping = True
        os.kill(self.pid, signal.SIGTERM)
        with anyio.fail_after(STOP_SECONDS):
            await self._ended.wait()

    async def keep(self, *, task_status: anyio.abc.TaskStatus[None]):
        """Start it, and start it again whenever it ends, until it is stopped."""
        while True:
            self._end_expected = False
            with self.log.open("ab") as log:
                process = await anyio.open_process(
                    [
                        *(*self._prefix, sys.executable, "-P", self._script),
                        msgspec.json.encode(self.options),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._environ,
                    # Not this checkout: of another version it must import nothing here.
                    cwd=self.log.parent,
                )
            self.pid = process.pid
            try:
                await self._await_ready(process)
                if self.ready.is_set():
                    task_status.started()
                    task_status = anyio.TASK_STATUS_IGNORED
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                with anyio.CancelScope(shield=True):
                    await process.aclose()
            if self._stopping:
                if code:
                    self.unexpected_exits.append(code)
                self._ended.set()
                return
            if not self._end_expected:
                self.unexpected_exits.append(code)
                raise AssertionError(f"{self.name} ended with {code}:\n{self.log_tail()}")

    async def _await_ready(self, process: anyio.abc.Process):
        try:
            with anyio.fail_after(START_SECONDS):
                line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 1000)
        except anyio.IncompleteRead:
            return
        if not self._end_expected:
            self.url = line.decode()
            self.ready.set()

    def mark_log(self):
        """Begin its log anew for `logged` and `warnings`."""
        self._facts_marked = len(self.log_events())

    def logged(self, event: str) -> list[dict]:
        """Return the lines of its log about an event."""
        return [fact for fact in self._facts() if fact.get("event") == event]

    async def until_logged(self, event: str, seconds: float = 60) -> list[dict]:
        """Return the lines about an event, once there is one."""
        with anyio.move_on_after(seconds):
            while not self.logged(event):  # noqa: ASYNC110 - of a process
                await anyio.sleep(0.05)
        found = self.logged(event)
        assert found, f"{self.name} has not logged {event} in {seconds:g} s:\n{self.log_tail()}"
        return found

    def warnings(self) -> list[dict]:
        """Return warnings and worse."""
        return [fact for fact in self._facts() if fact.get("level") not in ("info", "debug")]

    def _facts(self) -> list[dict]:
        return self.log_events()[self._facts_marked :]

    def log_events(self) -> list[dict]:
        facts = []
        for line in self.log.read_text().splitlines():
            try:
                facts.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # a line that a kill cut off
        return facts

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text().splitlines()[-30:])


async def start_all(members: list[DaemonProcess], group: anyio.abc.TaskGroup):
    """Start the daemons side by side and return when all are ready."""
    async with anyio.create_task_group() as starting:
        for member in members:
            starting.start_soon(partial(group.start, member.keep))


async def stop_all(members: list[DaemonProcess]):
    async with anyio.create_task_group() as stopping:
        for member in members:
            stopping.start_soon(member.stop)


async def await_no_process(mark: str, seconds: float = 60):
    """Wait until no process of a round is left: children of killed daemons too."""
    left = []
    with anyio.move_on_after(seconds):
        while True:
            left = _marked(mark)
            if not left:
                return
            await anyio.sleep(0.05)
    raise AssertionError(f"processes outlived their daemons: {left}")


def is_marked(pid: int, mark: str) -> bool:
    """Whether a living process belongs to a round."""
    try:
        process = psutil.Process(pid)
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _marked(mark: str) -> list[int]:
    return [pid for pid in psutil.pids() if is_marked(pid, mark)]
