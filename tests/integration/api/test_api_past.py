"""Replays of events and backfills of ticks and partitions: nothing that exists is made twice."""

from datetime import UTC, datetime

import pytest
from api_rig import dag, task

from pubsubflow.model.schedule.conditions import AllOf, Input, Schedule, Tick
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.schedule.timetable import Cron

pytestmark = pytest.mark.anyio

EVENTS, REPLAY = "/api/v1/datasets/events", "/api/v1/datasets/replay"
A, B = "s3://lake/a", "s3://lake/b"
LONG_AGO = "2020-01-01T00:00:00Z"


async def replay(rig, *, status=200, **asked):
    return await rig.post(REPLAY, {"from": LONG_AGO, **asked}, status=status)


async def backfill(rig, dag_id="d", *, status=200, **asked):
    return await rig.post(f"/api/v1/dags/{dag_id}/backfill", asked, status=status)


async def runs(rig, dag_id="d"):
    return (await rig.get(f"/api/v1/runs?dag={dag_id}&limit=1000"))["items"]


async def past_events(rig, *events):
    """Post events before the DAG subscribes."""
    return (await rig.post(EVENTS, [{"dataset": A, **event} for event in events]))["ids"]


async def test_a_dry_run_tells_what_would_start_and_starts_nothing(rig):
    ids = await past_events(rig, {}, {})
    await rig.load(dag("d", task(0, "work"), on=[A]))
    (planned,) = await replay(rig, dags=["d"], dry_run=True)
    assert (planned["dag_id"], planned["dry_run"]) == ("d", True)
    assert [run["events"] for run in planned["runs"]] == [[event_id] for event_id in ids]
    assert [(run["run_id"], run["exists"]) for run in planned["runs"]] == [(None, False)] * 2
    assert await runs(rig) == []


async def test_a_replay_makes_the_runs_with_their_events_and_never_twice(rig):
    ids = await past_events(rig, {}, {})
    await rig.load(dag("d", task(0, "work"), on=[A]))
    (planned,) = await replay(rig, dags=["d"])
    made = [run["run_id"] for run in planned["runs"]]
    assert sorted(run["run_id"] for run in await runs(rig)) == sorted(made)
    told = await rig.get(f"/api/v1/runs/{made[0]}/explain")
    assert (told["runs"][0]["run"]["kind"], told["runs"][0]["run"]["cause"]) == (
        "replay",
        f"replay: {A} was updated",
    )
    assert [event["event_id"] for event in told["runs"][0]["events"]] == ids[:1]
    (again,) = await replay(rig, dags=["d"])
    assert [(run["run_id"], run["exists"]) for run in again["runs"]] == [
        (run_id, True) for run_id in made
    ]
    assert len(await runs(rig)) == 2


async def test_a_run_that_the_event_made_itself_is_not_made_again_unless_asked(rig):
    await rig.load(dag("d", task(0, "work"), on=[A]))
    await past_events(rig, {})
    (planned,) = await replay(rig, dataset=A)
    assert [run["exists"] for run in planned["runs"]] == [True]
    (planned,) = await replay(rig, dataset=A, again=True)
    assert [run["exists"] for run in planned["runs"]] == [False]
    assert len(await runs(rig)) == 2


async def test_a_replay_leaves_what_is_pending_alone(rig):
    await past_events(rig, {})
    await rig.load(dag("d", task(0, "work"), on=[A, B]))
    await rig.post(EVENTS, {"dataset": B})
    (planned,) = await replay(rig, dags=["d"])
    assert len(planned["runs"]) == 1
    shown = await rig.get("/api/v1/dags/d/why-not")
    assert [place["pending"] for place in shown["inputs"]] == [0, 1]


async def test_times_and_the_dataset_bound_a_replay(rig):
    await past_events(rig, {})
    await rig.load(dag("d", task(0, "work"), on=[A]))
    now = datetime.now(UTC).isoformat()
    for asked in ({"from": now}, {"to": LONG_AGO.replace("01-01", "01-02")}, {"dataset": B}):
        assert (await replay(rig, dags=["d"], **asked))[0]["runs"] == []


async def test_without_dags_all_that_subscribe_decide(rig):
    await past_events(rig, {})
    await rig.load(*(dag(name, task(0, "work"), on=[A]) for name in ("x", "y")))
    await rig.load(dag("z", task(0, "work"), on=[B]))
    planned = await replay(rig, dataset=A)
    assert [(each["dag_id"], len(each["runs"])) for each in planned] == [("x", 1), ("y", 1)]


@pytest.mark.parametrize(
    ("asked", "status"),
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
async def test_a_replay_that_cannot_be_is_refused(rig, asked, status):
    await rig.load(dag("d", task(0, "work"), on=[A]), dag("asked", task(0, "work")))
    problem = await replay(rig, status=status, **asked)
    assert "\n" not in problem["detail"]


async def test_a_backfill_of_ticks_makes_what_is_missing_and_never_twice(rig):
    await rig.load(dag("d", task(0, "work"), schedule=Schedule(Tick(0, Cron("0 16 * * *")))))
    since, until = "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"
    dry = await backfill(rig, **{"from": since, "to": until}, dry_run=True)
    times = [run["logical_time"] for run in dry["runs"]]
    assert times == [f"2026-01-0{day}T16:00:00Z" for day in (1, 2, 3)]
    assert await runs(rig) == []
    await backfill(rig, **{"from": since, "to": "2026-01-03T00:00:00Z"})
    more = await backfill(rig, **{"from": since, "to": until})
    assert [run["exists"] for run in more["runs"]] == [True, True, False]
    assert sorted(run["logical_time"] for run in await runs(rig)) == times
    again = await backfill(rig, **{"from": since, "to": "2026-01-02T00:00:00Z"}, again=True)
    assert [run["exists"] for run in again["runs"]] == [False]
    assert len(await runs(rig)) == 4
    explained = await rig.get(f"/api/v1/runs/{again['runs'][0]['run_id']}/explain")
    run = explained["runs"][0]["run"]
    assert (run["kind"], run["logical_time"]) == ("backfill", times[0])


async def test_a_backfill_of_partitions_gives_runs_their_key_and_params(rig):
    schedule = Schedule(Input(0, A), partitioning=Partitioning())
    await rig.load(dag("d", task(0, "work"), schedule=schedule, params={"n": 1}))
    made = await backfill(rig, partitions=["eu", "us", "eu"], params={"n": 7})
    assert [run["partition"] for run in made["runs"]] == ["eu", "us"]
    found = {run["partition"]: run["params"] for run in await runs(rig)}
    assert found == {"eu": {"n": 7}, "us": {"n": 7}}
    assert [run["exists"] for run in (await backfill(rig, partitions=["eu"]))["runs"]] == [True]
    why_not = await rig.get("/api/v1/dags/d/why-not?partition=eu")
    assert why_not["reasons"][0]["kind"] == "done"


@pytest.mark.parametrize(
    ("dag_id", "asked", "status"),
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
async def test_a_backfill_that_cannot_be_is_refused(rig, dag_id, asked, status):
    often = Schedule(AllOf((Tick(0, Cron("* * * * *")), Input(0, A))))
    await rig.load(dag("d", task(0, "work"), on=[A]), dag("often", task(0, "work"), schedule=often))
    problem = await backfill(rig, dag_id, status=status, **asked)
    assert "\n" not in problem["detail"]
    assert await runs(rig) == []


async def test_a_run_may_be_started_for_a_partition(rig):
    await rig.load(dag("d", task(0, "work")))
    run_id = await rig.start("d", partition="eu")
    assert (await rig.get(f"/api/v1/runs/{run_id}"))["partition"] == "eu"
