"""Operators through a real daemon: other runs, SQL on PostgreSQL, an accepted request."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import asyncpg
import pytest
from aiohttp import web

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from pubsubflow.embedded import find_running
from support.docker_engine import docker_engine
from support.signals import Signal
from support.web_server import served

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("dags")


@pytest.fixture(scope="module")
def home(tmp_path_factory, fresh_home):
    return fresh_home(tmp_path_factory.mktemp("operators") / "home")


@pytest.fixture(scope="module")
def url(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW_CONN_FROM_ENV", "x://ann:hush-hush@elsewhere/")
        yield from serve(home)


def serve(home):
    with child_daemon(DAGS, home=home, port=0) as url:
        yield url


@pytest.fixture
async def client(url):
    async with Client(url) as client:
        yield client


async def ended(client, dag_id, **options):
    run_id = await client.trigger(dag_id, **options)
    return await client.wait(run_id, timeout_seconds=60)


async def only_task(client, run, task_id):
    return await client.task(run.run_id, task_id)


async def test_a_run_is_started_once_an_attempt_and_waited_for_without_a_slot(client, tmp_path):
    """The first child fails, so the second attempt starts another; the watcher sees a third."""
    async with anyio.create_task_group() as group:
        results = {}

        async def keep(name, dag_id, **options):
            results[name] = await ended(client, dag_id, **options)

        group.start_soon(keep, "parent", "parent")
        mark = {"params": {"mark": str(tmp_path / "mark")}}
        group.start_soon(lambda: keep("retried", "parent", **mark))
        group.start_soon(keep, "watcher", "watcher")
        group.start_soon(keep, "first", "starter")
        group.start_soon(keep, "lost", "lost")
    states = {name: run.state for name, run in results.items()}
    assert states == dict.fromkeys(results, "success") | {"lost": "failed"}
    again = await ended(client, "starter")
    assert again.state == "success"
    runs = [run async for run in client.runs(dag_id="child")]
    # One of parent, two of its other run, one of both starters' key.
    assert len(runs) == 4
    assert sorted(run.state for run in runs) == ["failed", "success", "success", "success"]
    lost = await client.task(results["lost"].run_id, "start")
    assert "no-such-dag" in lost.error.message


async def test_a_started_run_is_explained_back_to_its_origin(client):
    run = await ended(client, "grandparent")
    parent = (await client.task(run.run_id, "begin")).result
    child = (await client.task(parent, "start")).result
    found = await client.explain(child)
    assert found.ancestry == ["grandparent", "parent"]
    assert [step.run.run_id for step in found.runs] == [child, parent, run.run_id]
    origin = [
        step.started_by and (step.started_by.task_id, step.started_by.run_id, step.depth)
        for step in found.runs
    ]
    assert origin == [("start", parent, 0), ("begin", run.run_id, 1), None]


async def test_sql_runs_on_postgres_and_its_timeout_cancels(client, home):
    dsn = find_running(home).postgres.dsn
    await client.set_connection("warehouse", type="postgres", uri=dsn)
    tried = await client.test_connection("warehouse", seconds=30)
    assert tried.ok, tried
    run = await ended(client, "sql", params={"who": "o'hara"})
    assert run.state == "failed"
    read = await client.task(run.run_id, "read")
    assert read.state == "success", read
    slow = await client.task(run.run_id, "slow")
    assert "timeout" in slow.error.message


async def test_a_cancelled_task_cancels_its_statement_on_the_server(client, home):
    dsn = find_running(home).postgres.dsn
    await client.set_connection("warehouse", type="postgres", uri=dsn)
    run_id = await client.trigger("endless", params={"lock": 4711})
    postgres = await asyncpg.connect(dsn)

    async def sleeps():
        return await postgres.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'"
        )

    try:
        await Signal().wait_until(sleeps, poll_seconds=0.05)
        await client.cancel(run_id)
        # The lock is free when the task's transaction has ended.
        with anyio.fail_after(20):
            await postgres.execute("SELECT pg_advisory_lock(4711)")
        assert await sleeps() == 0
    finally:
        await postgres.close()
    assert (await client.wait(run_id, timeout_seconds=30)).state == "cancelled"


async def test_a_sensor_sees_the_run_of_its_logical_time_alone(client):
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for hours in (0, 2):
        await ended(client, "child", logical_time=noon + timedelta(hours=hours))
    run_id = await client.trigger("hour_later", logical_time=noon + timedelta(hours=2))
    # The run that it waits for is made after those of other times.
    wanted = await client.trigger("child", logical_time=noon + timedelta(hours=1))
    run = await client.wait(run_id, timeout_seconds=30)
    assert run.state == "success"
    assert (await client.task(run_id, "see")).result["run_id"] == wanted


async def test_a_container_whose_worker_died_is_adopted(client):
    async with docker_engine() as (engine, made):
        await client.set_connection("engine", type="docker", uri=made.uri)
        engine.exit_code = None
        run_id = await client.trigger("container")
        with anyio.fail_after(30):
            await engine.running.wait()
        (spec,) = engine.containers.values()
        engine.exit_code = 0
        os.kill(int(spec["Env"][-1].removeprefix("PID=")), signal.SIGKILL)
        run = await client.wait(run_id, timeout_seconds=30)
        engine.stopped.set()
        assert run.state == "success", await client.task(run_id, "run")
        assert len(engine.containers) == 1
        assert engine.calls == ["start", "start", "wait", "remove"]
        task = await client.task(run_id, "run")
        assert (task.result, task.attempt) == ("two", 1)


async def test_a_connection_comes_from_the_environment_of_the_daemon(client):
    run = await ended(client, "from_env")
    assert (await client.task(run.run_id, "host")).result == "ann@elsewhere"
    text = "".join([line.message async for line in client.logs(run.run_id, "host")])
    assert "x://ann:***@elsewhere" in text


async def test_an_accepted_request_is_waited_for(client):
    looks = []

    async def submit(_):
        return web.Response(status=202, headers={"Location": "jobs/1"})

    async def job(_):
        looks.append(1)
        return web.json_response({}) if len(looks) > 1 else web.Response(status=202)

    async with served(web.post("/submit", submit), web.get("/jobs/1", job)) as uri:
        await client.set_connection("http_default", type="http", uri=uri)
        run = await ended(client, "accepted")
    assert run.state == "success"
    assert len(looks) == 2
