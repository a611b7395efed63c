"""Tasks of many runs: found by filters page by page, cleared and marked run by run."""

import pytest

from support.specs import dag, task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def three(harness):
    """Three runs whose mapped task has failed, an instance each, beside those of another DAG."""
    await harness.load(
        dag("d", task("load", over=[2]), task("publish", "load"), tags=("core",)),
        dag("other", task("load")),
    )
    ids = []
    for number in range(3):
        run_id = await harness.start("d", partition=f"p{number}")
        await harness.finish(run_id, 0, map_index=0)
        await harness.fail(run_id, 0, map_index=1, final=True)
        await harness.wait(run_id, "failed")
        ids.append(run_id)
    await harness.start("other")
    return ids


async def act(harness, request, *, status=200):
    return await harness.post("/api/v1/tasks/bulk", request, status=status)


async def listed(harness, question):
    items, after = [], ""
    while True:
        page = await harness.get(f"/api/v1/tasks?{question}{after}")
        items += [
            (each["run_id"], each["task_id"], each["map_index"], each["state"])
            for each in page["items"]
        ]
        if page.get("next") is None:
            return items
        after = f"&after={page['next']}"


async def test_tasks_are_found_over_runs_page_by_page(harness, three):
    first, second, third = three
    failed = [(run_id, "load", 1, "failed") for run_id in (third, second, first)]
    assert await listed(harness, "dag=d&state=failed") == failed
    assert await listed(harness, "dag=d&state=failed&limit=1") == failed
    assert await listed(harness, "tag=core&task=load&state=failed&partition=p1") == [failed[1]]
    whole = await listed(harness, "dag=d&limit=2")
    assert len(whole) == len(set(whole)) == 9
    assert [run_id for run_id, *_ in whole] == [third] * 3 + [second] * 3 + [first] * 3
    assert [each[1:] for each in whole[:3]] == [
        ("load", 0, "success"), ("load", 1, "failed"), ("publish", None, "upstream_failed")
    ]  # fmt: skip
    assert [each[1] for each in await listed(harness, "dag=d&task=publish")] == ["publish"] * 3
    assert [each[3] for each in await listed(harness, "dag=other")] == ["queued"]
    assert await listed(harness, "task=load&run_state=success") == []
    assert await listed(harness, "since=2100-01-01T00:00:00Z&state=failed") == []
    await harness.get("/api/v1/tasks?state=lost", status=400)
    await harness.get("/api/v1/tasks?dag=nobody", status=404)


async def test_tasks_of_many_runs_are_cleared_and_marked_as_they_were_chosen(harness, three):
    first, second, third = three
    request = {"action": "clear", "filter": {"dag": "d", "state": ["failed"]}}
    planned = await act(harness, {**request, "dry_run": True, "limit": 2})
    assert [(each["run_id"], each["chosen"]) for each in planned["runs"]] == [
        (third, ["load.1"]), (second, ["load.1"])
    ]  # fmt: skip
    assert (planned["counts"], await listed(harness, "dag=d&state=queued")) == ({"planned": 2}, [])
    rest = await act(harness, {**request, "dry_run": True, "after": planned["next"]})
    assert [each["run_id"] for each in rest["runs"]] == [first]
    exactly = [
        {name: each[name] for name in ("run_id", "cleared", "chosen")} for each in planned["runs"]
    ]
    done = await act(harness, {"action": "clear", "runs": exactly})
    assert done["counts"] == {"done": 2}
    assert {each[0] for each in await listed(harness, "dag=d&state=queued")} == {second, third}
    # Sent again it changes nothing: their tasks were cleared meanwhile.
    assert (await act(harness, {"action": "clear", "runs": exactly}))["counts"] == {"left": 2}
    marked = await act(
        harness, {"action": "mark", "state": "skipped", "filter": {"dag": "d", "task": ["publish"]}}
    )
    assert [each["run_id"] for each in marked["runs"]] == [third, second, first]
    assert marked["counts"] == {"done": 3}
    assert len(await listed(harness, "dag=d&state=skipped")) == 3
    for wrong in ({"filter": {}}, {"filter": {"dag": "d"}, "state": "failed"}, {}):
        await act(harness, {"action": "clear", **wrong}, status=422)
    nobody = {"run_id": "01a20c9f-6f6e-7bd2-9a53-0c4d56f0b8f1", "cleared": 0, "chosen": ["a"]}
    await act(harness, {"action": "clear", "runs": [nobody]}, status=404)
