"""The parent of a child call: starts a process for user code, and reads what it sends."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import msgspec

import pubsubflow
from pubsubflow.runner.task_account import TaskAccount

MAX_LINE_BYTES = 1 << 20
_OURS = "PUBSUBFLOW"
_STOP_SECONDS = 5.0


class ChildLines:
    """The lines of JSON that a child call sends, and those that it gets.

    Args:
        process: The child.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stdout = self._process.stdout
        while stdout is not None and (line := await stdout.readline()):
            yield line

    def send(self, value: object) -> None:
        """Send a line of JSON to the child."""
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(value) + b"\n")

    async def wait(self) -> int:
        """Return the exit code of the child; negative for a signal."""
        return await self._process.wait()


@asynccontextmanager
async def call_in_child(
    target: str, argument: object, seconds: float, account: TaskAccount | None = None
) -> AsyncIterator[ChildLines]:
    """Call a function in a new process for the length of the block.

    The process has the daemon's environment without its own settings, and ends with the block, as
    does all that it has started; if the daemon dies, at the time limit.

    Args:
        target: `package.module:function`, which gets the argument in JSON and yields JSON values.
        argument: Encoded as JSON.
        seconds: The time limit.
        account: The account of the process; None for the daemon's own.

    Raises:
        OSError: The system refuses another process.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "pubsubflow.child_calls.main", target, str(seconds)),
        *(() if account is None else (msgspec.json.encode(account).decode(),)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_environment(),
        limit=MAX_LINE_BYTES,
        start_new_session=True,
    )
    try:
        lines = ChildLines(process)
        lines.send(argument)
        yield lines
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a child with all that it has started."""
    with suppress(ProcessLookupError):
        process.terminate()
    with anyio.move_on_after(_STOP_SECONDS):
        await process.wait()
        return
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _environment() -> dict[str, str]:
    """Return the daemon's environment without its own settings, which hold passwords and tokens."""
    package = str(Path(pubsubflow.__file__).parent.parent)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}
    search = os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": search}
