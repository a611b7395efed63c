"""dbt hook: a run of dbt as a process, read through its structured log."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec
from msgspec import Struct

from pubsubflow.errors import ConfigError

_STOP_SECONDS = 20
_LINE_BYTES = 16 << 20


class DbtEvent(Struct, frozen=True, kw_only=True):
    """An event of dbt's structured log, as far as the task reads it.

    Attributes:
        text: Its line for people.
        is_error: Whether it reports an error.
        is_result: Whether a node has ended.
        node: The node's id; empty for an event of none.
        kind: `model`, `test`, `seed`, `snapshot` and others.
    """

    text: str
    is_error: bool
    is_result: bool = False
    node: str = ""
    kind: str = ""
    status: str = ""
    materialized: str = ""
    schema: str = ""
    alias: str = ""
    relation: str = ""


def _decode_line(line: bytes) -> DbtEvent:
    """Return the event in a line; a line of another form is its text alone."""
    try:
        found = msgspec.json.decode(line, type=dict[str, dict[str, Any]])
        info, data = found["info"], found["data"]
    except (msgspec.DecodeError, KeyError):
        return DbtEvent(text=line.decode(errors="replace").rstrip("\r\n"), is_error=False)
    node = data.get("node_info") or {}
    relation = node.get("node_relation") or {}
    name = str(info.get("name", ""))
    return DbtEvent(
        text=str(info.get("msg", "")),
        is_error=info.get("level") == "error",
        is_result=name.startswith("Log") and name.endswith("Result"),
        node=str(node.get("unique_id", "")),
        kind=str(node.get("resource_type", "")),
        status=str(node.get("node_status", "")),
        materialized=str(node.get("materialized", "")),
        schema=str(relation.get("schema", "")),
        alias=str(relation.get("alias", "")),
        relation=str(relation.get("relation_name", "")),
    )


class DbtProcess:
    """A dbt that runs: an asynchronous iterator of its events, to its end.

    Args:
        process: The process, with its output piped.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __aiter__(self) -> AsyncIterator[DbtEvent]:
        while self._process.stdout and (line := await self._process.stdout.readline()):
            yield _decode_line(line)

    async def wait(self) -> int:
        """Return dbt's exit code."""
        return await self._process.wait()


@asynccontextmanager
async def dbt_process(
    command: Sequence[str], *, folder: str, env: Mapping[str, str]
) -> AsyncIterator[DbtProcess]:
    """Run dbt for the length of a block, at whose end it is stopped if it still runs.

    Args:
        command: The program and its arguments.
        folder: The project's.
        env: Variables added to those of this process.

    Raises:
        ConfigError: The program, or the folder, is not there.
    """
    program, *arguments = command
    try:
        process = await asyncio.create_subprocess_exec(
            *(program, "--log-format", "json", "--no-use-colors", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **env},
            limit=_LINE_BYTES,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename} is not there: pip install 'pubsubflow[dbt]' and the adapter of "
            "your database, or name dbt with executable="
        ) from error
    try:
        yield DbtProcess(process)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop dbt with all that it started, if it has not ended: it cancels its queries at SIGINT."""
    if process.returncode is not None:
        return
    with anyio.CancelScope(shield=True):
        for sign, patience in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with anyio.move_on_after(patience):
                await process.wait()
                return
