"""A whole daemon with `lineage.url` set sends events of what its own workers ran."""

import aiohttp
import anyio
import msgspec
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.config import Config
from pubsubflow.daemon import Daemon
from pubsubflow.lineage import LineageSettings
from pubsubflow.loader import LoaderSettings
from pubsubflow.roles import ROLES
from pubsubflow.worker import WorkerSettings
from support.lineage import summaries

pytestmark = pytest.mark.anyio

FILE = """
from pubsubflow import Context, Dataset, dag, task

orders = Dataset("s3://lake/orders")
report = Dataset("postgres://warehouse:5432/sales/public/report")


@dag()
def ingest():
    @task(outlets=[orders])
    async def download(ctx: Context) -> int:
        return 42

    download()


@dag(schedule=orders)
def build():
    @task(inlets=["s3://lake/rates"], outlets=[report])
    def aggregate(ctx: Context) -> None:
        print(len(ctx.events[orders]))

    aggregate()
"""


async def test_a_daemon_sends_events_of_what_its_workers_ran(endpoint, tmp_path, fresh_home):
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "sales.py").write_text(FILE)
    config = Config(
        home=fresh_home(tmp_path / "home"),
        api=ApiSettings(port=0),
        loader=LoaderSettings(slow_seconds=30.0),
        worker=WorkerSettings(run_as=""),
        lineage=LineageSettings(url=endpoint.url),
    )
    stop = anyio.Event()
    async with (
        Daemon.build(config, roles=ROLES, dags=dags, embedded=True) as daemon,
        anyio.create_task_group() as group,
    ):
        await group.start(daemon.run, stop)
        async with aiohttp.ClientSession() as session:
            url = f"{daemon.url}/api/v1/dags/ingest/runs"
            async with session.post(url, json={}) as response:
                assert response.status == 201
                run_id = msgspec.json.decode(await response.read())["run_id"]
        first = await endpoint.end_of(run_id)
        await endpoint.until(lambda: _run_of(endpoint, "build"))
        second = await endpoint.end_of(_run_of(endpoint, "build"))
        stop.set()
    orders, report = "s3://lake|orders", "postgres://warehouse:5432|sales.public.report"
    assert summaries(first)[2] == ("ingest.download", "COMPLETE", [], [orders])
    assert summaries(second)[2] == (
        "build.aggregate",
        "COMPLETE",
        ["s3://lake|rates", orders],
        [report],
    )


def _run_of(endpoint, dag_id):
    found = [event for event in endpoint.accepted if event["job"]["name"] == dag_id]
    return found[0]["run"]["runId"] if found else None
