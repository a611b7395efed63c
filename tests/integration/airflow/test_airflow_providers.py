"""Operators of Airflow's providers, through a real daemon, against what stands for their services.

Each stand-in refuses a request that is not as its service's documentation has it.
"""

import base64
import json
import os
import shutil
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.airflow import SECONDS, give_time, providers_python
from support.mysql import mysql_server
from support.services import chat, compute, engines
from support.services.front import Services
from support.signals import Signal

pytestmark = [pytest.mark.anyio, pytest.mark.soak]
DAGS = Path(__file__).with_name("providers") / "dags"
REGION = "eu-west-1"
DAG_COUNT = 12


class Surroundings:
    """All that the DAGs talk to."""

    def __init__(self, folder):
        self.databricks, self.snowflake, self.docker = (
            compute.Databricks(),
            compute.Snowflake(),
            engines.Docker(),
        )
        self.services = Services(
            {
                "slack.com": chat.slack,
                "www.slack.com": chat.slack,
                "hooks.slack.com": chat.slack_hooks,
                "events.pagerduty.com": chat.pagerduty,
                "api.datadoghq.com": chat.datadog,
                "shop.atlassian.net": chat.jira,
                compute.DATABRICKS_HOST: self.databricks,
                compute.SNOWFLAKE_HOST: self.snowflake,
            }
        )
        self.spark = engines.write_spark(folder)
        self.aws = self.queue = ""

    def client(self, service):
        keys = {"aws_access_key_id": "ann", "aws_secret_access_key": "aws-sesame"}
        return boto3.client(service, endpoint_url=self.aws, region_name=REGION, **keys)

    def connections(self):
        """Yield the connections of the DAGs: name, and what it is as JSON."""
        aws = {"region_name": REGION, "endpoint_url": self.aws}
        key = base64.b64encode(self.snowflake.key.encode()).decode()
        account = {"account": "shop", "region": "eu-west-1", "private_key_content": key}
        yield (
            "aws_default",
            {
                "conn_type": "aws",
                "login": "ann",
                "password": "aws-sesame",
                "extra": aws,
            },
        )
        yield "slack_api_default", {"conn_type": "slack", "password": chat.SLACK_TOKEN}
        yield (
            "slack_hook",
            {
                "conn_type": "slackwebhook",
                "password": f"https://hooks.slack.com{chat.SLACK_HOOK}",
            },
        )
        yield (
            "pagerduty_events_default",
            {
                "conn_type": "pagerduty_events",
                "password": chat.PAGERDUTY_KEY,
            },
        )
        yield "datadog_default", {"conn_type": "datadog", "extra": {"api_key": chat.DATADOG_KEY}}
        yield (
            "jira_default",
            {
                "conn_type": "jira",
                "host": "https://shop.atlassian.net",
                "login": chat.JIRA_PEOPLE[0],
                "password": chat.JIRA_PEOPLE[1],
            },
        )
        yield (
            "databricks_default",
            {
                "conn_type": "databricks",
                "host": compute.DATABRICKS_HOST,
                "password": compute.DATABRICKS_TOKEN,
            },
        )
        yield "snowflake_default", {"conn_type": "snowflake", "login": "ann", "extra": account}
        yield "spark_default", {"conn_type": "spark", "host": "local[2]"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("providers")


@pytest.fixture(scope="module")
def around(folder):
    """What the DAGs talk to, without the databases."""
    python = providers_python()
    found = Surroundings(folder)
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    try:
        found.aws = f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
        with found.services.running(folder) as env, found.docker.running() as docker:
            found.queue = found.client("sqs").create_queue(QueueName="rows")["QueueUrl"]
            found.variables = {"queue": found.queue}
            paths = os.pathsep.join((str(folder), os.environ["PATH"]))
            found.env = env | {"PATH": paths, "DOCKER_HOST": docker}
            found.python = python
            yield found
    finally:
        moto.stop()


@pytest.fixture(scope="module")
def url(folder, around, fresh_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__KIND", "airflow")
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__PYTHON", around.python)
        # Providers are slow to import: no process is to do that anew.
        patch.setenv("PUBSUBFLOW__BUNDLES__TEAM__AHEAD", "0")
        give_time(patch)
        for name, text in around.env.items():
            patch.setenv(name, text)
        for name, fields in around.connections():
            patch.setenv(f"PUBSUBFLOW_CONN_{name.upper()}", json.dumps(fields))
        for name, value in around.variables.items():
            patch.setenv(f"PUBSUBFLOW_VAR_{name.upper()}", value)
        shutil.copytree(DAGS, folder / "dags")
        with child_daemon(folder / "dags", home=fresh_home(folder / "home"), port=0) as started:
            yield started


@pytest.fixture
async def client(url):
    async with Client(url) as client:

        async def loaded():
            page = await client.dags()
            assert not page.import_errors
            return page if len(page.items) == DAG_COUNT else None

        await Signal().wait_until(loaded, seconds=SECONDS, poll_seconds=0.2)
        yield client


async def ended(client, dag_id):
    """Trigger a DAG; return task → state, and task → result."""
    run_id = await client.trigger(dag_id)
    await client.wait(run_id, timeout_seconds=SECONDS)
    tasks = [await client.task(run_id, each.task_id) async for each in client.tasks(run_id)]
    errors = [f"{each.task_id}: {each.error.message}" for each in tasks if each.error]
    return (
        {each.task_id: each.state for each in tasks},
        {each.task_id: each.result for each in tasks},
        errors,
    )


async def test_s3(client, around):
    states, results, errors = await ended(client, "s3")
    assert set(states.values()) == {"success"}, errors
    assert results["list"] == ["out/s3.csv"]
    found = around.client("s3").get_object(Bucket="lake", Key="out/s3.csv")
    assert found["Body"].read() == b"a,b\n1,2"


async def test_sqs(client, around):
    states, results, errors = await ended(client, "sqs")
    assert set(states.values()) == {"success"}, errors
    assert len(results["bodies"]) == 1
    left = around.client("sqs").receive_message(QueueUrl=around.queue)
    assert not left.get("Messages")


async def test_slack(client, around):
    states, _, errors = await ended(client, "slack")
    assert states == {"post": "success", "hook": "success"}, errors
    assert not around.services.wrong
    assert f"POST hooks.slack.com{chat.SLACK_HOOK}" in around.services.seen


async def test_jira(client, around):
    states, results, errors = await ended(client, "jira")
    assert states == {"issue": "success"}, errors
    assert results["issue"]["key"] == "OPS-24"
    assert not around.services.wrong


async def test_pagerduty(client, around):
    """By a hook, and by a notifier that a failure calls."""
    states, results, errors = await ended(client, "pagerduty")
    assert states == {"fails": "failed", "resolve": "success"}, errors
    assert results["resolve"] == "rows"
    assert around.services.seen.count("POST events.pagerduty.com/v2/enqueue") == 2
    assert not around.services.wrong


async def test_datadog(client, around):
    states, results, errors = await ended(client, "datadog")
    assert states == {"metric": "success"}, errors
    assert results["metric"] == ["ok", "ok"]
    assert not around.services.wrong


async def test_databricks(client, around):
    states, _, errors = await ended(client, "databricks")
    assert states == {"submit": "success"}, errors
    looks = f"GET {compute.DATABRICKS_HOST}/api/2.2/jobs/runs/get"
    assert around.services.seen.count(looks) >= 3
    assert not around.services.wrong


async def test_snowflake(client, around):
    states, _, errors = await ended(client, "snowflake")
    assert states == {"count": "success"}, errors
    assert f"POST {compute.SNOWFLAKE_HOST}/api/v2/statements" in around.services.seen
    assert not around.services.wrong


async def test_docker(client, around):
    states, results, errors = await ended(client, "docker")
    assert states == {"run": "success"}, errors
    assert results["run"] == "done"
    made = around.docker.made
    assert (made["Image"], made["Cmd"]) == ("shop/rows:1", ["count", "docker"])
    assert "TABLE=pet" in made["Env"]
    assert "DELETE /containers/c0ffee" in around.docker.calls


async def test_spark(client, around):
    states, _, errors = await ended(client, "spark")
    assert states == {"submit": "success"}, errors
    given, rest = json.loads(around.spark.read_text())
    assert given["--master"] == ["local[2]"]
    assert given["--conf"] == ["spark.executor.instances=2"]
    assert rest == ["/srv/rows.py", "--table", "spark"]


async def test_postgres(client, postgres):
    await _database(client, "postgres", postgres.url)


async def test_mysql(client, tmp_path):
    with mysql_server(tmp_path) as port:
        where = f"mysql://ann:mysql-sesame@127.0.0.1:{port}/shop"
        await _database(client, "mysql", f"{where}?client=mysql-connector-python")


async def _database(client, kind, uri):
    await client.set_connection(f"{kind}_default", uri=uri)
    states, results, errors = await ended(client, kind)
    assert set(states.values()) == {"success"}, errors
    assert results["rows"] == [[1, "rex"], [2, kind]]
