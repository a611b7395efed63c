"""Tasks of runs and their output."""

import json
import os
import signal

import aiohttp
import anyio
import pytest
import structlog

from pubsubflow.api import ApiSettings
from pubsubflow.client.stream import EventStreamParser
from pubsubflow.manager import Manager
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.model.wire.task_resources import ResourcesSpec
from pubsubflow.store.catalog import Catalog
from support.api import api_on
from support.specs import dag, task

pytestmark = pytest.mark.anyio


async def chain(harness, **more):
    await harness.load(
        dag(
            "d",
            task("list", **more),
            task("each", over={"n": "list"}),
            task("sum.up", inputs=["each"]),
        )
    )
    return await harness.start("d")


WORKER = """
INSERT INTO worker (worker, host, pid, slots, busy, queues, free_sync, free_async)
VALUES ('w', 'h', 1, 4, 0, $1, $2, $2)
"""


async def test_a_task_that_no_worker_takes_says_why(harness, database):
    """In the task, in the run's explanation and in the DAG's why-not."""

    async def reasons():
        tasks = (await harness.get(f"/api/v1/runs/{run_id}/tasks"))["items"]
        shown = await harness.get(f"/api/v1/runs/{run_id}/tasks/train")
        explained = await harness.get(f"/api/v1/runs/{run_id}/explain")
        why_not = await harness.get("/api/v1/dags/d/why-not")
        assert shown["waits_for"] == tasks[0]["waits_for"]
        held = [each["text"] for each in why_not["reasons"] if each["kind"] == "unserved"]
        return shown["waits_for"], explained["waits"], held

    wanted = ResourcesSpec(memory=1 << 30, cpu=1.5)
    await harness.load(dag("d", task("train", queue="gpu", resources=wanted)))
    run_id = await harness.start("d")
    wait, explained, held = await reasons()
    assert wait.startswith("a worker, and none runs: start `pubsubflow up`")
    assert explained == [f"task train waits for {wait}"]
    assert held == [f"1 task of its runs waits for {wait}"]
    async with database.connection() as connection:
        await connection.execute(WORKER, ["default", "heavy"], 3)
        wait, explained, held = await reasons()
        assert wait.startswith(
            "a worker of queue gpu, and only default, heavy are served: start one"
        )
        assert (len(explained), len(held)) == (1, 1)
        await connection.execute("UPDATE worker SET queues = $1, free_async = 0", ["gpu"])
        wait, _, held = await reasons()
        assert wait == "a free slot for async tasks: 1 worker is busy on queue gpu"
        assert held == []
        await connection.execute("UPDATE worker SET free_async = 1")
        assert await reasons() == (None, [], [])
        await connection.execute("UPDATE worker SET cpu = 2, free_cpu = 0.5")
        wait, explained, held = await reasons()
        assert wait == "1.5 cpu; 0.5 free on worker w"
        assert explained == [f"task train waits for {wait}"]
        graph = (await harness.get("/api/v1/dags/d"))["graph"]
        assert graph[0]["resources"] == {"memory": 1 << 30, "cpu": 1.5}


async def test_a_queued_run_says_what_it_waits_for(harness):
    await harness.load(dag("d", task("work"), max_active_runs=1))
    await harness.start("d")
    second = await harness.start("d")
    explained = await harness.get(f"/api/v1/runs/{second}/explain")
    assert explained["waits"] == ["it waits for another run to end: max_active_runs=1"]


async def test_tasks_show_also_before_they_start(harness):
    run_id = await chain(harness)
    tasks = (await harness.get(f"/api/v1/runs/{run_id}/tasks"))["items"]
    assert [(each["id"], each["state"]) for each in tasks] == [
        (f"{run_id}.list", "queued"),
        (f"{run_id}.each", "none"),
        (f"{run_id}.sum.up", "none"),
    ]
    await harness.finish(run_id, 0, value=[1, 2, 3])
    path = f"/api/v1/runs/{run_id}/tasks"
    tasks = (await harness.get_until(path, lambda page: len(page["items"]) == 5))["items"]
    assert [(each["task_id"], each["map_index"], each["state"]) for each in tasks] == [
        ("list", None, "success"),
        ("each", 0, "queued"),
        ("each", 1, "queued"),
        ("each", 2, "queued"),
        ("sum.up", None, "none"),
    ]
    paged, after = [], ""
    while after is not None:
        page = await harness.get(f"{path}?limit=2{after}")
        paged += page["items"]
        after = page["next"] and f"&after={page['next']}"
    assert paged == tasks
    # By state and by task, in pages that are full: what does not fit is not read.
    for query, count in (
        ("state=queued", 3),
        ("state=none", 1),
        ("state=success&state=none", 2),
        ("task=each", 3),
        ("task=each&state=none", 0),
        ("task=sum.up&state=none", 1),
        ("task=nobody", 0),
    ):
        fitting, after = [], ""
        while after is not None:
            page = await harness.get(f"{path}?limit=2&{query}{after}")
            assert not page["next"] or len(page["items"]) == 2, query
            fitting += page["items"]
            after = page["next"] and f"&after={page['next']}"
        kept = [each for each in tasks if f"state={each['state']}" in query or "state" not in query]
        kept = [each for each in kept if f"task={each['task_id']}" in query or "task" not in query]
        assert (fitting, len(fitting)) == (kept, count), query
    run = await harness.get(f"/api/v1/runs/{run_id}")
    assert run["tasks"] == {"success": 1, "queued": 3, "none": 1}


async def test_a_task_shows_its_result_its_error_and_its_attempts(harness):
    run_id = await chain(harness, retry=RetryPolicy(retries=1))
    error = TaskError("ValueError", "no", "line 1")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=error)
    path = f"/api/v1/tasks/{run_id}.list"
    shown = await harness.get_until(path, lambda shown: shown["attempt"] == 2)
    assert shown["state"] == "queued"
    (attempt,) = shown["attempts"]
    assert (attempt["attempt"], attempt["error"]["message"]) == (1, "no")
    await harness.finish(run_id, 0, attempt=2, value=[{"a": 1}])
    shown = await harness.get_until(path, lambda shown: shown["state"] == "success")
    assert (shown["result"], shown["length"]) == ([{"a": 1}], 1)
    await harness.finish(run_id, 1, map_index=0, outcome=Outcome.FAILED, error=error)
    shown = await harness.get_until(
        f"/api/v1/runs/{run_id}/tasks/each.0", lambda shown: shown["state"] == "failed"
    )
    assert shown["error"] == {
        "type": "ValueError",
        "message": "no",
        "traceback": "line 1",
        "final": False,
    }
    for missing in ("nobody", "each.7", "list.x", "sum"):
        await harness.get(f"/api/v1/runs/{run_id}/tasks/{missing}", status=404)
    await harness.get("/api/v1/tasks/nonsense", status=404)


async def lines(harness, path):
    async with harness.session.get(harness.url + path) as response:
        assert response.status == 200, await response.text()
        return [json.loads(line) async for line in response.content]


def messages(found):
    return [line["message"] for line in found]


async def test_output_is_that_of_the_latest_attempt_unless_another_is_requested(harness):
    run_id = await chain(harness, retry=RetryPolicy(retries=1))
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    assert await lines(harness, path) == []
    await harness.write(run_id, 0, 0, "one", "two")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    await harness.write(run_id, 0, 0, "three", attempt=2)
    await harness.finish(run_id, 0, attempt=2, value=[])
    await harness.wait(run_id, "success")
    found = await lines(harness, path)
    assert messages(found) == ["three"]
    assert (found[0]["attempt"], found[0]["stream"]) == (2, "stdout")
    assert messages(await lines(harness, f"{path}?attempt=1")) == ["one", "two", "E: no"]
    assert messages(await lines(harness, f"/api/v1/tasks/{run_id}.list/logs?attempt=1")) == [
        "one",
        "two",
        "E: no",
    ]
    for missing in ("attempt=3", "attempt=0", "map_index=0"):
        await harness.get(f"{path}?{missing}", status=404)


async def test_output_is_read_by_the_numbers_of_its_lines_and_searched(harness):
    run_id = await chain(harness)
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    empty = {"attempt": 0, "total": 0, "first": 0, "whole": False, "items": []}
    assert await harness.get(f"{path}/lines") == empty | {"attempt": 1}
    for chunk in (0, 1, 3):  # that which is missing may still come
        await harness.write(run_id, 0, chunk, *(f"row {chunk} {each}" for each in range(3)))
    await harness.get_until(f"{path}/lines?first=4", lambda found: found["total"] == 6)
    await harness.write(run_id, 0, 2, "\x1b[31mEr\x1b[0mror: Größe = 3", 'says "no"')
    whole = await harness.get_until(f"{path}/lines", lambda found: found["total"] == 11)
    assert (whole["whole"], len(whole["items"])) == (False, 11)
    error = TaskError("E", "no", "Traceback\n  user\nE: no\n")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=error)
    await harness.wait(run_id, "failed")
    whole = await harness.get(f"/api/v1/tasks/{run_id}.list/logs/lines")
    assert [line["message"] for line in whole["items"][:2]] == ["row 0 0", "row 0 1"]
    assert [line["message"] for line in whole["items"][-2:]] == ["  user", "E: no"]
    assert (whole["total"], whole["whole"]) == (14, True)
    for first in range(16):
        for limit in (1, 2, 5, 20):
            found = await harness.get(f"{path}/lines?first={first}&limit={limit}")
            assert found["items"] == whole["items"][first : first + limit], (first, limit)
    assert (await harness.get(f"{path}/lines?last=4"))["items"] == whole["items"][-4:]
    for text, expected in (
        ("row", [*range(6), 8, 9, 10]),
        ("ROW 3", [8, 9, 10]),
        ("error:", [6]),  # a colour begins in the word
        ("größe%20=%203", [6]),
        ('"no"', [7]),
        ("e:%20no", [13]),
        ("nowhere", []),
        ("stdout", []),
    ):
        found = await harness.get(f"{path}/find?text={text}")
        assert (found["lines"], found["count"], found["total"]) == (expected, len(expected), 14), (
            text
        )
    found = await harness.get(f"{path}/find?text=row&limit=2")
    assert (found["lines"], found["count"]) == ([0, 1], 9)
    await harness.get(f"{path}/find", status=400)
    await harness.get(f"{path}/lines?first=1&last=1", status=422)
    await harness.get(f"{path}/lines?attempt=3", status=404)


async def test_the_log_of_a_task_ends_with_the_reason_why_it_ended(harness):
    run_id = await chain(harness)
    path = f"/api/v1/runs/{run_id}/tasks"
    await harness.write(run_id, 0, 0, "one")
    await harness.finish(run_id, 0, value=[1, 2])
    await harness.get_until(path, lambda page: len(page["items"]) == 4)
    assert messages(await lines(harness, f"{path}/list/logs")) == ["one"]
    problem = await harness.get(f"{path}/each/logs", status=422)
    assert "is mapped: give the map_index of one of its 2 instances" in problem["detail"]
    error = TaskError("E", "no", "Traceback\n  user\nE: no\n", False, "Traceback\n  all\nE: no\n")  # noqa: FBT003 - on the wire
    await harness.finish(run_id, 1, map_index=0, outcome=Outcome.FAILED, error=error)
    stopped = TaskError("TimeoutError", "timed out after 3 s", "Stopped here\n  line 7\n")
    await harness.finish(run_id, 1, map_index=1, outcome=Outcome.FAILED, error=stopped)
    await harness.wait(run_id, "failed")
    for query, middle in (("", "  user"), ("&full=true", "  all"), ("&follow=true", "  user")):
        found = await lines(harness, f"{path}/each/logs?map_index=0{query}")
        assert messages(found) == ["Traceback", middle, "E: no"]
        assert {line["stream"] for line in found} == {"error"}
    assert messages(await lines(harness, f"{path}/each.1/logs")) == [
        "Stopped here",
        "  line 7",
        "TimeoutError: timed out after 3 s",
    ]
    assert messages(await lines(harness, f"{path}/sum.up/logs")) == [
        "the task did not start: each has the state failed"
    ]


async def test_the_log_of_a_task_of_a_cancelled_run_ends_with_that(harness):
    run_id = await chain(harness)
    await harness.post(f"/api/v1/runs/{run_id}/cancel", {"reason": "enough"}, status=200)
    path = f"/api/v1/runs/{run_id}/tasks"
    assert messages(await lines(harness, f"{path}/list/logs")) == ["Cancelled: enough"]
    assert messages(await lines(harness, f"{path}/sum.up/logs")) == [
        "the task did not start: the run has the state cancelled"
    ]


async def test_followed_output_comes_in_order_while_it_is_written_through_attempts(harness):
    run_id = await chain(harness, retry=RetryPolicy(retries=1))
    path = f"{harness.url}/api/v1/runs/{run_id}/tasks/list/logs?follow=true"
    await harness.begin(run_id, 0)
    with anyio.fail_after(20):
        async with harness.session.get(path) as response:

            async def next_message():
                return json.loads(await response.content.readline())["message"]

            await harness.write(run_id, 0, 0, "a")
            assert await next_message() == "a"
            await harness.write(run_id, 0, 2, "c")
            await harness.write(run_id, 0, 1, "b")
            assert [await next_message(), await next_message()] == ["b", "c"]
            await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
            await harness.write(run_id, 0, 0, "d", attempt=2)
            assert await next_message() == "d"
            await harness.write(run_id, 0, 2, "after a gap", attempt=2)
            await harness.finish(run_id, 0, attempt=2, value=[])
            assert await next_message() == "after a gap"
            assert await response.content.readline() == b""


async def test_following_a_task_that_never_starts_ends_with_its_run(harness):
    run_id = await chain(harness)
    path = f"/api/v1/runs/{run_id}/tasks/sum.up/logs?follow=true"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(lines, harness, path)
            await harness.post(f"/api/v1/runs/{run_id}/cancel", status=200)


async def test_following_one_attempt_ends_with_it(harness):
    run_id = await chain(harness, retry=RetryPolicy(retries=1))
    await harness.write(run_id, 0, 0, "one")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    path = f"/api/v1/runs/{run_id}/tasks/list/logs?follow=true&attempt=1"
    with anyio.fail_after(20):
        assert messages(await lines(harness, path)) == ["one", "E: no"]


async def test_more_output_than_one_look_gives_comes_whole(harness):
    run_id = await chain(harness)
    for sequence in range(70):
        await harness.write(run_id, 0, sequence, f"line {sequence}")
    await harness.finish(run_id, 0, value=[])
    await harness.wait(run_id, "success")
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    whole = [f"line {sequence}" for sequence in range(70)]
    assert messages(await lines(harness, path)) == whole
    assert messages(await lines(harness, f"{path}?follow=true")) == whole


async def read_events(harness, url, last_id=None, *, until):
    """Take messages of a followed output until one of that event, which is not returned."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    parser, found = EventStreamParser(last_id), []
    with anyio.fail_after(20):
        async with harness.session.get(url, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            async for data in response.content.iter_any():
                for message in parser.feed(data):
                    if message.event == until:
                        return found
                    found.append(message)
                    if message.data.find(f'"message":"{until}"') > 0:
                        return found
    raise EOFError(found)


async def test_output_is_sent_as_events_that_one_can_go_on_after_at_any_daemon(serve, harness):
    run_id = await chain(harness, retry=RetryPolicy(retries=1))
    path = f"/api/v1/runs/{run_id}/tasks/list/logs"
    await harness.begin(run_id, 0)
    await harness.write(run_id, 0, 0, "a", "b", "c")
    first = await read_events(harness, harness.url + path, until="b")
    await harness.write(run_id, 0, 1, "d")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    await harness.write(run_id, 0, 0, "e", attempt=2)
    await harness.finish(run_id, 0, attempt=2, value=[])
    async with serve() as (other, _):
        second = await read_events(harness, other.url + path, first[-1].id, until="end")
    said = [json.loads(message.data)["message"] for message in (*first, *second)]
    assert said == ["a", "b", "c", "d", "e"]
    assert await read_events(harness, harness.url + path, second[-1].id, until="end") == []


async def test_a_follower_may_leave_without_a_word_in_the_log(serve, harness):
    run_id = await chain(harness)
    await harness.write(run_id, 0, 0, "one")
    async with serve() as (api, _):
        path = f"{api.url}/api/v1/runs/{run_id}/tasks/list/logs?follow=true"
        with structlog.testing.capture_logs() as said, anyio.fail_after(20):
            others = set(api._wakeups._wakeups)
            async with harness.session.get(path) as response:
                await response.content.readline()
                response.close()
            while api._wakeups._wakeups - others:
                await harness.write(run_id, 0, 1, "two")
    assert [each for each in said if each["log_level"] in ("warning", "error")] == []


async def test_output_that_breaks_off_is_not_taken_for_whole(fragile, harness, bus):
    servers, database = fragile
    stopping = anyio.Event()
    manager = Manager(database=database, bus=bus, listens=False)
    api = api_on(manager, database, bus, ApiSettings(port=0))
    async with anyio.create_task_group() as group:
        await group.start(manager.run, stopping)
        await group.start(api.run, stopping)
        harness.url, harness.catalog = api.url, Catalog(database)
        run_id = await chain(harness)
        path = f"{api.url}/api/v1/runs/{run_id}/tasks/list/logs?follow=true"
        with anyio.fail_after(20):
            async with harness.session.get(path) as response:
                os.kill(servers.postgres_pid, signal.SIGKILL)
                with pytest.raises(aiohttp.ClientError):
                    await response.content.readline()
        stopping.set()
