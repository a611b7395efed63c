"""Traces: what led to a run, a task or an event, and what it has led to."""

import uuid

import pytest

from pubsubflow.model.schedule.conditions import DatasetInput, ScheduleSpec
from pubsubflow.model.wire.commands import StartingTask, StartRun
from pubsubflow.model.wire.messages import EmittedEvent
from support.specs import dag, task

pytestmark = pytest.mark.anyio

A, B, C = "s3://lake/a", "s3://lake/b", "s3://lake/c"
EVENTS = "/api/v1/datasets/events"


async def post(harness, dataset=A, **event):
    return (await harness.post(EVENTS, {"dataset": dataset, **event}))["ids"][0]


async def trace(harness, event=None, run=None, **query):
    path = f"{EVENTS}/{event}/trace" if event else f"/api/v1/runs/{run}/trace"
    return await harness.get(path, params=query)


def hops(found):
    """Return DAG or dataset → steps from the focus."""
    runs = {each["dag_id"]: each["hops"] for each in found["runs"]}
    return runs | {each["dataset"]: each["hops"] for each in found["events"]}


async def last_run(harness, dag_id):
    return (await harness.get(f"/api/v1/runs?dag={dag_id}"))["items"][0]["run_id"]


@pytest.fixture
async def chain(harness):
    """A → first → B → second, third, lazy (filtered), both (pending)."""
    filtered = ScheduleSpec(DatasetInput(0, B, where="event.extra.rows > 0"))
    await harness.load(
        dag("first", task("work", outlets=(B,)), on=[A]),
        dag("second", task("work"), on=[B]),
        dag("third", task("work"), on=[B]),
        dag("both", task("work"), on=[B, C]),
        dag("lazy", task("work"), schedule=filtered),
    )
    event = await post(harness)
    run = await last_run(harness, "first")
    await harness.begin(run, 0)
    await harness.finish(run, 0, emits=[EmittedEvent(B, {"rows": 0})])
    await harness.wait(run, "success")
    return event, run, await last_run(harness, "second")


async def test_causes_and_effects_are_those_of_the_whole_chain(harness, chain):
    event, run, second = chain
    found = await trace(harness, event)
    assert (found["kind"], found["id"], found["cut"]) == ("event", event, False)
    assert hops(found) == {A: 0, "first": 1, B: 2, "second": 3, "third": 3}
    emitted = found["events"][1]
    assert (emitted["run_id"], emitted["dag_id"], emitted["source"]) == (run, "first", "task")
    assert (emitted["task"]["task_id"], emitted["task"]["state"]) == ("work", "success")
    assert emitted["task"]["started_at"] <= emitted["task"]["ended_at"]
    assert emitted["consumers"] == {"running": 2}
    outcomes = {each["outcome"]: each for each in emitted["outcomes"]}
    assert outcomes["pending"]["dags"] == ["both"]
    assert (outcomes["filtered"]["dags"], outcomes["filtered"]["count"]) == (["lazy"], 1)
    assert outcomes["filtered"]["reason"] == "event.extra.rows > 0 is False"
    back = await trace(harness, run=second)
    assert hops(back) == {A: -3, "first": -2, B: -1, "second": 0}
    assert sorted((each["event_id"], each["run_id"]) for each in back["consumed"]) == sorted(
        [(event, run), (emitted["event_id"], second)]
    )
    middle = await trace(harness, run=run)
    assert hops(middle) == {A: -1, "first": 0, B: 1, "second": 2, "third": 2}
    (first,) = [each for each in middle["runs"] if each["run_id"] == run]
    assert (first["consumed"], first["emitted"], first["started"]) == (1, 1, 0)
    short = await trace(harness, event, effects=1)
    assert hops(short) == {A: 0, "first": 1}
    assert short["runs"][0]["emitted"] == 1  # so there is more to open


async def test_a_task_has_its_own_effects_alone(harness):
    await harness.load(
        dag("two", task("a", outlets=(A,)), task("b", outlets=(B,))), dag("on_a", task("w"), on=[A])
    )
    run = await harness.start("two")
    await harness.begin(run, 0)
    await harness.finish(run, 0, emits=[A])
    await harness.begin(run, 1)
    await harness.finish(run, 1, emits=[B])
    await harness.wait(run, "success")
    assert hops(await trace(harness, run=run)) == {"two": 0, A: 1, B: 1, "on_a": 2}
    found = await trace(harness, run=run, task="a")
    assert hops(found) == {"two": 0, A: 1, "on_a": 2}
    assert (found["task"]["task_id"], found["runs"][0]["emitted"]) == ("a", 1)
    await harness.get(f"/api/v1/runs/{run}/trace?task=c", status=404)


async def test_runs_that_tasks_started_are_effects(harness, manager):
    await harness.load(dag("starts", task("call")), dag("called", task("work")))
    run = await harness.start("starts")
    by = StartingTask(run, "starts", "call", ())
    called = await manager.execute(StartRun("called", {}, started_by=by, cause=by.cause))
    found = await trace(harness, run=run)
    assert hops(found) == {"starts": 0, "called": 1}
    (effect,) = [each for each in found["runs"] if each["run_id"] == called]
    assert (effect["started_by"]["run_id"], effect["starter"]["task_id"]) == (run, "call")
    assert hops(await trace(harness, run=called)) == {"starts": -1, "called": 0}
    assert [each["started"] for each in found["runs"]] == [1, 0]


async def test_an_event_with_many_consumers_is_bounded_and_shows_failures_first(harness):
    names = [f"d{number:02}" for number in range(30)]
    await harness.load(*(dag(name, task("work"), on=[A]) for name in names))
    event = await post(harness)
    failed = await last_run(harness, "d29")
    await harness.begin(failed, 0)
    await harness.fail(failed, 0)
    await harness.wait(failed, "failed")
    found = await trace(harness, event, breadth=5)
    assert found["runs"][0]["dag_id"] == "d29"
    assert len(found["runs"]) == len(found["consumed"]) == 5
    assert found["events"][0]["consumers"] == {"running": 29, "failed": 1}
    seen = {each["run_id"] for each in found["runs"]}
    for skip in range(5, 30, 5):
        more = await trace(harness, event, breadth=5, skip=skip, causes=0, effects=1)
        seen |= {each["run_id"] for each in more["runs"]}
    assert len(seen) == 30
    assert (await trace(harness, event, skip=30, causes=0))["runs"] == []
    await harness.get(f"{EVENTS}/{event}/trace?skip=1", status=422)
    await harness.get(f"{EVENTS}/{uuid.uuid4()}/trace", status=404)


async def test_what_was_pruned_is_said(harness, chain, database):
    _, run, second = chain
    async with database.connection() as connection:
        await connection.execute("DELETE FROM run WHERE run_id = $1::uuid", run)
    found = await trace(harness, run=second)
    assert hops(found) == {B: -1, "second": 0}
    assert found["events"][0]["pruned"]
    async with database.connection() as connection:
        await connection.execute("DELETE FROM event WHERE run IS NOT NULL")
    found = await trace(harness, run=second)
    assert hops(found) == {"second": 0}
    assert (found["runs"][0]["consumed"], found["runs"][0]["consumed_pruned"]) == (1, 1)
