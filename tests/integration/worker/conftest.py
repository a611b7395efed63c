"""Workers on a real nats-server and with real runner processes, and a scripted manager."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest

from pubsubflow.bus import Bus
from pubsubflow.model.wire.messages import (
    EventInfo,
)
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.worker import Worker, WorkerSettings
from support.servers import NatsServer
from support.worker import ScriptedManager


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
def nats_server(tmp_path):
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def bus(nats_server):
    async with Bus.connect(nats_server.settings) as bus:
        await bus.ensure_streams()
        yield bus


@pytest.fixture
async def manager(bus, tmp_path):
    async with ScriptedManager(bus, tmp_path).running() as manager:
        yield manager


@pytest.fixture
async def fork_server():
    async with ForkServer.start() as server:
        yield server


@pytest.fixture
def start_worker(nats_server, fork_server, tmp_path):
    """Run a worker with a connection of its own for the length of a block."""

    @asynccontextmanager
    async def start(
        worker_id="w1",
        *,
        cache="cache",
        takes_over=False,
        results=(None, None),
        executors=(),
        **settings,
    ):
        settings = WorkerSettings(**{"processes": 2, **settings})
        stopping = anyio.Event()
        async with (
            Bus.connect(nats_server.settings) as bus,
            anyio.create_task_group() as group,
        ):
            worker = Worker(
                bus=bus,
                fork_server=fork_server,
                settings=settings,
                cache=BundleCache(tmp_path / cache),
                worker_id=worker_id,
                results=results[0],
                result_settings=results[1],
                takes_over=takes_over,
                executors=executors,
            )
            await group.start(worker.run, stopping)
            worker.stop = stopping.set
            yield worker
            stopping.set()

    return start


@pytest.fixture
async def worker(start_worker):
    async with start_worker(grace_seconds=0.5) as worker:
        yield worker


@pytest.fixture
def event():
    def make(uri, **extra):
        return EventInfo("e", uri, extra, None, datetime.now(UTC), "api")

    return make
