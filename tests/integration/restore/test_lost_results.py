"""Results that NATS has stored and loses before a manager takes them: their tasks run again."""

import datetime as dt
import os
import shutil
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import msgspec
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.bus import Bus
from pubsubflow.client import Client
from pubsubflow.config import Config
from pubsubflow.daemon import Daemon
from pubsubflow.errors import BusUnavailable
from pubsubflow.loader import LoaderSettings
from pubsubflow.manager import SweeperSettings
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.roles import ROLES
from pubsubflow.worker import WorkerSettings
from support.faults.daemon import DaemonOptions
from support.faults.daemons import DaemonProcess
from support.signals import Signal

pytestmark = pytest.mark.anyio

DAG_IDS = ("direct", "chained", "ordered")
DAGS = """
import time
from pathlib import Path
from pubsubflow import Context, dag, task

FOLDER = Path({folder!r})

def work(name):
    with (FOLDER / "ran").open("a") as file:
        file.write(name + "\\n")
    while not (FOLDER / "open").exists():
        time.sleep(0.01)

@dag()
def direct():
    @task
    def only():
        work("direct")

    only()

@dag()
def chained():
    @task
    def first():
        return 1

    @task
    def second(one):
        work("chained")

    second(first())

@dag()
def ordered():
    @task(retries=1, retry_delay=0.01)
    def twice(ctx: Context):
        if ctx.attempt == 1:
            raise ValueError("the next attempt goes over the bus")
        work("ordered")

    twice()
"""
RUNNING = """
SELECT count(*) FROM task_live AS t JOIN run ON run.id = t.run JOIN dag ON dag.id = run.dag
WHERE t.state = 'running'
  AND (dag_id, node, attempt) IN (('direct', 0, 1), ('chained', 1, 1), ('ordered', 0, 2))
"""


class Store:
    """The store of a nats-server, and a copy of it."""

    def __init__(self, server, folder):
        self._server = server
        self._store, self._copy = folder / "store", folder / "copy"

    def back_up(self):
        self._server.stop()
        shutil.copytree(self._store, self._copy)
        self._server.start()

    def restore(self):
        self._server.stop()
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)
        self._server.start()


@pytest.fixture
def store(server, tmp_path):
    return Store(server, tmp_path)


class Scene:
    """Runs of three DAGs, whose last tasks run until the test lets them end."""

    def __init__(self, folder, bus, database, client):
        self._folder, self._bus, self._database, self._client = folder, bus, database, client
        self._runs = []
        self._signal = Signal()
        self.questions = 0

    def note_question(self, _message):
        self.questions += 1
        self._signal.notify()

    async def until(self, check):
        return await self._signal.wait_until(check, poll_seconds=0.1)

    async def call(self, name, body=None):
        payload = b"" if body is None else msgspec.json.encode(body)

        async def reply():
            with suppress(BusUnavailable):  # the server has just been started again
                return await self._bus.request(f"$JS.API.{name}", payload, 5)

        response = msgspec.json.decode(await self.until(reply))
        assert "error" not in response, response
        return response

    async def start(self):
        """Start a run of each, and wait until the database has its last task as running."""
        self._runs += [await self._client.trigger(dag_id) for dag_id in DAG_IDS]

        async def all_running():
            async with self._database.connection() as connection:
                return await connection.fetchval(RUNNING) == len(DAG_IDS)

        await self.until(all_running)

    async def pause_managers(self):
        until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        await self.call("CONSUMER.PAUSE.PSF_IN.managers", {"pause_until": until})

    async def resume_managers(self):
        await self.call("CONSUMER.PAUSE.PSF_IN.managers", {})

    async def end_tasks(self):
        """Let the tasks end, and wait until their results are stored."""
        self.open()

        async def all_stored():
            subject = {"subjects_filter": f"{Subjects.RESULT}.>"}
            info = await self.call("STREAM.INFO.PSF_IN", subject)
            return sum((info["state"].get("subjects") or {}).values()) == len(DAG_IDS)

        await self.until(all_stored)

    def open(self):
        (self._folder / "open").touch()

    async def ended_well(self):
        """Wait for all runs; return how often each task ran to its end."""
        for run_id in self._runs:
            assert (await self._client.wait(run_id)).state == "success"
        return Counter((self._folder / "ran").read_text().split())


ONCE = dict.fromkeys(DAG_IDS, 1)
TWICE = dict.fromkeys(DAG_IDS, 2)


@asynccontextmanager
async def playing(tmp_path, server, database, url):
    async with Bus.connect(server.settings) as bus, Client(url) as client:
        scene = Scene(tmp_path, bus, database, client)
        async with await bus.subscribe(f"{Subjects.HELD_TASKS}.>", scene.note_question):
            yield scene


@pytest.fixture
def dags(tmp_path):
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "dags.py").write_text(DAGS.format(folder=str(tmp_path)))
    return folder


@pytest.fixture
async def scene(tmp_path, server, postgres, database, dags, monkeypatch):
    """A daemon that looks for orphaned tasks all the time."""
    often = partial(SweeperSettings, every_seconds=0.1, orphan_seconds=0.2)
    monkeypatch.setattr("pubsubflow.composition.SweeperSettings", often)
    config = Config(
        home=tmp_path / "home",
        api=ApiSettings(port=0),
        loader=LoaderSettings(slow_seconds=30.0),
        worker=WorkerSettings(run_as=""),
        postgres=postgres,
        nats=server.settings,
    )
    stop = anyio.Event()
    async with (
        Daemon.build(config, roles=ROLES, dags=dags, embedded=False) as built,
        anyio.create_task_group() as group,
    ):
        await group.start(built.run, stop)
        async with playing(tmp_path, server, database, built.url) as scene:
            yield scene
        stop.set()


async def test_results_that_are_purged(scene):
    await scene.start()
    await scene.pause_managers()
    await scene.end_tasks()
    await scene.call("STREAM.PURGE.PSF_IN")
    await scene.resume_managers()
    assert await scene.ended_well() == TWICE


async def test_results_of_a_stream_that_is_deleted(scene):
    await scene.start()
    await scene.pause_managers()
    await scene.end_tasks()
    await scene.call("STREAM.DELETE.PSF_IN")
    assert await scene.ended_well() == TWICE


async def test_results_of_a_server_that_goes_back_to_an_older_state(scene, store):
    await scene.start()
    await scene.pause_managers()
    store.back_up()
    await scene.end_tasks()
    store.restore()
    await scene.resume_managers()
    assert await scene.ended_well() == TWICE


async def test_results_that_no_manager_takes_for_long_are_not_lost(scene):
    """Managers stand still, or are behind: what waits for them must not run again."""
    await scene.start()
    await scene.pause_managers()
    await scene.end_tasks()
    asked = scene.questions
    await scene.until(lambda: scene.questions > asked + 4)
    await scene.resume_managers()
    assert await scene.ended_well() == ONCE


async def test_tasks_that_run_long_run_once(scene):
    await scene.start()
    asked = scene.questions
    await scene.until(lambda: scene.questions > asked + 4)
    scene.open()
    assert await scene.ended_well() == ONCE


async def test_a_store_that_is_taken_back_while_the_daemon_is_down(
    tmp_path, server, store, postgres, database, dags
):
    """Its worker is lost, which is enough: nothing has to be asked."""
    async with Bus.connect(server.settings) as bus:
        await bus.ensure_streams()
    store.back_up()
    options = DaemonOptions(
        parent=os.getpid(),
        home=str(tmp_path / "home"),
        roles=frozenset(ROLES),
        dags=str(dags),
        nats_url=server.url,
        nats_token=server.settings.token,
        postgres_url=postgres.url,
    )
    daemon = DaemonProcess("daemon", options, dict(os.environ), tmp_path)
    async with anyio.create_task_group() as group:
        await group.start(daemon.keep)
        try:
            async with playing(tmp_path, server, database, daemon.url) as scene:
                await scene.start()
            daemon.kill()
            store.restore()
            await daemon.ready.wait()
            async with playing(tmp_path, server, database, daemon.url) as again:
                again._runs = scene._runs
                again.open()
                assert await again.ended_well() == TWICE
        finally:
            await daemon.stop()
