"""Replays of events and backfills of ticks and partitions: nothing that exists is made twice."""

from datetime import UTC, datetime

import pytest

from pubsubflow.model.schedule.conditions import AllOf, DatasetInput, ScheduleSpec, Tick
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.schedule.timetable import CronSpec
from support.specs import dag, task

pytestmark = pytest.mark.anyio

EVENTS, REPLAY = "/api/v1/datasets/events", "/api/v1/datasets/replay"
A, B = "s3://lake/a", "s3://lake/b"
LONG_AGO = "2020-01-01T00:00:00Z"


async def replay(harness, *, status=200, **requested):
    return await harness.post(REPLAY, {"from": LONG_AGO, **requested}, status=status)


async def backfill(harness, dag_id="d", *, status=200, **requested):
    return await harness.post(f"/api/v1/dags/{dag_id}/backfill", requested, status=status)


async def runs(harness, dag_id="d"):
    return (await harness.get(f"/api/v1/runs?dag={dag_id}&limit=1000"))["items"]


async def past_events(harness, *events):
    """Post events before the DAG subscribes."""
    return (await harness.post(EVENTS, [{"dataset": A, **event} for event in events]))["ids"]


async def test_a_dry_run_shows_what_would_start_and_starts_nothing(harness):
    ids = await past_events(harness, {}, {})
    await harness.load(dag("d", task("work"), on=[A]))
    (planned,) = await replay(harness, dags=["d"], dry_run=True)
    assert (planned["dag_id"], planned["dry_run"]) == ("d", True)
    assert [run["events"] for run in planned["runs"]] == [[event_id] for event_id in ids]
    assert [(run["run_id"], run["exists"]) for run in planned["runs"]] == [(None, False)] * 2
    assert await runs(harness) == []


async def test_a_replay_makes_the_runs_with_their_events_and_never_twice(harness):
    ids = await past_events(harness, {}, {})
    await harness.load(dag("d", task("work"), on=[A]))
    (planned,) = await replay(harness, dags=["d"])
    made = [run["run_id"] for run in planned["runs"]]
    assert sorted(run["run_id"] for run in await runs(harness)) == sorted(made)
    reply = await harness.get(f"/api/v1/runs/{made[0]}/explain")
    assert (reply["runs"][0]["run"]["kind"], reply["runs"][0]["run"]["cause"]) == (
        "replay",
        f"replay: {A} was updated",
    )
    assert [event["event_id"] for event in reply["runs"][0]["events"]] == ids[:1]
    (again,) = await replay(harness, dags=["d"])
    assert [(run["run_id"], run["exists"]) for run in again["runs"]] == [
        (run_id, True) for run_id in made
    ]
    assert len(await runs(harness)) == 2


async def test_a_run_of_the_event_itself_is_not_started_again_unless_requested(harness):
    await harness.load(dag("d", task("work"), on=[A]))
    await past_events(harness, {})
    (planned,) = await replay(harness, dataset=A)
    assert [run["exists"] for run in planned["runs"]] == [True]
    (planned,) = await replay(harness, dataset=A, again=True)
    assert [run["exists"] for run in planned["runs"]] == [False]
    assert len(await runs(harness)) == 2


async def test_a_replay_leaves_what_is_pending_alone(harness):
    await past_events(harness, {})
    await harness.load(dag("d", task("work"), on=[A, B]))
    await harness.post(EVENTS, {"dataset": B})
    (planned,) = await replay(harness, dags=["d"])
    assert len(planned["runs"]) == 1
    shown = await harness.get("/api/v1/dags/d/why-not")
    assert [place["pending"] for place in shown["inputs"]] == [0, 1]


async def test_times_and_the_dataset_bound_a_replay(harness):
    await past_events(harness, {})
    await harness.load(dag("d", task("work"), on=[A]))
    now = datetime.now(UTC).isoformat()
    for requested in ({"from": now}, {"to": LONG_AGO.replace("01-01", "01-02")}, {"dataset": B}):
        assert (await replay(harness, dags=["d"], **requested))[0]["runs"] == []


async def test_without_dags_all_that_subscribe_decide(harness):
    await past_events(harness, {})
    await harness.load(*(dag(name, task("work"), on=[A]) for name in ("x", "y")))
    await harness.load(dag("z", task("work"), on=[B]))
    planned = await replay(harness, dataset=A)
    assert [(each["dag_id"], len(each["runs"])) for each in planned] == [("x", 1), ("y", 1)]


@pytest.mark.parametrize(
    ("requested", "status"),
    [
        ({}, 422),
        ({"dags": ["nobody"]}, 404),
        ({"dataset": "nonsense"}, 422),
        ({"dags": ["d"], "to": "2019-01-01T00:00:00Z"}, 422),
        ({"dags": ["d"], "from": "2020-01-01T00:00:00"}, 422),
        ({"dags": ["d"], "from": "0001-01-01T00:00:00+14:00"}, 422),
        ({"dags": ["asked"]}, 422),
    ],
)
async def test_a_replay_that_cannot_be_is_refused(harness, requested, status):
    await harness.load(dag("d", task("work"), on=[A]), dag("asked", task("work")))
    problem = await replay(harness, status=status, **requested)
    assert "\n" not in problem["detail"]


async def test_a_backfill_of_ticks_makes_what_is_missing_and_never_twice(harness):
    await harness.load(
        dag("d", task("work"), schedule=ScheduleSpec(Tick(0, CronSpec("0 16 * * *"))))
    )
    since, until = "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"
    dry = await backfill(harness, **{"from": since, "to": until}, dry_run=True)
    times = [run["logical_time"] for run in dry["runs"]]
    assert times == [f"2026-01-0{day}T16:00:00Z" for day in (1, 2, 3)]
    assert await runs(harness) == []
    await backfill(harness, **{"from": since, "to": "2026-01-03T00:00:00Z"})
    more = await backfill(harness, **{"from": since, "to": until})
    assert [run["exists"] for run in more["runs"]] == [True, True, False]
    assert sorted(run["logical_time"] for run in await runs(harness)) == times
    again = await backfill(harness, **{"from": since, "to": "2026-01-02T00:00:00Z"}, again=True)
    assert [run["exists"] for run in again["runs"]] == [False]
    assert len(await runs(harness)) == 4
    explained = await harness.get(f"/api/v1/runs/{again['runs'][0]['run_id']}/explain")
    run = explained["runs"][0]["run"]
    assert (run["kind"], run["logical_time"]) == ("backfill", times[0])


async def test_a_backfill_of_partitions_gives_runs_their_key_and_params(harness):
    schedule = ScheduleSpec(DatasetInput(0, A), partitioning=Partitioning(again="never"))
    await harness.load(dag("d", task("work"), schedule=schedule, params={"n": 1}))
    made = await backfill(harness, partitions=["eu", "us", "eu"], params={"n": 7})
    assert [run["partition"] for run in made["runs"]] == ["eu", "us"]
    found = {run["partition"]: run["params"] for run in await runs(harness)}
    assert found == {"eu": {"n": 7}, "us": {"n": 7}}
    assert [run["exists"] for run in (await backfill(harness, partitions=["eu"]))["runs"]] == [True]
    why_not = await harness.get("/api/v1/dags/d/why-not?partition=eu")
    assert "done" in [reason["kind"] for reason in why_not["reasons"]]


@pytest.mark.parametrize(
    ("dag_id", "requested", "status"),
    [
        ("d", {}, 422),
        ("d", {"from": LONG_AGO}, 422),
        ("d", {"from": LONG_AGO, "partitions": ["a"]}, 422),
        ("d", {"partitions": ["a"], "params": {"colour": 1}}, 422),
        ("d", {"partitions": [""]}, 422),
        ("nobody", {"partitions": ["a"]}, 404),
        ("often", {"from": LONG_AGO}, 422),
        ("often", {"from": LONG_AGO, "to": LONG_AGO}, 422),
    ],
)
async def test_a_backfill_that_cannot_be_is_refused(harness, dag_id, requested, status):
    often = ScheduleSpec(AllOf((Tick(0, CronSpec("* * * * *")), DatasetInput(0, A))))
    await harness.load(dag("d", task("work"), on=[A]), dag("often", task("work"), schedule=often))
    problem = await backfill(harness, dag_id, status=status, **requested)
    assert "\n" not in problem["detail"]
    assert await runs(harness) == []


async def test_a_run_may_be_started_for_a_partition(harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d", partition="eu")
    assert (await harness.get(f"/api/v1/runs/{run_id}"))["partition"] == "eu"
