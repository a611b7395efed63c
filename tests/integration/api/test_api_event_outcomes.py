"""What became of every event, for each DAG that subscribes; and why runs exist."""

from datetime import UTC, datetime, timedelta

import pytest

from pubsubflow.model.schedule.conditions import AllOf, Batch, DatasetInput, ScheduleSpec
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.wire.messages import EmittedEvent
from support.specs import dag, task

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A, B, C = "s3://lake/a", "s3://lake/b", "s3://lake/c"


async def post(harness, **event):
    return (await harness.post(EVENTS, {"dataset": A, **event}))["ids"][0]


async def outcomes_of(harness, event_id):
    """Return DAG → what became of an event there."""
    (event,) = (await harness.get(EVENTS, params={"event": event_id}))["items"]
    assert event["event_id"] == event_id
    return {outcome["dag_id"]: outcome for outcome in event["fates"]}


async def test_each_subscribed_dag_has_an_outcome_of_an_event(harness):
    filtered = ScheduleSpec(DatasetInput(0, A, where="event.extra.rows > 0"))
    await harness.load(
        dag("both", task("work"), on=[A, B]),
        dag("filters", task("work"), schedule=filtered),
        dag("runs", task("work"), on=[A]),
        dag("other", task("work"), on=[C]),
    )
    event_id = await post(harness, extra={"rows": 0})
    found = await outcomes_of(harness, event_id)
    assert {name: outcome["fate"] for name, outcome in found.items()} == {
        "both": "pending",
        "filters": "filtered",
        "runs": "consumed",
    }
    assert found["filters"]["reason"] == "event.extra.rows > 0 is False"
    (run,) = (await harness.get("/api/v1/runs"))["items"]
    assert (found["runs"]["run_id"], found["runs"]["run_state"]) == (run["run_id"], "running")
    await harness.post(EVENTS, {"dataset": B})
    assert (await outcomes_of(harness, event_id))["both"]["fate"] == "consumed"


async def test_an_event_without_a_subscribed_dag_has_no_outcome(harness):
    assert await outcomes_of(harness, await post(harness)) == {}


async def test_an_event_from_before_the_subscription_was_not_looked_at(harness):
    event_id = await post(harness)
    await harness.load(dag("late", task("work"), on=[A]))
    assert (await outcomes_of(harness, event_id))["late"]["fate"] == "unseen"


async def test_what_a_paused_dag_holds_back_is_pending(harness):
    await harness.load(dag("d", task("work"), on=[A]))
    before = await post(harness)
    await harness.request("PATCH", "/api/v1/dags/d", json={"paused": True})
    event_id = await post(harness)
    held = (await outcomes_of(harness, event_id))["d"]
    assert (held["fate"], held["reason"]) == ("pending", "the DAG is paused")
    assert (await outcomes_of(harness, before))["d"]["fate"] == "consumed"
    await harness.request("PATCH", "/api/v1/dags/d", json={"paused": False})
    assert (await outcomes_of(harness, event_id))["d"]["fate"] == "consumed"


async def test_what_a_paused_dag_drops_is_skipped(harness):
    await harness.load(dag("d", task("work"), on=[A], on_pause="drop"))
    await harness.request("PATCH", "/api/v1/dags/d", json={"paused": True})
    found = (await outcomes_of(harness, await post(harness)))["d"]
    assert (found["fate"], found["reason"]) == ("skipped", "the DAG was paused")


async def test_an_event_that_was_too_old_is_expired(harness):
    condition = AllOf((DatasetInput(0, A, within_seconds=3600), DatasetInput(1, B)))
    await harness.load(dag("d", task("work"), schedule=ScheduleSpec(condition)))
    old = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    event_id = await post(harness, time=old)
    await post(harness)
    await harness.post(EVENTS, {"dataset": B})
    assert (await outcomes_of(harness, event_id))["d"]["fate"] == "expired"


async def test_the_partition_and_what_has_run_are_shown(harness):
    schedule = ScheduleSpec(DatasetInput(0, A), partitioning=Partitioning(again="never"))
    await harness.load(dag("d", task("work"), schedule=schedule))
    first, second = await post(harness, partition="eu"), await post(harness, partition="eu")
    consumed, skipped = (
        (await outcomes_of(harness, first))["d"],
        (await outcomes_of(harness, second))["d"],
    )
    assert (consumed["fate"], consumed["partition"]) == ("consumed", "eu")
    assert (skipped["fate"], skipped["reason"]) == ("skipped", "partition eu has run")


async def test_collected_and_queued_events_say_so(harness):
    batch = ScheduleSpec(DatasetInput(0, A), Batch(max_events=5, linger_seconds=600))
    await harness.load(
        dag("collects", task("work"), schedule=batch),
        dag("queues", task("work"), on=[A], max_active_runs=1),
    )
    await post(harness)
    found = await outcomes_of(harness, await post(harness))
    assert "collects events" in found["collects"]["reason"]
    assert "max_active_runs" in found["queues"]["reason"]
    assert [outcome["run_state"] for outcome in found.values()] == ["queued", "queued"]


async def test_an_event_whose_run_was_refused_is_dead(harness):
    await harness.load(
        dag("d", task("work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"})
    )
    found = (await outcomes_of(harness, await post(harness)))["d"]
    assert found["fate"] == "dead"
    assert "event.extra.n" in found["reason"]


async def test_the_list_of_events_pages_with_outcomes_and_without(harness):
    await harness.load(dag("d", task("work"), on=[A]))
    for _ in range(5):
        await post(harness)
    await harness.post(EVENTS, {"dataset": B})
    first = await harness.get(f"{EVENTS}?fate=true&limit=3")
    rest = await harness.get(f"{EVENTS}?fate=true&limit=9&after={first['next']}")
    assert [len(each["fates"]) for each in first["items"] + rest["items"]] == [0, 1, 1, 1, 1, 1]
    of_one = await harness.get(f"{EVENTS}?fate=true&dataset={B}")
    assert [each["fates"] for each in of_one["items"]] == [[]]
    assert "fates" not in (await harness.get(EVENTS))["items"][0]
    await harness.get(f"{EVENTS}?event=00000000-0000-0000-0000-000000000000", status=404)


async def test_an_explanation_shows_inputs_partitions_and_the_ancestry(harness):
    await harness.load(
        dag("first", task("work", outlets=(B,)), on=[A]),
        dag("second", task("work", outlets=(C,)), on=[B]),
        dag("third", task("work"), on=[A, C]),
    )
    await post(harness, partition="eu")
    for name, uri in (("first", B), ("second", C)):
        (run,) = (await harness.get(f"/api/v1/runs?dag={name}"))["items"]
        await harness.finish(run["run_id"], 0, emits=[EmittedEvent(uri)])
        await harness.wait(run["run_id"], "success")
    (run,) = (await harness.get("/api/v1/runs?dag=third"))["items"]
    reply = await harness.get(f"/api/v1/runs/{run['run_id']}/explain")
    assert reply["trail"] == ["first", "second"]
    events = {event["dataset"]: event for event in reply["runs"][0]["events"]}
    assert [events[A]["places"], events[C]["places"]] == [[0], [1]]
    assert [events[A]["hops"], events[C]["hops"]] == [0, 2]
    assert events[A]["partition"] == "eu"
    assert [step["run"]["dag_id"] for step in reply["runs"]] == ["third", "second", "first"]
