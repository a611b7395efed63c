"""A daemon that starts on the home of killed ones goes on with what they had, beside others."""

import os
from contextlib import asynccontextmanager

import anyio
import pytest

from pubsubflow.client import Client
from pubsubflow.roles import ROLES
from support.faults.daemon import DaemonOptions
from support.faults.daemons import DaemonProcess
from support.signals import Signal

pytestmark = pytest.mark.anyio

DAGS = """
import time
from pathlib import Path
from pubsubflow import dag, task

FOLDER = Path({folder!r})

@dag()
def long():
    @task
    def only():
        with (FOLDER / "begun").open("a") as file:
            file.write("begun\\n")
        while not (FOLDER / "open").exists():
            time.sleep(0.01)

    only()
"""


class Scene:
    """Daemons on one home, with servers that they share."""

    def __init__(self, folder, server, postgres, group):
        self._folder, self._server, self._postgres, self._group = folder, server, postgres, group
        self._signal = Signal()

    async def start(self, name, roles=ROLES):
        options = DaemonOptions(
            parent=os.getpid(),
            home=str(self._folder / "home"),
            roles=frozenset(roles),
            dags=str(self._folder / "dags"),
            nats_url=self._server.url,
            nats_token=self._server.settings.token,
            postgres_url=self._postgres.url,
        )
        daemon = DaemonProcess(name, options, dict(os.environ), self._folder)
        await self._group.start(daemon.keep)
        return daemon

    async def until_begun(self, times):
        await self._signal.wait_until(lambda: self._begun() >= times, poll_seconds=0.05)

    def _begun(self):
        path = self._folder / "begun"
        return len(path.read_text().split()) if path.exists() else 0

    async def ended_well(self, url, run_id):
        """Let the task end; return how often it has begun."""
        (self._folder / "open").touch()
        async with Client(url) as client:
            assert (await client.wait(run_id)).state == "success"
        return self._begun()


@pytest.fixture
async def scene(tmp_path, server, postgres, database):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "dags.py").write_text(DAGS.format(folder=str(tmp_path)))
    async with anyio.create_task_group() as group:
        yield Scene(tmp_path, server, postgres, group)
        group.cancel_scope.cancel()


@asynccontextmanager
async def killed(daemon):
    """Kill a daemon, and yield once it is ready again."""
    daemon.mark_log()
    daemon.kill()
    await daemon.ready.wait()
    yield


async def test_the_next_daemon_takes_over_at_once(scene):
    one = await scene.start("one")
    pid = one.pid
    async with Client(one.url) as client:
        run_id = await client.trigger("long")
    await scene.until_begun(1)
    async with killed(one):
        await scene.until_begun(2)
        (line,) = one.logged("daemon.taken_over")
        assert [f"-{pid}-" in name for name in line["killed"]] == [True]
        # Nobody had to wait until it had been silent for long.
        assert not one.logged("worker.lost")
        assert await scene.ended_well(one.url, run_id) == 2


async def test_a_daemon_that_lives_keeps_what_it_has(scene):
    two = await scene.start("two", {"worker"})
    one = await scene.start("one", ROLES - {"worker"})
    pid = one.pid
    async with Client(one.url) as client:
        run_id = await client.trigger("long")
    await scene.until_begun(1)
    async with killed(one):
        (line,) = one.logged("daemon.taken_over")
        assert [f"-{pid}-" in name for name in line["killed"]] == [True]
        assert await scene.ended_well(one.url, run_id) == 1
    assert not two.logged("daemon.taken_over")


async def test_a_daemon_that_was_stopped_leaves_nothing_to_take_over(scene, tmp_path):
    one = await scene.start("one")
    await one.stop()
    assert not [*(tmp_path / "home" / "daemons").iterdir()]
    again = await scene.start("again")
    assert not again.logged("daemon.taken_over")
