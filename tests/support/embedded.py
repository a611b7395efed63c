"""Embedded servers under test: clients of them, and a process that holds a home."""

import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import asyncpg
import nats
import psutil
from anyio import to_thread

import pubsubflow

HOLDER = Path(__file__).with_name("home_holder.py")
UNPRIVILEGED = 65534
TIMEOUT_SECONDS = 20


async def next_fact(facts, name, *, seconds=TIMEOUT_SECONDS):
    """Wait for the next log event of a name; return it."""
    with anyio.fail_after(seconds):
        async for event in facts:
            if event["event"] == name:
                return event
    raise AssertionError(name)


@asynccontextmanager
async def postgres(servers):
    at = servers.postgres
    connection = await asyncpg.connect(
        host=at.host, port=at.port, user=at.user, password=at.password, database=at.database
    )
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def jetstream(servers):
    client = await nats.connect(servers.nats.url, token=servers.nats.token, allow_reconnect=False)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def ended(*pids):
    """Wait until processes have ended, children of others as well, reaped or not."""
    if not hasattr(os, "pidfd_open"):
        processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        _, alive = await to_thread.run_sync(psutil.wait_procs, processes, TIMEOUT_SECONDS)
        return not alive
    with anyio.move_on_after(TIMEOUT_SECONDS):
        for pid in filter(psutil.pid_exists, pids):
            descriptor = os.pidfd_open(pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return True
    return False


class Holder:
    """Another process that holds a home."""

    def __init__(self, process, pids):
        self.process = process
        self.pids = pids

    async def kill(self):
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def holder(home, *, prefix=()):
    command = [*prefix, sys.executable, str(HOLDER), str(home)]
    env = {**os.environ, "PYTHONPATH": str(Path(pubsubflow.__file__).parents[1])}
    async with await anyio.open_process(command, env=env) as process:
        try:
            with anyio.fail_after(60):
                line = await _first_line(process)
            yield Holder(process, json.loads(line) if line else None)
        finally:
            if process.returncode is None:
                process.kill()


async def _first_line(process):
    text = b""
    async for chunk in process.stdout:
        text += chunk
        if text.endswith(b"\n"):
            break
    return text


def as_ordinary_user():
    """Return the prefix of a command that runs it as another user than root.

    The interpreter may lie in root's private folder, so the user may read what root can.
    """
    if os.geteuid():
        return []
    read_all = "+dac_read_search"
    return [
        "setpriv",
        f"--reuid={UNPRIVILEGED}",
        f"--regid={UNPRIVILEGED}",
        "--clear-groups",
        f"--inh-caps={read_all}",
        f"--ambient-caps={read_all}",
    ]


def left_behind(home) -> list[psutil.Process]:
    """Return the processes below this one that belong to a home."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if _belongs(process, str(home))
    ]


def _belongs(process: psutil.Process, home: str) -> bool:
    try:
        return home in " ".join((process.cwd(), *process.cmdline()))
    except psutil.NoSuchProcess:
        return False
