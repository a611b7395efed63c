"""`/metrics` of a whole daemon: what it says, and that the docs say the same."""

import re
from pathlib import Path

import aiohttp
import anyio
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from pubsubflow.api.server.metrics_server import MetricsServer
from pubsubflow.errors import ConfigError
from pubsubflow.metrics import ClusterMetrics
from pubsubflow.store.database import Database

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[3] / "docs" / "observability.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", flags=re.MULTILINE)
OPEN = "application/openmetrics-text; version=1.0.0"
DAGS = """
from pubsubflow import Context, Dataset, dag, task

a, b = Dataset("x://a"), Dataset("x://b")


@dag(schedule=a)
def first():
    @task(outlets=[b])
    async def emit():
        pass

    emit()


@dag(schedule=b)
def second():
    @task(retries=1)
    async def stumble(ctx: Context):
        if ctx.attempt == 1:
            raise ValueError("once")

    stumble()
"""


def table(text):
    """The metrics of a text as rows of the documentation: name, type, labels, what."""
    rows = []
    for family in read_open(text):
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        name = f"{family.name}_info" if family.type == "info" else name
        if not family.name.startswith("process_"):
            rows.append((name, family.type, labels, family.documentation))
    return rows


async def test_the_documentation_lists_what_a_daemon_exposes_and_nothing_else(daemon):
    async with daemon(DAGS, log_store="memory://logs") as client:
        text, kind = await client.text("/metrics", Accept=OPEN)
    assert kind.startswith(OPEN)
    exposed = {name: (kind, text) for name, kind, _, text in table(text)}
    listed = {name: (kind, text) for name, kind, _, text in ROW.findall(PAGE)}
    assert exposed == listed
    documented = {name: labels for name, _, labels, _ in ROW.findall(PAGE)}
    for name, _, labels, _ in table(text):
        assert labels <= set(re.findall(r"`(\w+)`", documented[name])), name


async def test_figures_follow_events_runs_and_tasks(daemon):
    async with daemon(DAGS, dag_labels=True) as client:
        await client.emit("x://a")
        with anyio.fail_after(120):
            while True:  # each question waits for the answer of Postgres and JetStream
                values = samples(await client.text("/metrics"))
                if values.get(("pubsubflow_run_seconds_count", "second", "success")) == 1:
                    break
        _, kind = await client.text("/metrics")
        assert kind.startswith("text/plain")
        await client.text("/no/such/place", status=404)
        values = samples(await client.text("/metrics"))
    assert values["pubsubflow_events_total", "outside"] == 1
    assert values["pubsubflow_events_total", "task"] == 1
    assert values["pubsubflow_runs_created_total", "first", "dataset"] == 1
    assert values["pubsubflow_event_to_run_seconds_count", "second"] == 1
    assert values["pubsubflow_task_seconds_count", "second", "up_for_retry"] == 1
    assert values["pubsubflow_task_seconds_count", "second", "success"] == 1
    assert values["pubsubflow_task_queue_seconds_count", "default"] >= 1
    assert values["pubsubflow_cluster_dags",] == 2
    assert values["pubsubflow_cluster_queue_messages", "managers", "PSF_IN"] == 0
    assert values["pubsubflow_nats_connected",] == 1
    assert values["pubsubflow_postgres_statement_seconds_count",] > 0
    assert values["pubsubflow_http_request_seconds_count", "GET", "none", "4xx"] == 1
    route = ("POST", "/api/v1/datasets/events", "2xx")
    assert values["pubsubflow_http_request_seconds_count", *route] == 1
    assert values["process_resident_memory_bytes",] > 0


def samples(answer):
    """The values of an answer by name and label values in the order of label names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in read_plain(answer[0])
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


async def test_metrics_of_the_cluster_are_read_once_in_a_while_and_never_stale(
    database, postgres, bus
):
    cluster = ClusterMetrics(bus=bus, database=database, refresh_seconds=3600)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(cluster.refresh)
    executed = count(database.metrics.acquire_seconds)
    await cluster.refresh()
    assert count(database.metrics.acquire_seconds) == executed

    async with Database.open(postgres) as other:
        eager = ClusterMetrics(bus=bus, database=other, refresh_seconds=0)
        await eager.refresh()
        assert "pubsubflow_cluster_tasks" in {figure.name for figure in eager}
    await eager.refresh()
    names = {figure.name for figure in eager}
    assert "pubsubflow_cluster_tasks" not in names
    assert "pubsubflow_cluster_queue_messages" in names


def count(histogram):
    return sum(sum(observed.counts) for _, observed in histogram.read())


async def test_a_port_for_scrapes_alone_requires_its_token(bus):
    async def expose(_):
        return b"figures", "text/plain"

    with pytest.raises(ConfigError, match=r"metrics\.token"):
        MetricsServer(host="0.0.0.0", port=0, token="", expose=expose)
    server = MetricsServer(host="127.0.0.1", port=0, token="s3cret", expose=expose)
    stopping = anyio.Event()
    async with anyio.create_task_group() as group, aiohttp.ClientSession() as session:
        await group.start(server.run, stopping)
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer s3cret"}, 200),
        ):
            async with session.get(f"{server.url}/metrics", headers=headers) as answer:
                assert answer.status == status
        async with session.get(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        stopping.set()


def test_the_example_rules_name_figures_that_there_are():
    (text,) = re.findall(r"```yaml\n(groups:.*?)```", PAGE, flags=re.DOTALL)
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    assert len(rules) >= 3
    listed = {name for name, *_ in ROW.findall(PAGE)}
    for rule in rules:
        used = set(re.findall(r"pubsubflow_\w+", rule["expr"]))
        assert used, rule
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} <= listed
        assert rule["annotations"]["summary"]
