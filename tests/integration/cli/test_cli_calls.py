"""Calls of DAGs through a daemon: results, failures, time limits, keys, callers that go away."""

from asyncio import gather

import anyio
import pytest
from aiohttp import ClientSession

from pubsubflow.client import Client, RequestFailed, RequestRefused

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(daemon_url):
    async with Client(daemon_url) as client:
        yield client


async def test_a_call_answers_with_the_result(client):
    answer = await client.call("doubled", params={"number": 21}, run_key="once")
    assert (answer.state, answer.result) == ("success", {"doubled": 42})
    again = await client.call("doubled", params={"number": 5}, run_key="once")
    assert (again.run_id, again.result) == (answer.run_id, answer.result)
    assert (await client.result(answer.run_id)).result == answer.result
    assert (await client.run(answer.run_id)).cause == "called through the API"
    assert (await client.call("squared")).result == [9, 1, 4]


async def test_the_same_key_of_a_request_is_answered_with_the_first_run(daemon_url):
    """Of calls and of plain starts; another body is refused, another DAG has keys of its own."""
    async with ClientSession(daemon_url) as session:

        async def post(path, body, key="k1"):
            url, headers = f"/api/v1/dags/{path}", {"Idempotency-Key": key}
            async with session.post(url, json=body, headers=headers) as answer:
                return answer.status, await answer.json()

        status, first = await post("doubled/call", {"params": {"number": 21}})
        assert (status, first["result"]) == (200, {"doubled": 42})
        again = {"timeout": 5, "cause": "again", "params": {"number": 21}}
        assert await post("doubled/call", again) == (200, first)
        assert await post("doubled/runs", {"params": {"number": 21}}) == (
            201,
            {"run_id": first["run_id"]},
        )
        status, problem = await post("doubled/call", {"params": {"number": 5}})
        assert (status, "came with another body" in problem["detail"]) == (422, True)
        status, other = await post("doubled/call", {"params": {"number": 5}}, "k2")
        assert (status, other["result"]) == (200, {"doubled": 10})
        assert (await post("doubled/call", {"params": {"nope": 5}}, "k3"))[0] == 422
        assert (await post("doubled/call", {"params": {"number": 5}}, "k3"))[0] == 200
        starts = [post("squared/runs", {}) for _ in range(5)]
        found = await gather(*starts)
        assert len({body["run_id"] for _, body in found}) == 1


async def test_a_failed_run_is_an_error_with_the_task_and_its_error(client):
    with pytest.raises(RequestFailed, match="ValueError: nothing to double") as failed:
        await client.call("doubled", params={"number": 0})
    problem = failed.value.problem
    assert (problem.status, problem.task, problem.error.type) == (424, "double", "ValueError")
    assert (await client.run(problem.run_id)).state == "failed"


async def test_when_the_time_is_over_the_run_goes_on_and_is_polled(client, daemon_url):
    answer = await client.call("doubled", params={"number": -2}, timeout_seconds=0.2)
    assert (answer.state, answer.result) == ("running", None)
    with anyio.move_on_after(0.2):  # a caller that goes away
        await client.call("doubled", params={"number": -2}, run_key="left", timeout_seconds=60)
    async with anyio.create_task_group() as group:
        found = []

        async def poll():
            found.append(await client.result(answer.run_id, timeout_seconds=30))

        group.start_soon(poll)
        await client.emit([{"dataset": "s3://calls/never"}])
    assert found[0].result == {"doubled": -4}
    left = await client.call("doubled", run_key="left")
    assert left.result == {"doubled": -4}


async def test_what_has_no_result_cannot_be_called(client):
    with pytest.raises(RequestRefused, match="DAG\\(result=…\\)"):
        await client.call("first")
    with pytest.raises(RequestRefused, match="nope"):
        await client.call("doubled", params={"nope": 1})


def test_the_command_prints_the_result_alone(psf):
    assert psf("dags", "call", "doubled", "-p", "number=4").json == {"doubled": 8}
    failed = psf("dags", "call", "doubled", "-p", "number=0")
    assert (failed.code, failed.err.count("\n")) == (1, 1)
    assert "nothing to double" in failed.err
    late = psf("dags", "call", "doubled", "-p", "number=-1", "--timeout", "0")
    assert late.code == 1
    assert "goes on" in late.out
