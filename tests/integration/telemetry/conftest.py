"""A collector of traces, and whole daemons that send theirs to it."""

from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.config import Config
from pubsubflow.daemon import Daemon
from pubsubflow.loader import LoaderSettings
from pubsubflow.metrics import MetricsSettings
from pubsubflow.retention import LogStoreSettings
from pubsubflow.roles import ROLES
from pubsubflow.tracing import TracesSettings
from pubsubflow.worker import WorkerSettings
from support.daemon_client import DaemonClient
from support.traces import TraceCollector


@pytest.fixture
async def collector(anyio_backend):
    async with TraceCollector().serving() as collector:
        yield collector


@pytest.fixture
def daemon(tmp_path, fresh_home, monkeypatch):
    """Run a daemon on DAGs given as text; one that is started again has the same home."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    home, dags = fresh_home(tmp_path / "home"), tmp_path / "dags"
    dags.mkdir()

    @asynccontextmanager
    async def running(text, *, endpoint="", roles=ROLES, log_store="", **settings):
        (dags / "dags.py").write_text(text)
        config = Config(
            home=home,
            api=ApiSettings(port=0),
            loader=LoaderSettings(slow_seconds=30.0),
            worker=WorkerSettings(run_as=""),
            metrics=MetricsSettings(**{"refresh_seconds": 0.0, **settings}),
            traces=TracesSettings(endpoint=endpoint),
            logs=LogStoreSettings(store=log_store),
        )
        stop = anyio.Event()
        async with (
            Daemon.build(config, roles=roles, dags=dags, embedded=True) as built,
            aiohttp.ClientSession() as session,
            anyio.create_task_group() as group,
        ):
            await group.start(built.run, stop)
            yield DaemonClient(built.url, session)
            stop.set()

    return running
