"""A real API server of Airflow is watched and posted to."""

import os
import socket
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.airflow.observe import AirflowAssetEvents, AirflowRuns, PostAssetEvents
from pubsubflow.airflow.observe.api import AirflowApi
from pubsubflow.testing import TrialContext, first_events
from support.airflow import SECONDS, airflow_python
from support.signals import Signal

pytestmark = [pytest.mark.anyio, pytest.mark.soak]
FILE = """
from airflow.sdk import Asset, dag, task

@dag(schedule=None)
def produce():
    @task(outlets=[Asset("s3://lake/orders")])
    def orders():
        pass

    orders()

produce()

@dag(schedule=[Asset("s3://lake/bills")])
def consume():
    @task
    def bills():
        pass

    bills()

consume()
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "dags").mkdir()
    (home / "dags" / "both.py").write_text(FILE)
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "PATH": f"{Path(airflow_python()).parent}:{os.environ['PATH']}",
    }


@pytest.fixture(scope="module")
def url(environment):
    for words in (["db", "migrate"], ["dags", "reserialize"]):
        done = subprocess.run(
            ["airflow", *words], env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    port = str(free_port())
    command = ["airflow", "api-server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
async def connections(url):
    def token():
        try:
            with urllib.request.urlopen(f"{url}/auth/token") as answer:
                return msgspec.json.decode(answer.read())["access_token"]
        except OSError:
            return None

    async def ready():
        return await anyio.to_thread.run_sync(token)

    found = await Signal().wait_until(ready, seconds=SECONDS, poll_seconds=0.5)
    return {"airflow": {"kind": "http", "uri": url, "secrets": {"token": found}}}


async def test_events_go_both_ways(connections, environment):
    since = datetime.now(UTC) - timedelta(minutes=1)
    with DAG("tell", schedule=Dataset("s3://here/bills")) as dag:
        PostAssetEvents(task_id="post", asset="s3://lake/bills")

    def post():
        return dag.test(events=[("s3://here/bills", {"rows": 3})], connections=connections)

    done = await anyio.to_thread.run_sync(post)
    assert done.state == "success", done.tasks["post"][0].error
    command = ["airflow", "dags", "test", "produce"]
    await anyio.run_process(command, env=environment)
    orders = AirflowAssetEvents(asset="s3://lake/orders", since=since)
    (event,) = await first_events(orders, 1, ctx=TrialContext(connections=connections))
    assert event.payload["airflow"]["dag_id"] == "produce"
    assert event.payload["airflow"]["task_id"] == "orders"
    runs = AirflowRuns(dag_id="produce", since=since)
    (ended,) = await first_events(runs, 1, ctx=TrialContext(connections=connections))
    assert ended.payload["state"] == "success"
    # Ours is there, and does not come back.
    async with AirflowApi(await TrialContext(connections=connections).connection("airflow")) as api:
        number = await api.asset_id("s3://lake/bills")
        (posted,) = await api.asset_events(number, since)
    assert posted["extra"]["rows"] == 3
