"""Open files run short: by idle clients, and by whatever else takes them for a while."""

import os
import resource
import socket
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from pubsubflow.roles import ROLES
from support.faults.daemon import DaemonOptions
from support.faults.daemons import DaemonProcess

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of others: Linux"),
]

OPEN_FILES = 256
CLIENTS = 300
DAG = """
from pubsubflow import Dataset, dag, task

@dag(schedule=Dataset("s3://lake/orders"))
def copies():
    @task
    def copy():
        return 1

    copy()
"""


@asynccontextmanager
async def daemon_under_limit(folder: Path):
    dags = folder / "dags"
    dags.mkdir()
    (dags / "copies.py").write_text(DAG)
    options = DaemonOptions(
        parent=os.getpid(),
        home=str(folder / "home"),
        roles=ROLES,
        dags=str(dags),
        open_files=OPEN_FILES,
    )
    member = DaemonProcess("daemon", options, dict(os.environ), folder)
    async with anyio.create_task_group() as group:
        await group.start(member.keep)
        yield member
        await member.stop()


async def run_once(url: str, session: aiohttp.ClientSession) -> str:
    """Post an event and return the state of all runs, once they have ended."""
    body = {"dataset": "s3://lake/orders"}
    async with session.post(f"{url}/api/v1/datasets/events", json=body) as response:
        assert response.status == 202
    with anyio.fail_after(60):
        while True:
            async with session.get(f"{url}/api/v1/runs") as response:
                runs = (await response.json())["items"]
            if runs and all(run["ended_at"] for run in runs):
                (state,) = {run["state"] for run in runs}
                return state
            await anyio.sleep(0.05)


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def set_limit(pid: int, files: int):
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, OPEN_FILES))


async def test_a_daemon_survives_that_no_file_can_be_opened_and_idle_clients(tmp_path):
    async with daemon_under_limit(tmp_path) as member:
        (limited,) = member.logged("daemon.connections_limited")
        assert limited["max_connections"] < OPEN_FILES
        # First, while no process for tasks is there that needs no more files.
        async with aiohttp.ClientSession() as session:
            await wait_for_files(member, session)
        member.mark_log()
        # An old connection might be closed for the idle clients.
        async with aiohttp.ClientSession() as session:
            await leave_files_beside_idle_clients(member, session)


async def leave_files_beside_idle_clients(member: DaemonProcess, session: aiohttp.ClientSession):
    """Idle clients leave a daemon the files that it needs."""
    with ExitStack() as idle:
        for _ in range(CLIENTS):
            idle.enter_context(connect(member.url))
        assert await run_once(member.url, session) == "success"
        assert open_files(member.pid) < OPEN_FILES - 50
    assert not member.logged("daemon.open_files_exhausted")


async def wait_for_files(member: DaemonProcess, session: aiohttp.ClientSession):
    """Tasks wait for their processes while no file can be opened, and go on afterwards."""
    # A session that is connected already: a new one would not be accepted below.
    async with session.get(f"{member.url}/healthz") as response:
        assert response.status == 200
    # Descriptors above the limit stay open, and a few below it may be free.
    set_limit(member.pid, open_files(member.pid))
    body = {"dataset": "s3://lake/orders"}
    async with session.post(f"{member.url}/api/v1/datasets/events", json=body) as response:
        assert response.status == 202
    assert len(await member.until_logged("daemon.open_files_exhausted")) == 1
    set_limit(member.pid, OPEN_FILES)
    assert await run_once(member.url, session) == "success"
    await member.until_logged("daemon.open_files_available")
