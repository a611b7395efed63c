"""Filters of runs, what people put on runs, and actions on many runs at once."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from pubsubflow.model.wire.messages import Outcome, TaskError
from support.specs import dag, task

pytestmark = pytest.mark.anyio
BULK = "/api/v1/runs/bulk"
NO = TaskError("E", "no")


async def listed(harness, question):
    return [run["run_id"] for run in (await harness.get(f"/api/v1/runs?{question}"))["items"]]


async def end(harness, run_id, outcome=Outcome.FAILED):
    error = NO if outcome is Outcome.FAILED else None
    await harness.finish(run_id, 0, outcome=outcome, error=error)
    await harness.wait(run_id, "failed" if error else "success")


@pytest.fixture
async def three(harness):
    """Two failed runs and a running one, of a DAG that other DAGs stand beside."""
    await harness.load(
        dag("d", task("a"), task("b", "a"), params={"day": "x", "n": 1}, tags=("core",)),
        dag("other", task("a"), presets={"night": {"n": 7}}, params={"n": 1}),
    )
    ids = [await harness.start("d", params={"n": n}, partition=f"p{n}") for n in range(3)]
    for run_id in ids[:2]:
        await end(harness, run_id)
    return ids


async def test_runs_are_filtered_by_all_that_people_know_of_them(harness, three):
    first, second, third = three
    other = await harness.start("other", preset="night", tags=["ticket-7", "by hand"])
    shown = await harness.get(f"/api/v1/runs/{other}")
    assert (shown["params"], shown["tags"]) == ({"n": 7}, ["by hand", "ticket-7"])
    await harness.post("/api/v1/dags/other/runs", {"preset": "day"}, status=422)
    assert (await harness.get("/api/v1/dags/other"))["presets"] == {"night": {"n": 7}}
    for question, found in {
        "tag=core": [third, second, first],  # of their DAG
        "tag=ticket-7": [other],
        "tag=ticket-7&tag=core": [],
        "state=failed&state=running&dag=d": [third, second, first],
        "state=failed&param=n=1": [second],
        "param=day=x&param=n=0": [first],
        "state=running&partition=p2": [third],
        "kind=manual&state=running": [other, third],
        "kind=cron": [],
    }.items():
        assert await listed(harness, question) == found, question
    made = (await harness.get(f"/api/v1/runs/{second}"))["created_at"]
    assert await listed(harness, f"until={quote(made)}") == [first]
    assert await listed(harness, f"since={quote(made)}&dag=d&state=failed") == [second]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert await listed(harness, f"since={quote(tomorrow)}") == []
    await harness.get("/api/v1/runs?param=n", status=400)
    await harness.get("/api/v1/runs?state=asleep", status=400)
    tasks = await harness.get(f"/api/v1/runs/{first}/tasks?state=failed")
    assert [each["task_id"] for each in tasks["items"]] == ["a"]
    dags = await harness.get("/api/v1/dags?tag=core")
    assert [each["dag_id"] for each in dags["items"]] == ["d"]
    assert (await harness.get("/api/v1/dags?paused=true"))["items"] == []


async def test_tags_and_notes_are_put_on_a_run(harness, three):
    path = f"/api/v1/runs/{three[0]}"
    await harness.request("PATCH", path, json={"add_tags": ["b", "a"], "note": "see ticket 7"})
    changed = await harness.request("PATCH", path, json={"add_tags": ["c"], "remove_tags": ["a"]})
    assert (changed["tags"], changed["note"]) == (["b", "c"], "see ticket 7")
    changed = await harness.request("PATCH", path, json={"tags": [], "note": ""})
    assert (changed["tags"], changed["note"]) == ([], None)
    await harness.request("PATCH", path, json={"add_tags": [" a"]}, status=422)
    missing = path[:-12] + "0" * 12
    await harness.request("PATCH", missing, json={"note": "x"}, status=404)


async def test_a_dry_run_lists_exactly_what_is_then_done_once(harness, three):
    wanted = {"action": "retry", "filter": {"dag": "d"}}
    planned = await harness.post(BULK, {**wanted, "dry_run": True}, status=200)
    assert planned["counts"] == {"planned": 2}
    assert [(run["run_id"], run["tasks"]) for run in planned["runs"]] == [
        (three[1], 2),
        (three[0], 2),
    ]
    # A run that fails after the dry run is none of its runs.
    await end(harness, three[2])
    body = {
        "action": "retry",
        "runs": [{name: run[name] for name in ("run_id", "cleared")} for run in planned["runs"]],
    }
    done = await harness.post(BULK, body, status=200)
    assert done["counts"] == {"done": 2}
    assert await listed(harness, "dag=d&state=failed") == [three[2]]
    # Sent again after a lost answer it changes nothing, also not when they have ended meanwhile.
    again = await harness.post(BULK, body, status=200)
    assert again["counts"] == {"left": 2}
    await harness.finish(three[0], 0, attempt=2, outcome=Outcome.FAILED, error=NO)
    await harness.wait(three[0], "failed")
    again = await harness.post(BULK, {**body, "action": "clear"}, status=200)
    assert {run["detail"] for run in again["runs"]} == {
        f"tasks of run {run_id} were cleared meanwhile" for run_id in three[:2]
    }


async def test_many_runs_are_cancelled_part_by_part(harness, three):
    more = [await harness.start("d") for _ in range(3)]
    body = {"action": "cancel", "filter": {"dag": "d"}, "limit": 3, "reason": "a bad day"}
    first = await harness.post(BULK, body, status=200)
    assert [run["run_id"] for run in first["runs"]] == more[::-1]
    rest = await harness.post(BULK, body, status=200)
    assert ([run["run_id"] for run in rest["runs"]], rest["next"]) == ([three[2]], None)
    run = await harness.get(f"/api/v1/runs/{more[0]}")
    assert (run["state"], run["error"]) == ("cancelled", "a bad day")
    assert (await harness.post(BULK, body, status=200))["runs"] == []


async def test_what_an_action_would_not_fit_is_refused(harness, three):
    await harness.post(BULK, {"action": "cancel"}, status=422)
    await harness.post(BULK, {"action": "cancel", "filter": {}}, status=422)
    await harness.post(BULK, {"action": "explode", "filter": {"dag": "d"}}, status=422)
    await harness.post(BULK, {"action": "cancel", "filter": {"dag": "x"}}, status=404)
    both = {
        "action": "cancel",
        "filter": {"dag": "d"},
        "runs": [{"run_id": three[0], "cleared": 0}],
    }
    await harness.post(BULK, both, status=422)
    gone = {"action": "cancel", "runs": [{"run_id": three[0][:-12] + "0" * 12, "cleared": 0}]}
    await harness.post(BULK, gone, status=404)
    ended = {"action": "cancel", "runs": [{"run_id": three[0], "cleared": 0}]}
    answer = await harness.post(BULK, ended, status=200)
    assert answer["counts"] == {"left": 1}


async def test_tasks_and_runs_are_marked(harness, three):
    path = f"/api/v1/runs/{three[0]}/mark"
    answer = await harness.post(path, {"state": "success", "tasks": ["a"], "result": 1}, status=200)
    assert answer == {
        "run_id": three[0],
        "state": "running",
        "dry_run": False,
        "tasks": [{"task_id": "a", "map_index": None, "state": "failed"}],
        "anew": [{"task_id": "b", "map_index": None, "state": "upstream_failed"}],
    }
    shown = await harness.get(f"/api/v1/runs/{three[0]}/tasks/a")
    assert (shown["state"], shown["result"], len(shown["attempts"])) == ("success", 1, 1)
    await harness.post(path, {"state": "success", "tasks": ["a"]}, status=409)
    await harness.post(path, {"state": "success", "tasks": ["x"]}, status=404)
    await harness.post(path, {"state": "skipped"}, status=422)
    await harness.post(path, {"state": "failed", "tasks": ["a"], "result": 1}, status=422)
    await harness.post(path, {"state": "cancelled"}, status=422)
    body = {"action": "mark", "state": "success", "filter": {"dag": "d"}}
    planned = await harness.post(BULK, {**body, "dry_run": True}, status=200)
    assert [run["run_id"] for run in planned["runs"]] == [three[1]]
    done = await harness.post(BULK, body, status=200)
    assert (done["counts"], done["runs"][0]["tasks"]) == ({"done": 1}, 2)
    assert (await harness.get(f"/api/v1/runs/{three[1]}"))["state"] == "success"
    await harness.post(BULK, {**body, "state": None}, status=422)
