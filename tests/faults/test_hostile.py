"""Hostile input against a daemon: no 5xx, nothing believed that is not signed, no growth."""

import os
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import aiohttp
import anyio
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.faults.daemon import DaemonOptions
from support.faults.daemons import DaemonProcess, start_all, stop_all
from support.faults.fuzz import declared_routes, forgeries, posted, requests, send, signed
from support.signers import SCHEMES

pytestmark = pytest.mark.anyio

HOOKS = Path(__file__).parent / "hostile"
ROLES = frozenset({"api", "manager", "scheduler"})
AT_ONCE = 10
GROWN_BYTES = 48 << 20
"""What a daemon may hold more after the run: its pools, caches and what malloc keeps."""
GROWN_FILES = 16


@asynccontextmanager
async def daemon(folder):
    """Run a daemon with a webhook for each verifier."""
    with TemporaryDirectory(prefix="psf-hostile-") as home:
        options = DaemonOptions(parent=os.getpid(), home=home, roles=ROLES, dags=str(HOOKS))
        # The webhooks' file shares its signers with this test, outside of the folder.
        environ = os.environ | {"PYTHONPATH": str(HOOKS.parents[1])}
        member = DaemonProcess("daemon", options, environ, folder)
        async with anyio.create_task_group() as group:
            await start_all([member], group)
            yield member
            await stop_all([member])
            group.cancel_scope.cancel()


async def until(member, path, condition):
    """GET until the answer is as it should be."""
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(60):
            while True:
                async with session.get(member.url + path) as answer:
                    found = await answer.json()
                if condition(found):
                    return found


def fuzz(address, count):
    """Send hostile requests, some of them twice to see whether anything stays."""

    @settings(
        max_examples=count // AT_ONCE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(
            st.one_of(requests(declared_routes()), requests(declared_routes()), forgeries()),
            min_size=AT_ONCE,
            max_size=AT_ONCE,
        )
    )
    def send_all(batch):
        for sent in batch:
            status = send(address, sent)
            if status is None:
                assert not sent.whole, sent.data[:500]
            else:
                assert status < 500, sent.data[:500]
            if sent.data.startswith(b"POST /hooks/"):
                assert status not in (200, 202), sent.data[:500]

    send_all()


async def attack(folder, count):
    async with daemon(folder) as member:
        parts = urlsplit(member.url)
        address = parts.hostname, parts.port
        await until(member, "/api/v1/hooks", lambda found: len(found["items"]) == len(SCHEMES))
        for name in SCHEMES:
            assert send(address, posted(name, signed(name, b"{}"), b"{}")) == 202
        await anyio.to_thread.run_sync(fuzz, address, 200)
        process = psutil.Process(member.pid)
        held, files = process.memory_info().rss, process.num_fds()
        await anyio.to_thread.run_sync(fuzz, address, count)
        with anyio.fail_after(60):
            while process.num_fds() > files + GROWN_FILES:
                await until(member, "/readyz", lambda found: found["ready"])
        grown = process.memory_info().rss - held
        print(f"{count} requests: {grown >> 20} MiB more, {process.num_fds() - files} files more")
        assert grown < GROWN_BYTES
        hooked = []
        for name in SCHEMES:
            found = await until(member, f"/api/v1/datasets/events?dataset=hostile://{name}", bool)
            hooked += found["items"]
        assert len(hooked) == len(SCHEMES), "a webhook believed what was not signed"
        assert not member.logged("api.failed")


async def test_nothing_hostile_gets_through_or_stays(tmp_path):
    await attack(tmp_path, 1000)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of what failed
async def test_nothing_hostile_gets_through_or_stays_for_long(tmp_path):
    await attack(tmp_path, 20_000)
