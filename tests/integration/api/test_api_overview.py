"""What sums up: what happens now, grids of runs, ticks, the list of many DAGs."""

from datetime import UTC, datetime, timedelta

import pytest

from pubsubflow.model.schedule.conditions import AnyOf, ScheduleSpec, Tick
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.source.stored_specs import STORED_SPEC, decode_outlets
from pubsubflow.store.read.overview.grid import grid_rows
from pubsubflow.store.read.overview.schedule import upcoming_ticks
from support.specs import dag, task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def failed(harness):
    """A run with a mapped task of which one instance failed; one of another DAG under way."""
    await harness.load(
        dag("d", task("load", over=[3]), task("publish", "load"), tags=("core",)),
        dag("other", task("load")),
        dag("third", task("load"), tags=("core",)),
    )
    run_id = await harness.start("d")
    await harness.finish(run_id, 0, map_index=0)
    await harness.fail(run_id, 0, map_index=1, final=True)
    await harness.finish(run_id, 0, map_index=2)
    await harness.wait(run_id, "failed")
    await harness.start("other")
    return run_id


async def test_what_happens_now_is_summed_up(harness, failed):
    found = await harness.get("/api/v1/summary?stuck_seconds=0")
    (failure,) = found["failures"]
    assert (failure["run_id"], failure["dag_id"]) == (failed, "d")
    assert failure["task"]["id"] == f"{failed}.load.1"
    assert failure["task"]["error"]
    assert not failure["succeeded_since"]
    assert [each["dag_id"] for each in found["longest"]] == ["other"]
    assert [(each["dag_id"], each["state"]) for each in found["stuck"]] == [("other", "queued")]
    assert "worker" in found["stuck"][0]["waits_for"]
    assert dict.fromkeys(("failed", "running"), 1) == found["history"][-1]["states"]
    work = {(each["subject"], each["label"]): each["number"] for each in found["work"]}
    assert (work["runs", "running"], work["dags", ""], work["tasks", "queued"]) == (1, 3, 1)
    own = await harness.get("/api/v1/summary?dag=other&buckets=1")
    assert (own["failures"], own["history"][0]["states"]) == ([], {"running": 1})
    await harness.get("/api/v1/summary?dag=nobody", status=404)
    await harness.get("/api/v1/summary?since=2100-01-01T00:00:00Z", status=422)
    again = await harness.start("d")
    for index in range(3):
        await harness.finish(again, 0, map_index=index)
    await harness.finish(again, 1)
    await harness.wait(again, "success")
    found = await harness.get("/api/v1/summary")
    assert found["failures"][0]["succeeded_since"]


async def test_a_grid_has_a_character_a_task_and_counts_of_instances(harness, failed):
    found = await harness.get("/api/v1/dags/d/grid")
    digits = dict(enumerate(found["states"]))
    (run,) = found["runs"]
    assert [each["task_id"] for each in found["tasks"]] == ["load", "publish"]
    assert run["marks"][0] == "+"
    assert digits[int(run["marks"][1], 36)] == "upstream_failed"
    assert run["counts"] == {"0": {"success": 2, "failed": 1}}
    newer = await harness.start("d")
    page = await harness.get("/api/v1/dags/d/grid?runs=1")
    assert [each["run_id"] for each in page["runs"]] == [newer]
    page = await harness.get(f"/api/v1/dags/d/grid?runs=1&after={page['next']}")
    assert [each["run_id"] for each in page["runs"]] == [failed]
    await harness.get("/api/v1/dags/nobody/grid", status=404)
    await harness.get("/api/v1/dags/d/grid?after=x", status=400)
    files = await harness.get("/api/v1/dags/d/versions/1/files")
    assert (files["file"], files["files"], files["hidden"]) == (
        "d.py", [], "its files are not stored any more"
    )  # fmt: skip
    await harness.get("/api/v1/dags/d/versions/7/files", status=404)
    ticks = await harness.get("/api/v1/dags/d/schedule")
    assert (ticks["schedule"], ticks["upcoming"], ticks["past"]) == (None, [], [])


def test_a_grid_has_the_rows_of_all_versions():
    now = dag("d", task("a"), task("c", "a"))
    before = dag("d", task("a"), task("b", "a", over=[1]))
    rows = grid_rows(now, [now, before])
    assert [(row.task_id, row.present, row.mapped) for row in rows] == [
        ("a", True, False), ("c", True, False), ("b", False, True)
    ]  # fmt: skip


async def test_the_list_of_dags_is_filtered_and_has_the_last_runs(harness, failed):
    found = await harness.get("/api/v1/dags?recent=5&text=D")
    (only,) = [each for each in found["items"] if each["dag_id"] == "d"]
    assert [each["state"] for each in only["recent_runs"]] == ["failed"]
    assert {each["dag_id"] for each in found["items"]} == {"d", "third"}
    page = await harness.get("/api/v1/dags?tag=core&limit=1")
    assert [each["dag_id"] for each in page["items"]] == ["d"]
    page = await harness.get(f"/api/v1/dags?tag=core&limit=1&after={page['next']}")
    assert [each["dag_id"] for each in page["items"]] == ["third"]
    assert page.get("next") is None


def test_the_ticks_of_several_timetables_come_in_order():
    slots = (Tick(0, CronSpec("0 6 * * *")), Tick(1, CronSpec("0 5 * * 0")))
    spec = dag("d", task("a"), schedule=ScheduleSpec(AnyOf(slots)))
    now = datetime(2026, 11, 28, 5, 30, tzinfo=UTC)  # a Saturday
    ticks = upcoming_ticks(spec, now)
    first = [next(ticks) for _ in range(3)]
    assert [each.at - now for each in first] == [
        timedelta(minutes=30), timedelta(hours=23, minutes=30), timedelta(days=1, minutes=30)
    ]  # fmt: skip
    assert "0 5 * * 0" in first[1].timetable
    assert list(upcoming_ticks(dag("d", task("a")), now)) == []


async def test_a_graph_has_what_is_around_a_dataset_and_says_what_it_leaves_out(harness):
    await harness.load(
        dag("make", task("a", emits=["raw"])),
        dag("refine", task("a", emits=["clean"]), on="raw"),
        dag("report", task("a", emits=["figures"]), on="clean"),
        dag("mail", task("a"), on="figures"),
    )
    await harness.post("/api/v1/datasets/events", {"dataset": "x://clean"})

    async def around(question):
        found = await harness.get(f"/api/v1/graph?around=x://clean&{question}")
        names = {each["name"]: each["step"] for each in found["nodes"]}
        edges = {(found["nodes"][a]["name"], found["nodes"][b]["name"]) for a, b in found["edges"]}
        return names, edges, found["complete"]

    names, edges, complete = await around("up=1&down=1")
    assert names == {"x://clean": 0, "refine": -1, "x://raw": -1, "report": 1, "x://figures": 1}
    assert edges == {
        ("x://raw", "refine"), ("refine", "x://clean"),
        ("x://clean", "report"), ("report", "x://figures"),
    }  # fmt: skip
    assert complete
    names, _, _ = await around("up=5&down=0")
    assert names == {"x://clean": 0, "refine": -1, "x://raw": -1, "make": -2}
    names, _, complete = await around("limit=2")
    assert (len(names), complete) == (2, False)
    # A definition that comes into force is seen at once.
    await harness.load(dag("make", task("a", emits=["clean"])))
    names, _, _ = await around("up=1&down=0")
    assert names["make"] == -1
    await harness.get("/api/v1/graph?around=x://none", status=404)
    await harness.get("/api/v1/graph?around=none", status=400)
    (only,) = (await harness.get("/api/v1/datasets?text=CLEAN"))["items"]
    assert (only["producer_count"], only["consumers"], only["held"]) == (2, ["report"], 0)
    assert (await harness.get("/api/v1/datasets?held=true"))["items"] == []
    assert (await harness.get("/api/v1/datasets?stale=true"))["items"] == []


async def test_the_system_says_what_it_stores(harness):
    found = await harness.get("/api/v1/system")
    assert found["database"]["bytes"] > 1_000_000
    assert {"run", "event"} >= {each["series"] for each in found["slices"]}
    assert any(each["name"] == "change" or each["bytes"] for each in found["database"]["tables"])


def test_outlets_are_read_of_every_form_of_a_definition():
    plain = dag("d", task("a", emits=["raw", "clean"]), task("b", emits=["raw"]))
    grouped = dag("d", task("a", emits=["raw"], over=[2], map_group="g"))
    assert decode_outlets(STORED_SPEC.encode(plain)) == ("x://raw", "x://clean")
    assert decode_outlets(STORED_SPEC.encode(grouped)) == ("x://raw",)
    assert decode_outlets(b"\xc1") == ()
