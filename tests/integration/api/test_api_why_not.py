"""Why no run starts: per part of the expression what is there, what is missing, since when."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Batch,
    DatasetInput,
    Latest,
    OrAfter,
    ScheduleSpec,
    Tick,
)
from pubsubflow.model.schedule.partitions import Identity, Partitioning, RollUp
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.spec import DatasetSpec
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A, B, C = "s3://lake/a", "s3://lake/b", "s3://lake/c"


async def why_not(harness, dag_id="d", **query):
    return await harness.get(f"/api/v1/dags/{dag_id}/why-not", params=query)


def kinds(found):
    # No worker runs here, which is a reason of its own.
    return [reason["kind"] for reason in found["reasons"] if reason["kind"] != "unserved"]


def waits_for(found):
    return found["reasons"][-1]["text"]


async def load(harness, condition, **more):
    schedule = condition if isinstance(condition, ScheduleSpec) else ScheduleSpec(condition)
    await harness.load(dag("d", task("work"), schedule=schedule, **more))


async def test_the_tree_marks_the_sides_that_hold_and_names_the_input_that_is_missing(harness):
    await load(
        harness,
        AnyOf((AllOf((DatasetInput(0, A), DatasetInput(1, B, at_least=2))), DatasetInput(2, C))),
    )
    posted = await harness.post(EVENTS, [{"dataset": A}, {"dataset": B}])
    found = await why_not(harness)
    assert waits_for(found) == f"it waits for 1 more event of {B} or {C}"
    both, other = found["condition"]["sides"]
    assert [found["condition"]["kind"], both["kind"], other["kind"]] == ["any", "all", "dataset"]
    assert [side["holds"] for side in both["sides"]] == [True, False]
    a, b, c = found["inputs"]
    assert (a["holds"], a["pending"], a["missing"]) == (True, 1, 0)
    assert (b["holds"], b["pending"], b["at_least"], b["missing"]) == (False, 1, 2, 1)
    assert (c["pending"], c["missing"], c["last_event_at"], c["waiting_since"]) == (
        0,
        1,
        None,
        None,
    )
    assert b["last_event_id"] == posted["ids"][1]
    assert b["waiting_since"] is not None
    assert found["last_run"] is None


async def test_it_shows_what_it_last_fired_for(harness):
    await load(harness, DatasetInput(0, A))
    await harness.post(EVENTS, {"dataset": A})
    found = await why_not(harness)
    (run,) = (await harness.get("/api/v1/runs"))["items"]
    assert (found["last_run"]["run_id"], found["last_run"]["cause"]) == (
        run["run_id"],
        f"{A} was updated",
    )
    assert (found["inputs"][0]["pending"], found["active_runs"]) == (0, 1)


async def test_filtered_events_are_counted_with_the_last_reason(harness):
    await load(
        harness, AllOf((DatasetInput(0, A, where="event.extra.rows > 0"), DatasetInput(1, B)))
    )
    for rows in (0, -3):
        await harness.post(EVENTS, {"dataset": A, "extra": {"rows": rows}})
    await harness.post(EVENTS, {"dataset": A, "extra": {}})
    place, _ = (await why_not(harness))["inputs"]
    assert (place["filtered"], place["pending"], place["where"]) == (3, 0, "event.extra.rows > 0")
    assert place["last_reason"].startswith("event.extra.rows > 0 failed")


async def test_events_that_are_too_old_are_distinguished_from_missing_ones(harness):
    await load(harness, AllOf((DatasetInput(0, A, within_seconds=3600), DatasetInput(1, B))))
    old = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    await harness.post(EVENTS, {"dataset": A, "time": old})
    await harness.post(EVENTS, {"dataset": B})
    found = await why_not(harness)
    assert waits_for(found) == f"it waits for a newer {A}"
    place = found["inputs"][0]
    assert (place["holds"], place["pending"], place["too_old"], place["missing"]) == (
        False,
        1,
        1,
        1,
    )


async def test_a_deadline_shows_when_it_ends_and_what_it_does(harness):
    await load(harness, OrAfter(0, AllOf((DatasetInput(0, A), DatasetInput(1, B))), 7200))
    before = await why_not(harness)
    assert (before["condition"]["due"], before["reasons"][-1]["until"]) == (None, None)
    await harness.post(EVENTS, {"dataset": A})
    found = await why_not(harness)
    clause = found["condition"]
    assert (clause["kind"], clause["then"], clause["late"]) == ("or_after", "run", False)
    left = datetime.fromisoformat(clause["due"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < left <= timedelta(hours=2)
    assert found["reasons"][-1]["until"] == clause["due"]


async def test_a_tick_shows_the_next_one(harness):
    await load(harness, AllOf((Tick(0, CronSpec("0 16 * * *")), DatasetInput(0, A))))
    found = await why_not(harness)
    tick = found["condition"]["sides"][0]
    assert (tick["kind"], tick["holds"], tick["due"]) == ("tick", False, found["next_tick"])
    assert found["reasons"][-1]["until"] is None  # the tick alone is not enough
    await harness.post(EVENTS, {"dataset": A})
    assert (await why_not(harness))["reasons"][-1]["until"] == found["next_tick"]


async def test_a_paused_dag_shows_how_many_events_it_holds_back(harness):
    await load(harness, DatasetInput(0, A))
    await harness.request("PATCH", "/api/v1/dags/d", json={"paused": True})
    assert kinds(await why_not(harness)) == ["paused", "waiting"]
    await harness.post(EVENTS, [{"dataset": A}, {"dataset": B}, {"dataset": A}])
    found = await why_not(harness)
    assert (found["held_back"], found["held_back_since"] is not None) == (2, True)
    assert found["reasons"][0]["text"] == "it is paused; 2 events wait until it is not"


async def test_queued_runs_are_shown_with_the_limit(harness):
    await load(harness, DatasetInput(0, A), max_active_runs=1)
    await harness.post(EVENTS, [{"dataset": A}] * 3)
    found = await why_not(harness)
    assert kinds(found) == ["capped", "waiting"]
    assert found["reasons"][0]["text"] == "2 runs are queued: 1 active, max_active_runs=1"


async def test_a_collecting_run_shows_how_many_events_it_has_and_until_when(harness):
    await load(harness, ScheduleSpec(DatasetInput(0, A), Batch(max_events=5, linger_seconds=600)))
    await harness.post(EVENTS, [{"dataset": A}] * 2)
    found = await why_not(harness)
    reason = found["reasons"][0]
    assert reason["kind"] == "collecting"
    assert "2 so far" in reason["text"]
    left = datetime.fromisoformat(reason["until"]) - datetime.now(UTC)
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)
    assert found["collecting_run"] == found["last_run"]["run_id"]


async def test_latest_waits_for_the_active_run(harness):
    await load(harness, ScheduleSpec(DatasetInput(0, A), Latest()))
    await harness.post(EVENTS, [{"dataset": A}] * 3)
    reason = (await why_not(harness))["reasons"][0]
    assert (reason["kind"], reason["until"]) == ("collecting", None)
    assert "when the active run ends" in reason["text"]


async def test_a_pattern_shows_the_newest_event_of_all_that_match(harness):
    await load(
        harness, AllOf((DatasetInput(0, "s3://lake/*", pattern=True), DatasetInput(1, "x://other")))
    )
    await harness.post(EVENTS, {"dataset": B})
    (event_id,) = (await harness.post(EVENTS, {"dataset": A}))["ids"]
    found = await why_not(harness)
    assert (found["inputs"][0]["last_event_id"], found["inputs"][0]["pending"]) == (event_id, 2)
    await harness.post(EVENTS, {"dataset": "x://other"})
    assert "a match of s3://lake/*" in waits_for(await why_not(harness))


async def test_partitions_are_listed_and_one_names_the_parts_that_are_missing(harness):
    by_uri = {A: RollUp("day", "hour"), B: Identity()}
    condition = AllOf((DatasetInput(0, A), DatasetInput(1, B)))
    await load(harness, ScheduleSpec(condition, partitioning=Partitioning(Identity(), by_uri)))
    assert "nothing is pending" in waits_for(await why_not(harness))
    for hour in (0, 3):
        await harness.post(EVENTS, {"dataset": A, "partition": f"2026-11-20T{hour:02}Z"})
    await harness.post(EVENTS, {"dataset": B, "partition": "2026-11-21"})
    await harness.post(EVENTS, {"dataset": B})
    found = await why_not(harness)
    assert found["condition"] is None
    assert found["open_partitions"] == 2
    first, second = found["partitions"]
    assert (first["partition"], first["pending"]) == ("2026-11-20", 2)
    assert first["waits_for"] == f"22 more parts of {A} and {B}"
    assert second["waits_for"] == f"24 more parts of {A}"
    assert [place["pending"] for place in found["inputs"]] == [2, 1]
    assert found["inputs"][1]["skipped"] == 1
    one = await why_not(harness, partition="2026-11-20")
    parts = one["inputs"][0]["parts"]
    assert (parts["wanted"], parts["there"]) == (24, 2)
    assert parts["missing"][:3] == ["2026-11-20T01Z", "2026-11-20T02Z", "2026-11-20T04Z"]
    assert (len(parts["missing"]), one["inputs"][0]["missing"]) == (10, 22)
    assert one["inputs"][1]["skipped"] == 0


async def test_a_partition_that_has_run_says_so(harness):
    await load(harness, ScheduleSpec(DatasetInput(0, A), partitioning=Partitioning(again="never")))
    await harness.post(EVENTS, {"dataset": A, "partition": "eu"})
    found = await why_not(harness, partition="eu")
    assert kinds(found) == ["done"]
    assert found["last_run"]["partition"] == "eu"
    other = await why_not(harness, partition="us")
    assert (kinds(other), other["last_run"]) == (["waiting"], None)


async def test_a_partition_that_cannot_be_is_refused(harness):
    by_day = Partitioning(RollUp("day", "hour"))
    await load(harness, ScheduleSpec(DatasetInput(0, A), partitioning=by_day))
    await harness.load(dag("plain", task("work"), on=[A]))
    wrong = "/api/v1/dags/d/why-not?partition=November"
    assert "no partition 'November'" in (await harness.get(wrong, status=422))["detail"]
    await harness.get("/api/v1/dags/plain/why-not?partition=2026-11-20", status=422)
    await harness.get("/api/v1/dags/nobody/why-not", status=404)
    await harness.get("/api/v1/dags/d/why-not?key=1", status=400)


async def test_a_dag_without_a_schedule_or_a_file_says_so(harness):
    await harness.load(dag("d", task("work")))
    assert kinds(await why_not(harness)) == ["unscheduled"]
    await harness.catalog.remove(["d.py"])
    assert kinds(await why_not(harness))[0] == "missing"
    await harness.rows("UPDATE dag SET present = false RETURNING 1")
    assert kinds(await why_not(harness))[0] == "gone"


async def test_runs_that_could_not_be_made_are_named(harness):
    texts = {"rows": "event.extra.rows"}
    await load(harness, DatasetInput(0, A), params={"rows": 0}, params_from=texts)
    await harness.post(EVENTS, [{"dataset": A}, {"dataset": A}])
    found = await why_not(harness)
    (text,) = [each["text"] for each in found["reasons"] if each["kind"] == "dead_letters"]
    assert text.startswith("2 runs could not be made: ")
    assert text.endswith("; see `pubsubflow dead-letters list --dag d`")
    assert kinds(found)[-1] == "waiting"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            "owner = 'alive', error = 'the folder is gone', error_since = '2026-11-20 16:00Z'",
            "it fails since 2026-11-20 16:00 UTC: the folder is gone",
        ),
        ("owner = 'dead'", "no triggerer runs it"),
        ("owner = 'alive'", None),
    ],
)
async def test_a_watch_that_sees_nothing_is_named(harness, state, expected):
    watched = DatasetSpec(A, watch_name="test.Bell", watch_data=b"\x80")
    spec = dag("d", task("work"), on=[A])
    await harness.catalog.save([replace(loaded(spec), datasets=(watched,))])
    async with harness.database.connection() as connection:
        await connection.execute(
            "INSERT INTO triggerer (name, host, pid, capacity) VALUES ('alive', 'h', 1, 1)"
        )
        await connection.execute(f"UPDATE trigger SET {state}")
    found = await why_not(harness)
    texts = [each["text"] for each in found["reasons"] if each["kind"] == "watch"]
    assert [expected in text and A in text for text in texts] == [True] * (expected is not None)
