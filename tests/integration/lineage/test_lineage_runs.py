"""The events of runs of every kind."""

from uuid import uuid5

import pytest

from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.conditions import ScheduleSpec, Tick
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.spec import RetryPolicy, TriggerRule
from pubsubflow.model.wire.messages import Outcome
from support.lineage import at, summaries, tags
from support.specs import dag, task

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("lineage")]

LAKE = "s3://lake/orders"
TABLE = "postgres://warehouse/public/report"
LAKE_NAME = "s3://lake|orders"
TABLE_NAME = "postgres://warehouse:5432|public.report"


async def test_a_success_names_tasks_times_and_what_was_really_written(harness, endpoint):
    spec = dag(
        "ingest",
        task("download", inlets=("https://shop.example/orders",), outlets=(LAKE,), doc="Gets."),
        task("publish", "download", inlets=(LAKE,), outlet_patterns=("postgres://*/**",)),
        owner="team:data",
        tags=("daily", "money"),
        description="Orders.",
    )
    await harness.load(spec)
    run_id = await harness.start("ingest")
    await harness.finish(run_id, 0, started=10, ended=12)
    await harness.finish(run_id, 1, started=12, ended=15, emits=[TABLE, TABLE])
    events = await endpoint.end_of(run_id)
    shop = "https://shop.example|orders"
    assert summaries(events) == [
        ("ingest", "START", [], []),
        ("ingest.download", "START", [shop], []),
        ("ingest.download", "COMPLETE", [shop], [LAKE_NAME]),
        ("ingest.publish", "START", [LAKE_NAME], []),
        ("ingest.publish", "COMPLETE", [LAKE_NAME], [TABLE_NAME]),
        ("ingest", "COMPLETE", [], [LAKE_NAME, TABLE_NAME]),
    ]
    times = [event["eventTime"] for event in events[1:5]]
    assert times == [
        moment.isoformat().replace("+00:00", "Z") for moment in (at(10), at(12), at(12), at(15))
    ]
    job = events[2]["job"]["facets"]
    assert job["ownership"]["owners"] == [{"name": "team:data"}]
    assert [tag["key"] for tag in job["tags"]["tags"]] == ["daily", "money"]
    assert job["documentation"]["description"] == "Gets."
    assert job["jobType"]["jobType"] == "TASK"
    assert events[0]["job"]["facets"]["documentation"]["description"] == "Orders."
    parent = events[1]["run"]["facets"]["parent"]
    assert (parent["run"]["runId"], parent["job"]["name"]) == (str(run_id), "ingest")
    assert events[1]["run"]["runId"] == str(uuid5(run_id, "download/-1/1"))


async def test_a_start_is_sent_while_the_run_goes_on(harness, endpoint):
    await harness.load(dag("slow", task("wait")))
    run_id = await harness.start("slow")
    await endpoint.until(lambda: endpoint.of(run_id))
    await harness.finish(run_id, 0)
    events = await endpoint.end_of(run_id)
    assert [event["eventType"] for event in events if event["job"]["name"] == "slow"] == [
        "START",
        "COMPLETE",
    ]


async def test_a_failure_says_why_and_what_never_ran_is_aborted(harness, endpoint):
    await harness.load(dag("fails", task("read"), task("write", "read", outlets=(TABLE,))))
    run_id = await harness.start("fails")
    await harness.fail(run_id, 0)
    events = await endpoint.end_of(run_id)
    assert sorted(summaries(events)) == sorted(
        [
            ("fails", "START", [], []),
            ("fails.read", "START", [], []),
            ("fails.read", "FAIL", [], []),
            ("fails.write", "START", [], []),
            ("fails.write", "ABORT", [], []),
            ("fails", "FAIL", [], []),
        ]
    )
    failed = next(event for event in events if event["eventType"] == "FAIL")
    error = failed["run"]["facets"]["errorMessage"]
    assert error["message"] == "OSError: no space"
    assert error["stackTrace"] == "Traceback: here"
    aborted = next(event for event in events if event["eventType"] == "ABORT")
    assert tags(aborted)["state"] == "upstream_failed"


async def test_every_attempt_of_a_retried_task_is_a_run_of_its_own(harness, endpoint):
    retry = RetryPolicy(retries=2)
    await harness.load(dag("again", task("flaky", retry=retry, outlets=(LAKE,))))
    run_id = await harness.start("again")
    await harness.fail(run_id, 0, started=1, ended=2)
    await harness.fail(run_id, 0, attempt=2, message="still none", started=3, ended=4)
    await harness.finish(run_id, 0, attempt=3, started=5, ended=6)
    events = await endpoint.end_of(run_id)
    attempts = [event for event in events if event["job"]["name"] == "again.flaky"]
    assert [(event["eventType"], tags(event)["attempt"]) for event in attempts] == [
        ("START", "1"),
        ("FAIL", "1"),
        ("START", "2"),
        ("FAIL", "2"),
        ("START", "3"),
        ("COMPLETE", "3"),
    ]
    assert len({event["run"]["runId"] for event in attempts}) == 3
    assert [len(event["outputs"]) for event in attempts] == [0, 0, 0, 0, 0, 1]
    assert attempts[3]["run"]["facets"]["errorMessage"]["message"] == "OSError: still none"


async def test_instances_of_a_mapped_task_are_distinguished(harness, endpoint):
    mapped = task("part", over={"number": 3}, outlet_patterns=("x://*",))
    await harness.load(dag("maps", mapped))
    run_id = await harness.start("maps")
    for index in range(3):
        await harness.finish(run_id, 0, map_index=index, emits=[f"x://part-{index}"])
    events = await endpoint.end_of(run_id)
    ends = [
        event
        for event in events
        if event["job"]["name"] == "maps.part" and event["eventType"] == "COMPLETE"
    ]
    assert sorted((tags(end)["map_index"], end["outputs"][0]["namespace"]) for end in ends) == [
        (str(index), f"x://part-{index}") for index in range(3)
    ]
    assert len({end["run"]["runId"] for end in ends}) == 3


async def test_skipped_tasks_complete_and_write_nothing(harness, endpoint):
    await harness.load(
        dag(
            "skips",
            task("look", outlets=(LAKE,)),
            task("work", "look", outlets=(TABLE,)),
            task("report", "work", trigger_rule=TriggerRule.ALL_DONE),
        )
    )
    run_id = await harness.start("skips")
    await harness.finish(run_id, 0, outcome=Outcome.SKIPPED)
    await harness.finish(run_id, 2)
    events = await endpoint.end_of(run_id)
    ends = {event["job"]["name"]: event for event in events if event["eventType"] != "START"}
    assert {event["eventType"] for event in ends.values()} == {"COMPLETE"}
    assert not any(event["outputs"] for event in ends.values())
    assert tags(ends["skips.look"])["state"] == tags(ends["skips.work"])["state"] == "skipped"


async def test_a_cancelled_run_is_aborted_with_its_tasks(harness, endpoint):
    await harness.load(dag("stops", task("long"), task("never", "long")))
    run_id = await harness.start("stops")
    await harness.cancel(run_id)
    events = await endpoint.end_of(run_id)
    assert [(name, kind) for name, kind, *_ in summaries(events)] == [
        ("stops", "START"),
        ("stops.long", "START"),
        ("stops.long", "ABORT"),
        ("stops", "ABORT"),
    ]
    assert events[-1]["run"]["facets"]["errorMessage"]["message"] == "not wanted"


async def test_a_run_that_ended_without_a_start_is_sent_as_both(harness, endpoint):
    await harness.load(dag("line", task("long"), max_active_runs=1))
    first = await harness.start("line")
    second = await harness.start("line")
    await harness.cancel(second)
    await harness.publish_change(second, "line", RunState.CANCELLED)
    assert [kind for _, kind, *_ in summaries(await endpoint.end_of(second))] == ["START", "ABORT"]
    await harness.finish(first, 0)
    await endpoint.end_of(first)


async def test_datasets_that_a_run_consumed_go_into_it_and_into_its_first_tasks(harness, endpoint):
    await harness.load(
        dag("makes", task("make", outlets=("x://made",))),
        dag("takes", task("first"), task("second", "first"), on=("x://made", LAKE)),
    )
    await harness.post(LAKE)
    origin = await harness.start("makes")
    await harness.finish(origin, 0)
    run_id = await harness.run_of("takes")
    await harness.finish(run_id, 0, started=1, ended=2)
    await harness.finish(run_id, 1, started=3, ended=4)
    events = await endpoint.end_of(run_id)
    consumed = [LAKE_NAME, "x://made|/"]
    assert summaries(events) == [
        ("takes", "START", consumed, []),
        ("takes.first", "START", consumed, []),
        ("takes.first", "COMPLETE", consumed, []),
        ("takes.second", "START", [], []),
        ("takes.second", "COMPLETE", [], []),
        ("takes", "COMPLETE", consumed, []),
    ]
    (upstream,) = events[0]["run"]["facets"]["jobDependencies"]["upstream"]
    assert upstream["run"]["runId"] == str(origin)
    assert upstream["job"]["name"] == "makes"
    await endpoint.end_of(origin)


async def test_a_tick_is_the_nominal_time_of_its_run(harness, endpoint):
    schedule = ScheduleSpec(Tick(0, IntervalSpec(1.0)))
    await harness.load(dag("ticks", task("work"), schedule=schedule))
    run_id = await harness.run_of("ticks")
    await harness.finish(run_id, 0)
    events = await endpoint.end_of(run_id)
    logical = await harness.until_value("SELECT logical_time FROM run WHERE run_id = $1", run_id)
    for event in events:
        said = event["run"]["facets"]["nominalTime"]["nominalStartTime"]
        assert said == logical.isoformat().replace("+00:00", "Z")


async def test_a_manual_run_has_the_logical_time_that_was_requested(harness, endpoint):
    await harness.load(dag("manual", task("work", kind="empty", outlets=(LAKE,))))
    run_id = await harness.start("manual", logical_time=at(-86400))
    await harness.until_ended(run_id, RunState.SUCCESS)
    events = await endpoint.end_of(run_id)
    assert summaries(events) == [
        ("manual", "START", [], []),
        ("manual.work", "START", [], []),
        ("manual.work", "COMPLETE", [], [LAKE_NAME]),
        ("manual", "COMPLETE", [], [LAKE_NAME]),
    ]
    assert "nominalTime" in events[0]["run"]["facets"]
