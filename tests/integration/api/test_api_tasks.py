"""Tasks of runs and their output."""

import json
import os
import signal

import aiohttp
import anyio
import pytest
import structlog
from api_rig import api_on, dag, task

from pubsubflow.api import ApiSettings
from pubsubflow.client.stream import Parser
from pubsubflow.manager import Manager
from pubsubflow.model.spec import Factor, RetryPolicy
from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.store.catalog import Catalog

pytestmark = pytest.mark.anyio


async def chain(rig, **more):
    await rig.load(
        dag(
            "d",
            task(0, "list", **more),
            task(1, "each", upstream=(0,), factors=(Factor("n", node=0),)),
            task(2, "sum.up", upstream=(1,), inputs=(1,)),
        )
    )
    return await rig.start("d")


async def test_tasks_show_also_before_they_start(rig):
    run_id = await chain(rig)
    tasks = (await rig.get(f"/api/v1/runs/{run_id}/tasks"))["items"]
    assert [(each["id"], each["state"]) for each in tasks] == [
        (f"{run_id}.list", "queued"),
        (f"{run_id}.each", "none"),
        (f"{run_id}.sum.up", "none"),
    ]
    await rig.finish(run_id, 0, value=[1, 2, 3])
    path = f"/api/v1/runs/{run_id}/tasks"
    tasks = (await rig.until(path, lambda page: len(page["items"]) == 5))["items"]
    assert [(each["task_id"], each["map_index"], each["state"]) for each in tasks] == [
        ("list", None, "success"),
        ("each", 0, "queued"),
        ("each", 1, "queued"),
        ("each", 2, "queued"),
        ("sum.up", None, "none"),
    ]
    paged, after = [], ""
    while after is not None:
        page = await rig.get(f"{path}?limit=2{after}")
        paged += page["items"]
        after = page["next"] and f"&after={page['next']}"
    assert paged == tasks
    run = await rig.get(f"/api/v1/runs/{run_id}")
    assert run["tasks"] == {"success": 1, "queued": 3, "none": 1}


async def test_a_task_shows_its_result_its_error_and_its_attempts(rig):
    run_id = await chain(rig, retry=RetryPolicy(retries=1))
    error = TaskError("ValueError", "no", "line 1")
    await rig.finish(run_id, 0, outcome=Outcome.FAILED, error=error)
    path = f"/api/v1/tasks/{run_id}.list"
    shown = await rig.until(path, lambda shown: shown["attempt"] == 2)
    assert shown["state"] == "queued"
    (attempt,) = shown["attempts"]
    assert (attempt["attempt"], attempt["error"]["message"]) == (1, "no")
    await rig.finish(run_id, 0, attempt=2, value=[{"a": 1}])
    shown = await rig.until(path, lambda shown: shown["state"] == "success")
    assert (shown["result"], shown["length"]) == ([{"a": 1}], 1)
    await rig.finish(run_id, 1, map_index=0, outcome=Outcome.FAILED, error=error)
    shown = await rig.until(
        f"/api/v1/runs/{run_id}/tasks/each.0", lambda shown: shown["state"] == "failed"
    )
    assert shown["error"] == {
        "type": "ValueError",
        "message": "no",
        "traceback": "line 1",
        "final": False,
    }
    for missing in ("nobody", "each.7", "list.x", "sum"):
        await rig.get(f"/api/v1/runs/{run_id}/tasks/{missing}", status=404)
    await rig.get("/api/v1/tasks/nonsense", status=404)


async def lines(rig, path):
    async with rig.session.get(rig.url + path) as response:
        assert response.status == 200, await response.text()
        return [json.loads(line) async for line in response.content]


def messages(found):
    return [line["message"] for line in found]


async def test_output_is_that_of_the_latest_attempt_unless_another_is_asked_for(rig):
    run_id = await chain(rig, retry=RetryPolicy(retries=1))
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    assert await lines(rig, path) == []
    await rig.write(run_id, 0, 0, "one", "two")
    await rig.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    await rig.write(run_id, 0, 0, "three", attempt=2)
    await rig.finish(run_id, 0, attempt=2, value=[])
    await rig.wait(run_id, "success")
    found = await lines(rig, path)
    assert messages(found) == ["three"]
    assert (found[0]["attempt"], found[0]["stream"]) == (2, "stdout")
    assert messages(await lines(rig, f"{path}?attempt=1")) == ["one", "two"]
    assert messages(await lines(rig, f"/api/v1/tasks/{run_id}.list/logs?attempt=1")) == [
        "one",
        "two",
    ]
    assert await lines(rig, f"{path}?attempt=3") == []


async def test_followed_output_comes_in_order_while_it_is_written_through_attempts(rig):
    run_id = await chain(rig, retry=RetryPolicy(retries=1))
    path = f"{rig.url}/api/v1/runs/{run_id}/tasks/list/logs?follow=true"
    await rig.begin(run_id, 0)
    with anyio.fail_after(20):
        async with rig.session.get(path) as response:

            async def next_message():
                return json.loads(await response.content.readline())["message"]

            await rig.write(run_id, 0, 0, "a")
            assert await next_message() == "a"
            await rig.write(run_id, 0, 2, "c")
            await rig.write(run_id, 0, 1, "b")
            assert [await next_message(), await next_message()] == ["b", "c"]
            await rig.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
            await rig.write(run_id, 0, 0, "d", attempt=2)
            assert await next_message() == "d"
            await rig.write(run_id, 0, 2, "after a gap", attempt=2)
            await rig.finish(run_id, 0, attempt=2, value=[])
            assert await next_message() == "after a gap"
            assert await response.content.readline() == b""


async def test_following_a_task_that_never_starts_ends_with_its_run(rig):
    run_id = await chain(rig)
    path = f"/api/v1/runs/{run_id}/tasks/sum.up/logs?follow=true"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(lines, rig, path)
            await rig.post(f"/api/v1/runs/{run_id}/cancel", status=200)


async def test_following_one_attempt_ends_with_it(rig):
    run_id = await chain(rig, retry=RetryPolicy(retries=1))
    await rig.write(run_id, 0, 0, "one")
    await rig.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    path = f"/api/v1/runs/{run_id}/tasks/list/logs?follow=true&attempt=1"
    with anyio.fail_after(20):
        assert messages(await lines(rig, path)) == ["one"]


async def test_more_output_than_one_look_gives_comes_whole(rig):
    run_id = await chain(rig)
    for sequence in range(70):
        await rig.write(run_id, 0, sequence, f"line {sequence}")
    await rig.finish(run_id, 0, value=[])
    await rig.wait(run_id, "success")
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    whole = [f"line {sequence}" for sequence in range(70)]
    assert messages(await lines(rig, path)) == whole
    assert messages(await lines(rig, f"{path}?follow=true")) == whole


async def read_events(rig, url, last_id=None, *, until):
    """Take messages of a followed output until one of that event, which is not returned."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    parser, found = Parser(last_id), []
    with anyio.fail_after(20):
        async with rig.session.get(url, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            async for data in response.content.iter_any():
                for message in parser.feed(data):
                    if message.event == until:
                        return found
                    found.append(message)
                    if message.data.find(f'"message":"{until}"') > 0:
                        return found
    raise EOFError(found)


async def test_output_is_sent_as_events_that_one_can_go_on_after_at_any_daemon(serve, rig):
    run_id = await chain(rig, retry=RetryPolicy(retries=1))
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    await rig.begin(run_id, 0)
    await rig.write(run_id, 0, 0, "a", "b", "c")
    first = await read_events(rig, rig.url + path, until="b")
    await rig.write(run_id, 0, 1, "d")
    await rig.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    await rig.write(run_id, 0, 0, "e", attempt=2)
    await rig.finish(run_id, 0, attempt=2, value=[])
    async with serve() as (other, _):
        second = await read_events(rig, other.url + path, first[-1].id, until="end")
    said = [json.loads(message.data)["message"] for message in (*first, *second)]
    assert said == ["a", "b", "c", "d", "e"]
    assert await read_events(rig, rig.url + path, second[-1].id, until="end") == []


async def test_a_follower_may_leave_without_a_word_in_the_log(serve, rig):
    run_id = await chain(rig)
    await rig.write(run_id, 0, 0, "one")
    async with serve() as (api, _):
        path = f"{api.url}/api/v1/runs/{run_id}/tasks/list/logs?follow=true"
        with structlog.testing.capture_logs() as said, anyio.fail_after(20):
            others = set(api._bells._bells)
            async with rig.session.get(path) as response:
                await response.content.readline()
                response.close()
            while api._bells._bells - others:
                await rig.write(run_id, 0, 1, "two")
    assert [each for each in said if each["log_level"] in ("warning", "error")] == []


async def test_output_that_breaks_off_is_not_taken_for_whole(fragile, rig, bus):
    servers, database = fragile
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus, listens=False)
    api = api_on(manager, database, bus, ApiSettings(port=0))
    async with anyio.create_task_group() as group:
        await group.start(manager.run, stopping)
        await group.start(api.run, stopping)
        rig.url, rig.catalog = api.url, Catalog(database)
        run_id = await chain(rig)
        path = f"{api.url}/api/v1/runs/{run_id}/tasks/list/logs?follow=true"
        with anyio.fail_after(20):
            async with rig.session.get(path) as response:
                os.kill(servers.postgres_pid, signal.SIGKILL)
                with pytest.raises(aiohttp.ClientError):
                    await response.content.readline()
        stopping.set()
