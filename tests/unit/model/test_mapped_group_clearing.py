"""Clearing of single indexes of mapped groups, and the end of runs that are closed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clearing import Play
from test_mapped_groups import PATIENT, RandomResults, Unrolled, collapse, specs, window

from pubsubflow.model.runs import progress as progress_module
from pubsubflow.model.runs.clearing import TaskSelection, clear, select
from pubsubflow.model.runs.closing import close_run
from pubsubflow.model.runs.mapped.groups import GroupProgress
from pubsubflow.model.runs.mapped.waits import describe_groups
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import (
    STORED_PROGRESS,
    Decision,
    finish_task,
    resume_run,
    start_run,
)
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec, TriggerRule
from pubsubflow.model.wire.messages import NOT_MAPPED

ROWS, A, B, GATHER = range(4)


def plan(length=None, **roles):
    over = (MappedArgument("x", length, ROWS),)
    return Plan(
        DagSpec(
            "d",
            "d.py",
            "h",
            (
                TaskSpec(ROWS, "rows"),
                TaskSpec(A, "g.a", upstream=(ROWS,), mapped_arguments=over, map_group="g", **roles),
                TaskSpec(
                    B, "g.b", upstream=(A,), inputs=(A,), mapped_arguments=over, map_group="g"
                ),
                TaskSpec(GATHER, "gather", upstream=(B,), inputs=(B,)),
            ),
        )
    )


def ended(of, length=3):
    """Return a run of which every instance has succeeded, but B of the last index."""
    progress, steps = start_run(of)
    states, waiting = {}, list(steps.ready)
    while waiting:
        node, index = waiting.pop(0)
        failed = (node, index) == (B, length - 1)
        state = TaskState.FAILED if failed else TaskState.SUCCESS
        states[node, index] = state
        found = {"length": length} if node == ROWS else {}
        steps = finish_task(of, progress, node, state, map_index=index, **found)
        states.update({(node, index): state for node, index, state in steps.resolved})
        waiting += steps.ready
    return progress, states


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (TaskSelection(("g.a.1",)), {(A, 1)}),
        (
            TaskSelection(("g.a.1",), downstream=True),
            {(A, 1), (B, 1), (GATHER, NOT_MAPPED)},
        ),
        (
            TaskSelection(("g.b.2",), upstream=True),
            {(ROWS, NOT_MAPPED), *((node, index) for node in (A, B) for index in range(3))},
        ),
        (TaskSelection(only_failed=True), {(B, 2), (GATHER, NOT_MAPPED)}),
        (TaskSelection(("g.a",)), {(A, 0), (A, 1), (A, 2)}),
    ],
)
def test_an_instance_is_cleared_with_its_index(asked, chosen):
    of = plan()
    progress, states = ended(of)
    assert select(of, progress, states, asked) == chosen


def test_a_cleared_index_runs_again_and_the_others_stay():
    of = plan()
    progress, states = ended(of)
    chosen = select(of, progress, states, TaskSelection(("g.a.1",), downstream=True))
    again = clear(of, progress, states, chosen, {})
    assert again == []
    assert resume_run(of, progress, again).ready == [(A, 1)]
    assert finish_task(of, progress, A, TaskState.SUCCESS, map_index=1).ready == [(B, 1)]
    steps = finish_task(of, progress, B, TaskState.SUCCESS, map_index=1)
    # The last index has failed, before as now.
    assert steps.resolved == [(GATHER, NOT_MAPPED, TaskState.UPSTREAM_FAILED)]
    assert steps.ended is RunState.FAILED


@settings(max_examples=100, deadline=None)
@given(specs(PATIENT), st.integers(0, 10**6), st.integers(0, 20), st.integers(1, 4), st.data())
def test_whatever_is_cleared_with_what_follows_a_group_ends_as_its_unrolled_form(
    spec, seed, most, room, data
):
    """Whole tasks or single instances, while the run lives or when it has ended; twice."""
    of = Plan(spec)
    run = Play(of, RandomResults(of, seed))
    with window(room):
        live = run.play(most)
        for steps in (data.draw(st.integers(0, 20)), 10_000):
            made = sorted({*run.states, *live})
            names = [
                f"t{node}"
                if index == NOT_MAPPED or data.draw(st.booleans())
                else f"t{node}.{index}"
                for node, index in data.draw(st.lists(st.sampled_from(made), max_size=2))
            ]
            if names:
                chosen = run.clear(TaskSelection(tuple(names), downstream=True), live)
                run._steps.ready += [key for key in live if key not in chosen]
            else:
                run._steps = Decision(ready=live)
            live = run.play(len(run.ran) + steps)
    assert live == []
    assert run.progress.incomplete == 0
    assert collapse(run.states) == collapse(Unrolled(of, RandomResults(of, seed)).ended)


def test_an_index_goes_on_before_the_others_and_few_have_rows(monkeypatch):
    monkeypatch.setattr(progress_module, "MAP_WINDOW", 2)
    of = plan()
    progress, _ = start_run(of)
    assert finish_task(of, progress, ROWS, TaskState.SUCCESS, length=10_000).ready == [
        (A, 0),
        (A, 1),
    ]
    assert finish_task(of, progress, A, TaskState.SUCCESS, map_index=0).ready == [(B, 0)]
    assert list(describe_groups(of, progress)) == [
        "task g.b.1 waits for g.a.1",
        "group g: 9,998 of 10,000 indexes have not begun",
    ]
    assert finish_task(of, progress, B, TaskState.SUCCESS, map_index=0).ready == [(A, 2)]
    assert list(progress.groups[0].open_indexes(of.groups[0])) == [1, 2]
    assert len(STORED_PROGRESS.encode(progress)) < 100


def test_a_closed_run_cleans_up_after_each_index_that_was_set_up():
    over = (MappedArgument("x", 3),)
    common = {"mapped_arguments": over, "map_group": "g"}
    of = Plan(
        DagSpec(
            "d",
            "d.py",
            "h",
            (
                TaskSpec(0, "g.make", role="setup", **common),
                TaskSpec(1, "g.work", upstream=(0,), **common),
                TaskSpec(
                    2,
                    "g.drop",
                    role="teardown",
                    upstream=(0, 1),
                    trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS,
                    **common,
                ),
            ),
        )
    )
    progress, _ = start_run(of)
    finish_task(of, progress, 0, TaskState.SUCCESS, map_index=1)
    steps = close_run(of, progress)
    assert steps.ready == [(2, 1)]
    assert {(node, index) for node, index, _ in steps.resolved} == {(2, 0), (2, 2)}
    assert finish_task(of, progress, 2, TaskState.SUCCESS, map_index=1).ended is not None
    assert progress.incomplete == 0


def test_a_dag_without_mapped_groups_keeps_nothing_of_them():
    of = Plan(DagSpec("d", "d.py", "h", (TaskSpec(0, "a"),)))
    progress, _ = start_run(of)
    assert (of.groups, of.group_of, progress.groups) == ((), {}, [])
    assert isinstance(GroupProgress().rows, dict)
