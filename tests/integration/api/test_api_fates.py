"""What became of every event, for each DAG that subscribes; and why runs exist."""

from datetime import UTC, datetime, timedelta

import pytest
from api_rig import dag, task

from pubsubflow.model.schedule.conditions import AllOf, Batch, Input, Schedule
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.wire.messages import Emit

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A, B, C = "s3://lake/a", "s3://lake/b", "s3://lake/c"


async def post(rig, **event):
    return (await rig.post(EVENTS, {"dataset": A, **event}))["ids"][0]


async def fates(rig, event_id):
    """Return DAG → what became of an event there."""
    (event,) = (await rig.get(EVENTS, params={"event": event_id}))["items"]
    assert event["event_id"] == event_id
    return {fate["dag_id"]: fate for fate in event["fates"]}


async def test_each_subscription_tells_what_it_did_with_an_event(rig):
    filtered = Schedule(Input(0, A, where="event.extra.rows > 0"))
    await rig.load(
        dag("both", task(0, "work"), on=[A, B]),
        dag("filters", task(0, "work"), schedule=filtered),
        dag("runs", task(0, "work"), on=[A]),
        dag("other", task(0, "work"), on=[C]),
    )
    event_id = await post(rig, extra={"rows": 0})
    found = await fates(rig, event_id)
    assert {name: fate["fate"] for name, fate in found.items()} == {
        "both": "pending",
        "filters": "filtered",
        "runs": "consumed",
    }
    assert found["filters"]["reason"] == "event.extra.rows > 0 is False"
    (run,) = (await rig.get("/api/v1/runs"))["items"]
    assert (found["runs"]["run_id"], found["runs"]["run_state"]) == (run["run_id"], "running")
    await rig.post(EVENTS, {"dataset": B})
    assert (await fates(rig, event_id))["both"]["fate"] == "consumed"


async def test_an_event_that_no_dag_wants_has_no_fate(rig):
    assert await fates(rig, await post(rig)) == {}


async def test_an_event_from_before_the_subscription_was_not_looked_at(rig):
    event_id = await post(rig)
    await rig.load(dag("late", task(0, "work"), on=[A]))
    assert (await fates(rig, event_id))["late"]["fate"] == "unseen"


async def test_what_a_paused_dag_holds_back_is_pending(rig):
    await rig.load(dag("d", task(0, "work"), on=[A]))
    before = await post(rig)
    await rig.ask("PATCH", "/api/v1/dags/d", json={"paused": True})
    event_id = await post(rig)
    held = (await fates(rig, event_id))["d"]
    assert (held["fate"], held["reason"]) == ("pending", "the DAG is paused")
    assert (await fates(rig, before))["d"]["fate"] == "consumed"
    await rig.ask("PATCH", "/api/v1/dags/d", json={"paused": False})
    assert (await fates(rig, event_id))["d"]["fate"] == "consumed"


async def test_what_a_paused_dag_drops_is_skipped(rig):
    await rig.load(dag("d", task(0, "work"), on=[A], on_pause="drop"))
    await rig.ask("PATCH", "/api/v1/dags/d", json={"paused": True})
    found = (await fates(rig, await post(rig)))["d"]
    assert (found["fate"], found["reason"]) == ("skipped", "the DAG was paused")


async def test_an_event_that_was_too_old_is_expired(rig):
    condition = AllOf((Input(0, A, within_seconds=3600), Input(1, B)))
    await rig.load(dag("d", task(0, "work"), schedule=Schedule(condition)))
    old = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    event_id = await post(rig, time=old)
    await post(rig)
    await rig.post(EVENTS, {"dataset": B})
    assert (await fates(rig, event_id))["d"]["fate"] == "expired"


async def test_the_partition_and_what_has_run_are_told(rig):
    schedule = Schedule(Input(0, A), partitioning=Partitioning())
    await rig.load(dag("d", task(0, "work"), schedule=schedule))
    first, second = await post(rig, partition="eu"), await post(rig, partition="eu")
    consumed, skipped = (await fates(rig, first))["d"], (await fates(rig, second))["d"]
    assert (consumed["fate"], consumed["partition"]) == ("consumed", "eu")
    assert (skipped["fate"], skipped["reason"]) == ("skipped", "partition eu has run")


async def test_collected_and_queued_events_say_so(rig):
    batch = Schedule(Input(0, A), Batch(max_events=5, linger_seconds=600))
    await rig.load(
        dag("collects", task(0, "work"), schedule=batch),
        dag("queues", task(0, "work"), on=[A], max_active_runs=1),
    )
    await post(rig)
    found = await fates(rig, await post(rig))
    assert "collects events" in found["collects"]["reason"]
    assert "in line" in found["queues"]["reason"]
    assert [fate["run_state"] for fate in found.values()] == ["queued", "queued"]


async def test_an_event_whose_run_was_refused_is_dead(rig):
    await rig.load(
        dag("d", task(0, "work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"})
    )
    found = (await fates(rig, await post(rig)))["d"]
    assert found["fate"] == "dead"
    assert "event.extra.n" in found["reason"]


async def test_the_list_of_events_pages_with_fates_and_without(rig):
    await rig.load(dag("d", task(0, "work"), on=[A]))
    for _ in range(5):
        await post(rig)
    await rig.post(EVENTS, {"dataset": B})
    first = await rig.get(f"{EVENTS}?fate=true&limit=3")
    rest = await rig.get(f"{EVENTS}?fate=true&limit=9&after={first['next']}")
    assert [len(each["fates"]) for each in first["items"] + rest["items"]] == [0, 1, 1, 1, 1, 1]
    of_one = await rig.get(f"{EVENTS}?fate=true&dataset={B}")
    assert [each["fates"] for each in of_one["items"]] == [[]]
    assert "fates" not in (await rig.get(EVENTS))["items"][0]
    await rig.get(f"{EVENTS}?event=00000000-0000-0000-0000-000000000000", status=404)


async def test_an_explanation_tells_places_partitions_and_the_trail(rig):
    await rig.load(
        dag("first", task(0, "work", outlets=(B,)), on=[A]),
        dag("second", task(0, "work", outlets=(C,)), on=[B]),
        dag("third", task(0, "work"), on=[A, C]),
    )
    await post(rig, partition="eu")
    for name, uri in (("first", B), ("second", C)):
        (run,) = (await rig.get(f"/api/v1/runs?dag={name}"))["items"]
        await rig.finish(run["run_id"], 0, emits=[Emit(uri)])
        await rig.wait(run["run_id"], "success")
    (run,) = (await rig.get("/api/v1/runs?dag=third"))["items"]
    told = await rig.get(f"/api/v1/runs/{run['run_id']}/explain")
    assert told["trail"] == ["first", "second"]
    events = {event["dataset"]: event for event in told["runs"][0]["events"]}
    assert [events[A]["places"], events[C]["places"]] == [[0], [1]]
    assert [events[A]["hops"], events[C]["hops"]] == [0, 2]
    assert events[A]["partition"] == "eu"
    assert [step["run"]["dag_id"] for step in told["runs"]] == ["third", "second", "first"]
