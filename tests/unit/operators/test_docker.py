"""The Docker operator, against an engine that the test runs."""

import pytest

from pubsubflow import DAG
from pubsubflow.hooks.docker import check
from pubsubflow.operators import DockerOperator
from support.docker_engine import docker_engine

pytestmark = pytest.mark.anyio


async def run(made, **options):
    with DAG("tried") as dag:
        DockerOperator(task_id="run", connection="docker", **options)
    return await dag.atest(connections={"docker": made})


async def test_a_container_runs_and_its_last_line_is_the_result():
    async with docker_engine() as (engine, made):
        result = await run(
            made,
            image="there",
            command="echo {{ run.dag_id }}",
            memory="64m",
        )
        assert result.result("run") == "two"
        lines = [(line.stream, line.message) for line in result.tasks["run"][0].logs]
        assert ("stdout", "one") in lines
        assert ("stderr", "oops") in lines
        assert engine.calls == ["pull there:latest", "start", "wait", "remove"]
        spec = engine.containers["c0"]
        assert spec["Cmd"] == ["/bin/sh", "-c", "echo tried"]
        assert spec["HostConfig"] == {"Memory": 64 << 20}
        engine.exit_code = 137
        result = await run(made, image="here")
        assert "more memory" in result.tasks["run"][0].error.message
        engine.exit_code = 99
        result = await run(made, image="here")
        assert result.states["run"] == "skipped"


async def test_a_cancelled_task_stops_its_container():
    async with docker_engine() as (engine, made):
        engine.exit_code = None
        result = await run(made, image="here", timeout=0.3)
        assert result.states["run"] == "failed"
        assert engine.calls[-2:] == ["stop", "remove"]


async def test_an_engine_is_reached_over_a_unix_socket(tmp_path):
    async with docker_engine(str(tmp_path / "docker.sock")) as (engine, made):
        assert await check(made) == "Docker engine 29.0"
        result = await run(made, image="here")
        assert result.result("run") == "two"
        assert engine.calls == ["start", "wait", "remove"]
