"""Timelines: when the tasks of a run were queued, ran, waited and paused."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.spec import RetryPolicy
from pubsubflow.store.read.history.timeline import spans_of
from support.specs import dag, task

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.anyio
async def test_attempts_and_many_instances_have_their_times(harness):
    await harness.load(
        dag(
            "d",
            task("list", retry=RetryPolicy(1)),
            task("each", "list", over=("list",)),
            task("sum", "each"),
        )
    )
    run = await harness.start("d")
    await harness.begin(run, 0)
    await harness.fail(run, 0, started=0, ended=1)
    await harness.begin(run, 0, attempt=2)
    await harness.finish(run, 0, attempt=2, value=list(range(30)), started=2, ended=3)
    for index in range(30):
        await harness.finish(run, 1, map_index=index, started=3, ended=4 + index)
    path = f"/api/v1/runs/{run}/timeline"
    found = await harness.get_until(
        path, lambda found: found["lanes"][1:] and found["lanes"][1]["states"].get("success") == 30
    )
    first, each, *_ = found["lanes"]
    kinds = [(span["kind"], span["attempt"]) for span in first["tasks"][0]["spans"]]
    assert kinds.index(("running", 1)) < kinds.index(("running", 2))
    assert (each["task_id"], each["instances"], each["tasks"]) == ("each", 30, [])
    assert each["band"]["running"][0] == 30
    # One begins when it was queued at the earliest, which a busy machine does later.
    assert each["longest_seconds"] == pytest.approx(30, abs=20)
    unfolded = await harness.get(f"{path}?task=each&skip=25&limit=10")
    (lane,) = unfolded["lanes"]
    assert [one["map_index"] for one in lane["tasks"]] == [25, 26, 27, 28, 29]
    await harness.get(f"{path}?task=none", status=404)


moments = st.integers(0, 100).map(lambda number: NOON + timedelta(seconds=number))


@given(
    st.lists(st.tuples(moments, moments).map(sorted), max_size=4),
    st.lists(moments, min_size=3, max_size=3).map(sorted),
    st.sampled_from(["success", "running", "queued", "up_for_retry"]),
)
def test_parts_of_a_task_follow_each_other_and_do_not_overlap(attempts, times, state):
    rows, after = [], NOON
    for number, (start, end) in enumerate(attempts, start=1):
        length = end - start
        rows.append(
            {"attempt": number, "state": "failed", "started_at": after, "ended_at": after + length}
        )
        after += length + timedelta(seconds=1)
    queued, started, ended = (after + (each - NOON) for each in times)
    found = spans_of(
        {
            "attempt": len(rows) + 1,
            "state": state,
            "queued_at": queued,
            "started_at": started if state in ("success", "running") else None,
            "ended_at": ended if state == "success" else None,
        },
        rows,
        [],
    )
    for one, other in pairwise(found):
        assert one.end is not None
        assert one.start <= one.end <= other.start
    assert [each.attempt for each in found if each.kind == "running"][: len(rows)] == [
        row["attempt"] for row in rows
    ]
    assert not found or (found[-1].end is None) == (state != "success")
