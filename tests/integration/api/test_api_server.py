"""The server itself: health, problems, who may ask, starting and stopping."""

import os
import signal

import aiohttp
import anyio
import pytest

from pubsubflow.api import ApiSettings
from pubsubflow.errors import ConfigError
from pubsubflow.model.wire.protocol import PROTOCOL
from pubsubflow.store.migrate import known_schema
from support.api import api_on
from support.specs import dag, task

pytestmark = pytest.mark.anyio


async def test_health_needs_nothing_and_readiness_says_what_is_missing(serve, harness):
    assert await harness.get("/healthz") == {"status": "alive"}
    checks = {"postgres": True, "nats": True, "progress": True}
    answer = await harness.get("/readyz")
    assert (answer["ready"], answer["checks"]) == (True, checks)
    assert answer["intake"]["accepting"]
    async with serve(ready=lambda: {"dags": False}) as (api, _):
        harness.url = api.url
        answer = await harness.get("/readyz", status=503)
        assert (answer["ready"], answer["checks"]) == (False, {**checks, "dags": False})


async def test_readiness_is_the_age_of_the_oldest_thing_that_is_due(serve, harness, database, bus):
    """All connections are up, and nothing is done: a timer is late, a message is not stored."""
    async with serve(ApiSettings(port=0, max_overdue_seconds=5.0)) as (api, _):
        harness.url = api.url
        async with database.connection() as connection:
            late = "INSERT INTO timer (due_at, kind) VALUES (now() - interval '60 s', 'tick')"
            await connection.execute(late)
            answer = await harness.get("/readyz", status=503)
            assert answer["checks"] == {"postgres": True, "nats": True, "progress": False}
            assert 60 <= answer["oldest_seconds"]["timers"] < 600
            await connection.execute("UPDATE timer SET due_at = now() + interval '60 s'")
            answer = await harness.get("/readyz")
            assert answer["oldest_seconds"]["timers"] == 0
        async with anyio.create_task_group() as group:
            group.start_soon(bus.publish_durable, "no.stream.takes.this", b"")
            answer = await readiness(harness, 503)
            assert answer["oldest_seconds"]["publications"] >= 5
            group.cancel_scope.cancel()
        assert (await harness.get("/readyz"))["ready"]


async def test_without_postgres_answers_are_503_and_come_back(fragile, harness, manager, bus):
    servers, database = fragile
    stopping = anyio.Event()
    api = api_on(manager, database, bus, ApiSettings(port=0))
    async with anyio.create_task_group() as group:
        await group.start(api.run, stopping)
        harness.url = api.url
        os.kill(servers.postgres_pid, signal.SIGKILL)
        checks = (await readiness(harness, 503))["checks"]
        assert (checks["postgres"], checks["nats"]) == (False, True)
        async with harness.session.get(harness.url + "/api/v1/runs") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert response.content_type == "application/problem+json"
        await harness.get("/healthz")
        await group.start(servers.run, stopping)
        assert (await readiness(harness, 200))["ready"]
        await harness.get("/api/v1/runs")
        stopping.set()


async def readiness(harness, status):
    """Ask until the answer has a status."""
    with anyio.fail_after(20):
        while True:
            async with harness.session.get(harness.url + "/readyz") as response:
                if response.status == status:
                    return await response.json()


async def test_unknown_paths_and_methods_are_problems(harness):
    missing = await harness.get("/api/v1/nothing", status=404)
    assert missing["title"] == "Not Found"
    async with harness.session.delete(harness.url + "/api/v1/dags") as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]
        assert response.content_type == "application/problem+json"


async def test_pages_of_other_sites_and_names_are_refused(harness):
    host = harness.url.removeprefix("http://")
    await harness.get("/api/v1/runs", headers={"Origin": "https://evil.example"}, status=403)
    await harness.get("/api/v1/runs", headers={"Host": "evil.example"}, status=403)
    await harness.get("/api/v1/runs", headers={"Origin": harness.url})
    await harness.get("/api/v1/runs", headers={"Host": host.replace("127.0.0.1", "localhost")})


async def test_info_shows_what_runs(harness):
    info = await harness.get("/api/v1/info")
    assert info["version"]
    assert info["workers"] == []
    assert (info["protocol"], info["schema"]) == (PROTOCOL, known_schema())


async def test_dead_letters_are_listed(harness, database):
    async with database.connection() as connection:
        for n in range(3):
            await connection.execute(
                "INSERT INTO dead_letter (kind, subject, payload, reason)"
                " VALUES ('message', $1, $2, $3)",
                f"s{n}",
                b"abc",
                "no",
            )
    first = await harness.get("/api/v1/dead-letters?limit=2")
    rest = await harness.get(f"/api/v1/dead-letters?limit=2&after={first['next']}")
    assert [each["subject"] for each in first["items"] + rest["items"]] == ["s2", "s1", "s0"]


async def test_a_taken_port_is_named_with_what_to_do(harness, manager, database, bus):
    port = int(harness.url.rpartition(":")[2])
    api = api_on(manager, database, bus, ApiSettings(port=port))
    with pytest.raises(ConfigError, match=rf"port {port} .*--port"):
        await api.run(anyio.Event())


async def test_stopping_lets_those_who_wait_go(serve, harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d")
    async with serve() as (api, stopping):
        follow = f"{api.url}/api/v1/runs/{run_id}/tasks/work/logs?follow=true"
        with anyio.fail_after(3):
            async with harness.session.get(follow) as following:
                stopping.set()
                with pytest.raises(aiohttp.ClientError):  # nobody takes it for the end
                    await following.read()
