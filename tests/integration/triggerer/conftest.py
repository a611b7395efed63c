"""Triggerers on real servers and with real host processes, and a scripted manager and source."""

from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import anyio
import msgspec
import pytest
import structlog

from pubsubflow.bus import STREAM_IN, Bus
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.store.triggers import TriggerLeases
from pubsubflow.triggerer.service import Triggerer
from pubsubflow.triggerer.settings import TriggererSettings
from support.consumers import start_consumer
from support.triggerer import RunningTriggerer, TriggererHarness, TriggerSource

PLUGIN = Path(__file__).parents[2] / "plugins" / "psf-test-triggers"
QUICK = TriggererSettings(
    heartbeat_seconds=0.1, silent_seconds=3.0, sweep_seconds=30.0, drain_seconds=0.1
)
_names = count(1)


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    """Make the triggers of a third party importable, as if they were installed."""
    monkeypatch.syspath_prepend(str(PLUGIN))


@pytest.fixture
def facts():
    """Log events; structlog's own fixture misses loggers that are bound already."""
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.fixture
async def source(tmp_path, anyio_backend):
    async with TriggerSource(str(tmp_path / "s")).serving() as source:
        yield source


@pytest.fixture
async def harness(database, bus, nats, source, plugin):
    async with AsyncExitStack() as stack:
        manager_bus = await stack.enter_async_context(Bus.connect(nats))
        fork_server = await stack.enter_async_context(ForkServer.start(preload=()))
        group = await stack.enter_async_context(anyio.create_task_group())
        found = TriggererHarness(database, bus, fork_server, source, group)
        stopping = anyio.Event()
        await start_consumer(
            group,
            manager_bus,
            stopping,
            stream=STREAM_IN,
            durable="managers",
            filter_subject="psf.in.fired.>",
            deliver=found.receive,
        )
        group.start_soon(found.keep_answering)
        yield found
        stopping.set()
        group.cancel_scope.cancel()


@pytest.fixture
async def run_triggerer(harness, nats):
    """Run a triggerer; it is stopped at the end of the test."""
    running = []
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(anyio.create_task_group())

        async def start(database=None, connections=None, **changes):
            name = f"triggerer-{next(_names)}"
            bus = await stack.enter_async_context(Bus.connect(nats))
            triggerer = Triggerer(
                leases=TriggerLeases(database or harness.database, name),
                bus=bus,
                fork_server=harness.fork_server,
                name=name,
                settings=msgspec.structs.replace(QUICK, **changes),
                connections=connections,
            )
            found = RunningTriggerer(triggerer, name)
            running.append(found)
            await group.start(found.run)
            return found

        yield start
        for each in running:
            each.stopping.set()
        for each in running:
            with anyio.move_on_after(10):
                await each.stopped.wait()
        group.cancel_scope.cancel()
