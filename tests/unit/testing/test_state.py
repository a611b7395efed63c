"""The state of a DAG in `dag.test()`, and the rule by which its changes take effect."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import DAG, Context, Dataset, DefinitionError, StepFailed, task
from pubsubflow.authoring.runtime.state import DagState
from pubsubflow.model.values.state import StateChange, StateValue, find_conflict
from pubsubflow.testing import run_inputs
from pubsubflow.testing.state import TestState

ORDERS = Dataset("s3://lake/orders")


def watermark():
    with DAG("d") as made:

        @task
        def load(ctx: Context) -> int:
            since = ctx.state.get(ORDERS, 0)
            ctx.state[ORDERS] = since + 10
            ctx.state["runs"] = [*ctx.state.get("runs", []), ctx.state[ORDERS]]
            return since

        load()
    return made


def test_a_watermark_goes_on_where_it_was():
    first = watermark().test()
    assert first.result("load") == 0
    assert first.state_values == {"s3://lake/orders": 10, "runs": [10]}
    second = watermark().test(state={ORDERS: 10, "runs": [10]})
    assert second.result("load") == 10
    assert second.state_values == {"s3://lake/orders": 20, "runs": [10, 20]}


def test_a_later_task_sees_what_an_earlier_one_has_set_and_a_failed_one_sets_nothing():
    with DAG("d") as made:

        @task
        def first(ctx: Context) -> None:
            ctx.state["x"] = 1

        @task
        async def second(ctx: Context) -> list:
            found = ["x" in ctx.state, ctx.state["x"], ctx.state.get("y", "none")]
            del ctx.state["x"]
            return [*found, "x" in ctx.state]

        @task(trigger_rule="all_done")
        def third(ctx: Context) -> None:
            ctx.state["z"] = 1
            raise ValueError

        first() >> second() >> third()
    result = made.test()
    assert result.result("second") == [True, 1, "none", False]
    assert result.state_values == {}


def test_a_change_that_another_task_overtook_fails_and_is_tried_again(monkeypatch):
    shared = TestState()
    monkeypatch.setattr(run_inputs, "TestState", lambda _: shared)
    with DAG("d") as made:

        @task(retries=1)
        async def slow(ctx: Context) -> int:
            before = ctx.state.get("n", 0)
            if ctx.attempt == 1:
                shared.apply([StateChange("n", "5")])
            ctx.state["n"] = before + 1
            return ctx.attempt

        slow()
    result = made.test()
    assert (result.result("slow"), result.state_values) == (2, {"n": 6})


@pytest.mark.parametrize(
    "value", [datetime(2026, 1, 1, tzinfo=UTC), (1,), {1: 2}, object(), "x" * 17_000]
)
def test_what_cannot_be_kept_is_refused_at_its_line(value):
    with DAG("d") as made:

        @task
        def step(ctx: Context) -> None:
            ctx.state["x"] = value

        step()
    with pytest.raises(DefinitionError, match=r"ctx.state\['x'\]: a state"):
        made.test(raise_on_error=True)


def test_a_step_cannot_change_the_state():
    with DAG("d") as made:

        @task
        async def step(ctx: Context) -> None:
            await ctx.step("s", ctx.state.__setitem__, "x", 1)

        step()
    with pytest.raises(StepFailed, match=r"ctx.state\(\) is inside of a step"):
        made.test(raise_on_error=True)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["read", "add", "set", "end"])), max_size=40
    )
)
def test_no_increment_is_lost_however_attempts_overlap(steps):
    """Counters that are read and set again count every attempt that succeeded, and only those."""
    store, kept = TestState({"n": 0}), 0
    attempts = {}
    for number, what in steps:
        state = attempts.setdefault(number, DagState(store.read, lambda: None))
        if what == "read":
            state.get("n")
        elif what == "add":
            state["n"] = state["n"] + 1
        elif what == "set":
            state["other"] = number
        else:
            changes = state.changes()
            before = store.read("n").value
            added = next((int(each.value) for each in changes if each.name == "n"), None)
            if store.apply(changes) is None and added is not None:
                kept += added - int(before)
                assert added > int(before)
            del attempts[number]
    assert store.values()["n"] == kept


def test_a_change_without_a_read_is_the_last_one_that_counts():
    changes = (StateChange("x", "1"), StateChange("y", "1", 3))
    assert find_conflict(changes, {"x": 7, "y": 3}) is None
    assert "'y'" in find_conflict(changes, {"x": 7, "y": 4})
    assert find_conflict((StateChange("x", None, 0),), {}) is None
    assert StateValue() == StateValue(None, 0)
