"""Runs: asked for, listed, waited for, cancelled, explained."""

import aiohttp
import anyio
import pytest

from pubsubflow.model.wire.messages import EmittedEvent, Outcome, TaskError
from pubsubflow.wakeup import RunEnds
from support.api import ApiHarness
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
LANDING, HOURS, MONTHS, WEATHER = (f"s3://lake/{name}" for name in ("in", "hours", "m", "w"))


async def test_a_run_is_requested_with_params_and_a_key(harness):
    await harness.load(dag("d", task("work"), params={"day": 1}))
    body = {"params": {"day": 2}, "run_key": "k", "logical_time": "2026-11-20T12:00:00+01:00"}
    run_id = await harness.start("d", **body)
    assert await harness.start("d", **body) == run_id
    run = await harness.get(f"/api/v1/runs/{run_id}")
    assert (run["state"], run["params"], run["run_key"]) == ("running", {"day": 2}, "k")
    assert run["logical_time"] == "2026-11-20T11:00:00Z"
    assert run["cause"] == "requested through the API"
    assert run["tasks"] == {"queued": 1}


async def test_a_run_without_a_body_has_the_default_params(harness):
    await harness.load(dag("d", task("work"), params={"day": 1}))
    answer = await harness.request("POST", "/api/v1/dags/d/runs", status=201)
    assert (await harness.get(f"/api/v1/runs/{answer['run_id']}"))["params"] == {"day": 1}


async def test_params_that_do_not_fit_are_422_and_no_run_exists(harness):
    await harness.load(dag("d", task("work"), params={"day": 1}))
    await harness.post("/api/v1/dags/d/runs", {"params": {"night": 1}}, status=422)
    await harness.post("/api/v1/dags/d/runs", {"params": {"day": 2**70}}, status=422)
    await harness.post("/api/v1/dags/d/runs", {"colour": 1}, status=422)
    await harness.post("/api/v1/dags/nobody/runs", {}, status=404)
    assert (await harness.get("/api/v1/runs"))["items"] == []


async def test_runs_page_newest_first_by_dag_and_state(harness):
    await harness.load(dag("a", task("work"), max_active_runs=1), dag("b", task("work")))
    ids = [await harness.start("a") for _ in range(3)] + [
        await harness.start("b") for _ in range(2)
    ]
    await harness.finish(ids[4], 0)
    await harness.wait(ids[4], "success")

    async def listed(question):
        found, after = [], ""
        while after is not None:
            page = await harness.get(f"/api/v1/runs?limit=2&{question}" + after)
            found += [run["run_id"] for run in page["items"]]
            after = page["next"] and f"&after={page['next']}"
        return found

    assert await listed("") == ids[::-1]
    assert await listed("dag=a") == ids[2::-1]
    assert await listed("state=queued") == ids[2:0:-1]
    assert await listed("state=running") == [ids[3], ids[0]]
    assert await listed("state=running&dag=b") == [ids[3]]
    assert await listed("state=success") == [ids[4]]
    assert await listed("state=success&dag=a") == []
    await harness.get("/api/v1/runs?dag=nobody", status=404)


@pytest.mark.parametrize(
    "question",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=done",
        "state=null",
        "after=NULL",
        "after=x",
        "dags=a",
    ],
)
async def test_a_question_that_makes_no_sense_is_400(harness, question):
    await harness.get(f"/api/v1/runs?{question}", status=400)


async def test_a_wait_ends_with_its_run(harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d")
    now = await harness.get(f"/api/v1/runs/{run_id}/wait?timeout=0")
    assert now["state"] == "running"
    async with anyio.create_task_group() as group:
        group.start_soon(harness.wait, run_id, "failed")
        await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=TaskError("E", "no"))
    await harness.get(f"/api/v1/runs/{run_id}/wait?timeout=301", status=400)
    await harness.get("/api/v1/runs/nonsense/wait", status=404)


async def test_a_run_is_cancelled_once(harness):
    await harness.load(dag("d", task("work"), max_active_runs=1))
    running, queued = await harness.start("d"), await harness.start("d")
    for run_id in (queued, running):
        run = await harness.post(f"/api/v1/runs/{run_id}/cancel", {"reason": "enough"}, status=200)
        assert (run["state"], run["error"]) == ("cancelled", "enough")
        await harness.request("POST", f"/api/v1/runs/{run_id}/cancel", status=409)
    unknown = running[:-1] + ("0" if running[-1] != "0" else "1")
    await harness.request("POST", f"/api/v1/runs/{unknown}/cancel", status=404)


async def test_a_dag_is_paused_and_shown(harness):
    await harness.load(dag("d", task("first"), task("second", "first"), on=[LANDING, HOURS]))
    paused = await harness.request("PATCH", "/api/v1/dags/d", json={"paused": True})
    assert paused["paused"]
    await harness.post(EVENTS, [{"dataset": LANDING}, {"dataset": HOURS}])
    shown = await harness.get("/api/v1/dags/d")
    assert [each["dataset"] for each in shown["inputs"]] == [LANDING, HOURS]
    assert (await harness.get("/api/v1/dags/d/why-not"))["held_back"] == 2
    assert shown["schedule"] == f"{LANDING} & {HOURS}"
    assert [each["upstream"] for each in shown["graph"]] == [[], ["first"]]
    assert (await harness.get("/api/v1/runs"))["items"] == []
    await harness.request("PATCH", "/api/v1/dags/d", json={"paused": False})
    (run,) = (await harness.get("/api/v1/runs"))["items"]
    (listed,) = (await harness.get("/api/v1/dags"))["items"]
    assert listed["last_run"]["run_id"] == run["run_id"]
    assert (listed["active_runs"], listed["tasks"], listed["version"]) == (1, 2, 1)
    await harness.request("PATCH", "/api/v1/dags/d", json={"pause": True}, status=422)
    await harness.get("/api/v1/dags/nobody", status=404)


async def test_dags_page_and_files_that_cannot_be_imported_show(harness):
    await harness.load(*(dag(f"d{n}", task("work")) for n in range(3)))
    await harness.catalog.save(
        [loaded(file="d1.py", error="d1.py:3: NameError"), loaded(file="x.py", error="no")]
    )
    first = await harness.get("/api/v1/dags?limit=2")
    rest = await harness.get(f"/api/v1/dags?limit=2&after={first['next']}")
    dags = first["items"] + rest["items"]
    assert [each["dag_id"] for each in dags] == ["d0", "d1", "d2"]
    assert [each["import_error"] for each in dags] == [None, "d1.py:3: NameError", None]
    assert [each["file"] for each in first["import_errors"]] == ["d1.py", "x.py"]
    await harness.catalog.remove(["d2.py"])
    dags = (await harness.get("/api/v1/dags"))["items"]
    assert [bool(each["missing_since"]) for each in dags] == [False, False, True]
    assert (await harness.get("/api/v1/dags/d2"))["missing_since"]


async def test_a_run_is_explained_back_to_the_event_from_outside(harness):
    await harness.load(
        dag("ingest", task("load", outlets=(HOURS,)), on=[LANDING]),
        dag("months", task("count", outlets=(MONTHS,)), on=[HOURS]),
        dag("weather", task("count", outlets=(WEATHER,)), on=[HOURS]),
        dag("report", task("write"), on=[MONTHS, WEATHER]),
    )
    (landed,) = (await harness.post(EVENTS, {"dataset": LANDING, "extra": {"path": "x"}}))["ids"]

    async def run_of(dag_id):
        page = await harness.get_until(f"/api/v1/runs?dag={dag_id}", lambda page: page["items"])
        return page["items"][0]["run_id"]

    ids = {"ingest": await run_of("ingest")}
    await harness.finish(ids["ingest"], 0, emits=[EmittedEvent(HOURS, {"rows": 5})])
    for name in ("months", "weather"):
        ids[name] = await run_of(name)
        await harness.finish(ids[name], 0)
    ids["report"] = await run_of("report")
    reply = await harness.get(f"/api/v1/runs/{ids['report']}/explain")
    assert reply["runs"][0]["run"]["dag_id"] == "report"
    assert {(step["depth"], step["run"]["run_id"]) for step in reply["runs"]} == {
        (0, ids["report"]),
        (1, ids["months"]),
        (1, ids["weather"]),
        (2, ids["ingest"]),
    }
    consumed = {
        step["run"]["dag_id"]: {
            (each["dataset"], each["dag_id"], each["task_id"], each["run_id"])
            for each in step["events"]
        }
        for step in reply["runs"]
    }
    hours = (HOURS, "ingest", "load", ids["ingest"])
    assert consumed == {
        "report": {
            (MONTHS, "months", "count", ids["months"]),
            (WEATHER, "weather", "count", ids["weather"]),
        },
        "months": {hours},
        "weather": {hours},
        "ingest": {(LANDING, None, None, None)},
    }
    origin = reply["runs"][-1]["events"][0]
    assert (origin["event_id"], origin["extra"]) == (landed, {"path": "x"})
    assert reply["complete"] is True


async def test_an_explanation_of_many_events_and_long_ways_is_cut_and_says_so(harness):
    await harness.load(
        dag("ping", task("work", outlets=(HOURS,)), on=[LANDING]),
        dag("pong", task("work", outlets=(LANDING,)), on=[HOURS]),
    )
    await harness.request("PATCH", "/api/v1/dags/ping", json={"paused": True})
    await harness.post(EVENTS, [{"dataset": LANDING}] * 3)
    await harness.request("PATCH", "/api/v1/dags/ping", json={"paused": False})
    last = None
    for _ in range(105):
        page = await harness.get_until(
            "/api/v1/runs?state=running&limit=1",
            lambda page, last=last: page["items"] and page["items"][0]["run_id"] != last,
        )
        last = page["items"][0]["run_id"]
        await harness.finish(last, 0)
    await harness.wait(last, "success")
    reply = await harness.get(f"/api/v1/runs/{last}/explain")
    assert reply["complete"] is False
    assert len(reply["runs"]) == 100


@pytest.mark.parametrize("by", ["the manager of this daemon", "that of another one"])
async def test_a_call_is_answered_whoever_ends_its_run(serve, manager, database, bus, by):
    ends = manager.run_ends if by == "the manager of this daemon" else RunEnds()
    answers = {}
    async with serve(run_ends=ends) as (api, _), aiohttp.ClientSession() as session:
        harness = ApiHarness(api.url, session, bus, database)
        tasks = (task("first"), task("last", "first"))
        # The result comes with the run's end, or before it; that of None is none.
        await harness.load(*(dag(name, *tasks, result=name) for name in ("first", "last")))

        async def call(name):
            answers[name] = await harness.post(f"/api/v1/dags/{name}/call", {}, status=200)

        for name in ("first", "last"):
            async with anyio.create_task_group() as group:
                group.start_soon(call, name)
                run_id = await harness.until_value(
                    "SELECT run_id FROM run JOIN dag ON dag.id = run.dag WHERE dag_id = $1", name
                )
                await harness.finish(run_id, 0, value={"n": 1})
                await harness.finish(run_id, 1)
        assert not ends.waiting
    assert [answers[name]["result"] for name in ("first", "last")] == [{"n": 1}, None]
