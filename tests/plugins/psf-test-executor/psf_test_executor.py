"""An executor that starts each attempt as a bare process on this machine, which outlives it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from pubsubflow.executors import (
    AttemptExit,
    AttemptLabel,
    CannotStart,
    Executor,
    ExecutorOptions,
)

# The trap keeps the shell until the process has ended, so that its exit code is not lost.
_INNER = """
trap : TERM INT
"$@"
echo $? >exit.new && mv exit.new exit
"""
_OUTER = 'setsid /bin/sh -c "$0" sh "$@" >output 2>&1 & echo $! >pid'
_TAIL_BYTES = 4_000


class Bare(ExecutorOptions, frozen=True):
    """Options of a task.

    Attributes:
        environment: Further variables.
        needs: A file without which it does not start, as a cluster would lack room.
        refused: Why it can never start.
    """

    executor: ClassVar[str] = "bare"
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    needs: str = ""
    refused: str = ""


class BareSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[executors.bare]`.

    Attributes:
        folder: Where it keeps what it knows of its processes.
    """

    folder: Path


class BareExecutor(Executor):
    """Starts bare processes."""

    Options = Bare
    Settings = BareSettings

    async def open(self) -> None:
        self.settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def start(self, attempt) -> None:
        await anyio.to_thread.run_sync(self._start, attempt)

    def _start(self, attempt) -> None:
        options, folder = attempt.options, self._folder(attempt.label)
        if options.refused:
            raise CannotStart(options.refused, again=False)
        if folder.exists():
            return
        if options.needs and not Path(options.needs).exists():
            raise CannotStart(f"{options.needs} is missing", again=True)
        folder.mkdir()
        (folder / "label.json").write_text(json.dumps(attempt.label.to_dict()))
        path = os.pathsep.join(filter(None, sys.path))
        subprocess.run(
            ["/bin/sh", "-c", _OUTER, _INNER, sys.executable, *attempt.arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, **options.environment, **attempt.environment},
            stdin=subprocess.DEVNULL,
            check=True,
        )

    async def watch(self, label, report) -> AttemptExit:  # noqa: ARG002 - it starts at once
        folder = self._folder(label)
        try:
            process = os.pidfd_open(int((folder / "pid").read_text()))
        except (OSError, ValueError):
            return self._end(label)
        try:
            await anyio.wait_readable(process)
        finally:
            os.close(process)
        return self._end(label)

    async def stop(self, label, grace_seconds) -> None:
        self._signal(label, signal.SIGTERM)
        with anyio.move_on_after(grace_seconds):
            await self.watch(label, print)
            return
        self._signal(label, signal.SIGKILL)

    async def find(self) -> list[AttemptLabel]:
        files = self.settings.folder.glob("*/label.json")
        return [AttemptLabel.from_dict(json.loads(file.read_text())) for file in files]

    async def read_output(self, label) -> str:
        with suppress(FileNotFoundError):
            return (
                (self._folder(label) / "output")
                .read_bytes()[-_TAIL_BYTES:]
                .decode(errors="replace")
            )
        return ""

    async def remove(self, label) -> None:
        shutil.rmtree(self._folder(label), ignore_errors=True)

    def pid(self, label) -> int:
        """Return the process group of an attempt."""
        return int((self._folder(label) / "pid").read_text())

    def _folder(self, label) -> Path:
        return self.settings.folder / label.name

    def _end(self, label) -> AttemptExit:
        try:
            return AttemptExit(int((self._folder(label) / "exit").read_text()))
        except FileNotFoundError:
            return AttemptExit(None, "the process was killed")

    def _signal(self, label, number) -> None:
        with suppress(OSError, ValueError):
            os.killpg(self.pid(label), number)
