"""A collector of traces, and whole daemons that tell it."""

from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest
from telemetry_rig import Collector

from pubsubflow.api import ApiSettings
from pubsubflow.config import Config
from pubsubflow.daemon import ROLES, Daemon
from pubsubflow.metrics import MetricsSettings
from pubsubflow.tracing import TracesSettings


@pytest.fixture
async def collector(anyio_backend):
    collector = Collector()
    async with collector.serving():
        yield collector


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """Run a daemon on DAGs given as text; one that is started again has the same home."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    dags = tmp_path / "dags"
    dags.mkdir()

    @asynccontextmanager
    async def running(text, *, endpoint="", roles=ROLES, **settings):
        (dags / "dags.py").write_text(text)
        config = Config(
            home=tmp_path / "home",
            api=ApiSettings(port=0),
            metrics=MetricsSettings(**{"refresh_seconds": 0.0, **settings}),
            traces=TracesSettings(endpoint=endpoint),
        )
        stop = anyio.Event()
        async with (
            Daemon.build(config, roles=roles, dags=dags, embedded=True) as built,
            aiohttp.ClientSession() as session,
            anyio.create_task_group() as group,
        ):
            await group.start(built.run, stop)
            yield Asker(built.url, session)
            stop.set()

    return running


class Asker:
    """Asks a daemon over HTTP."""

    def __init__(self, url, session):
        self.url = url
        self.session = session

    async def post(self, path, body, **headers):
        async with self.session.post(self.url + path, json=body, headers=headers) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def emit(self, dataset, **headers):
        return await self.post("/api/v1/datasets/events", {"dataset": dataset}, **headers)

    async def text(self, path, *, status=200, **headers):
        async with self.session.get(self.url + path, headers=headers) as response:
            assert response.status == status
            return await response.text(), response.headers["Content-Type"]
