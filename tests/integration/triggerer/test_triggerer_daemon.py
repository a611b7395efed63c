"""A whole daemon with a DAG that waits; it is killed, started again, and lists the wait."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync

from pubsubflow.client import Client

pytestmark = pytest.mark.anyio
PLUGIN = Path(__file__).parents[2] / "plugins" / "psf-test-triggers"
DAGS = """
from psf_test_triggers import Remote
from pubsubflow import Context, dag, task


@dag()
def listens():
    @task
    async def wait(ctx: Context):
        event = await ctx.wait(Remote(path={path!r}, label="a"))
        return event.payload

    wait()
"""


class Daemon:
    """`pubsubflow up` as a user types it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        reader, writer = os.pipe()
        up = [sys.executable, "-m", "pubsubflow.cli.main", "up", str(folder / "dags")]
        self.process = subprocess.Popen(
            [*up, "--home", str(folder / "home"), "--port", "0", "--ready-fd", str(writer)],
            env=os.environ | {"PYTHONPATH": str(PLUGIN)},
            pass_fds=[writer],
            stdin=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as ready:
            self.url = ready.readline().strip()
        assert self.url

    @classmethod
    @contextmanager
    def run(cls, folder):
        daemon = cls(folder)
        try:
            yield daemon
        finally:
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def listed(self, *options):
        command = [sys.executable, "-m", "pubsubflow.cli.main", "triggers", "list", *options]
        return subprocess.run(
            [*command, "--server", self.url], check=True, capture_output=True, text=True
        ).stdout


async def test_a_task_goes_on_after_the_daemon_was_killed(tmp_path, fresh_home, source):
    fresh_home(tmp_path / "home")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "listens.py").write_text(DAGS.format(path=source.path))
    with await run_sync(Daemon.run, tmp_path) as daemon:
        async with Client(daemon.url) as client:
            run_id = await client.trigger("listens")
        await source.reported("a", "started")
        await run_sync(daemon.kill)
        await source.reported("a", "hung up")  # the host dies with its daemon

    with await run_sync(Daemon.run, tmp_path) as daemon:
        with anyio.fail_after(6):  # sooner than the silence of a triggerer is believed
            await source.reported("a", "started", times=2)
        listed = json.loads(await run_sync(daemon.listed, "--json"))
        shown = await run_sync(daemon.listed)
        assert [each["task_id"] for each in listed] == ["wait"]
        assert (listed[0]["run_id"], listed[0]["state"]) == (run_id, "waiting")
        assert "listens wait" in shown
        assert listed[0]["owner"]
        await source.send("a", "fire", payload={"rows": 3})
        async with Client(daemon.url) as client:
            run = await client.wait(run_id)
            assert run.state == "success"
            assert (await client.task(run_id, "wait")).result == {"rows": 3}
            assert [each async for each in client.triggers()] == []
        await source.reported("a", "acknowledged")
