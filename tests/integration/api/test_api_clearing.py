"""Runs that go on, and pools, over HTTP."""

import pytest

from pubsubflow.model.wire.messages import Outcome, TaskError
from support.specs import dag, task

pytestmark = pytest.mark.anyio
NO = TaskError("E", "no")


@pytest.fixture
async def failed(harness):
    """A run of a → b in which a has failed."""
    await harness.load(dag("d", task("a"), task("b", "a")))
    run_id = await harness.start("d")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED, error=NO)
    await harness.wait(run_id, "failed")
    return run_id


async def test_a_run_is_retried(harness, failed):
    path = f"/api/v1/runs/{failed}/retry"
    tasks = [
        {"task_id": "a", "map_index": None, "state": "failed"},
        {"task_id": "b", "map_index": None, "state": "upstream_failed"},
    ]
    answer = {"run_id": failed, "state": "failed", "dry_run": True, "tasks": tasks}
    assert await harness.post(path, {"dry_run": True}, status=200) == answer
    assert (await harness.get(f"/api/v1/runs/{failed}"))["state"] == "failed"
    answer |= {"state": "running", "dry_run": False}
    assert await harness.request("POST", path) == answer
    assert "has not ended" in (await harness.post(path, {}, status=409))["detail"]
    run = await harness.get(f"/api/v1/runs/{failed}")
    assert (run["state"], run["cleared"], run["ended_at"]) == ("running", 1, None)
    shown = await harness.get(f"/api/v1/runs/{failed}/tasks/a")
    assert shown["attempt"] == 2
    assert [(each["attempt"], each["state"]) for each in shown["attempts"]] == [(1, "failed")]


async def test_chosen_tasks_are_cleared(harness, failed):
    path = f"/api/v1/runs/{failed}/clear"
    answer = await harness.post(path, {"tasks": ["a"], "downstream": True}, status=200)
    assert [each["task_id"] for each in answer["tasks"]] == ["a", "b"]
    await harness.post(path, {"tasks": ["b"]}, status=409)
    await harness.post(path, {"tasks": ["x"]}, status=404)
    await harness.post(path, {"tasks": [""]}, status=422)
    await harness.post(path, {"task": "a"}, status=422)
    await harness.post(path.replace(failed, failed[:-1] + "g"), {}, status=404)


async def test_pools_are_set_listed_and_removed(harness):
    await harness.load(dag("d", task("t", pool="p")))
    await harness.request("PUT", "/api/v1/pools/p", json={"slots": 1})
    first, second = [await harness.start("d") for _ in range(2)]
    pool = await harness.get("/api/v1/pools/p")
    assert pool.pop("changed_at")
    revision = pool.pop("revision")
    assert pool == {"name": "p", "slots": 1, "used": 1, "waiting": 1}
    (waiting,) = (await harness.get(f"/api/v1/runs/{second}/tasks"))["items"]
    assert (waiting["state"], waiting["waits_for"]) == ("ready", "pool p: 1 of 1 slots used")
    await harness.request("PUT", "/api/v1/pools/a%2Fb", json={"slots": 2})
    page = await harness.get("/api/v1/pools?limit=1")
    assert [pool["name"] for pool in page["items"]] == ["a/b"]
    page = await harness.get(f"/api/v1/pools?after={page['next']}")
    assert ([pool["name"] for pool in page["items"]], page["next"]) == (["p"], None)
    path, stale = "/api/v1/pools/p", {"If-Match": '"unset"'}
    await harness.request("PUT", path, json={"slots": 9}, headers=stale, status=412)
    await harness.request("DELETE", path, headers=stale, status=412)
    await harness.request("DELETE", path, headers={"If-Match": f'"{revision}"'}, status=204)
    (released,) = (await harness.get(f"/api/v1/runs/{second}/tasks"))["items"]
    assert released["state"] == "queued"
    assert (await harness.get("/api/v1/pools/p"))["slots"] is None
    await harness.request("DELETE", "/api/v1/pools/p", status=404)
    for run_id in (first, second):
        await harness.finish(run_id, 0)
        await harness.wait(run_id, "success")
    await harness.get("/api/v1/pools/p", status=404)


@pytest.mark.parametrize("body", [{"slots": -1}, {"slots": "4"}, {}, {"slots": 1, "x": 1}])
async def test_a_pool_without_a_number_of_slots_is_422(harness, body):
    await harness.request("PUT", "/api/v1/pools/p", json=body, status=422)
    await harness.request("PUT", f"/api/v1/pools/{'x' * 300}", json={"slots": 1}, status=422)
