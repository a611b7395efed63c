"""Runs of DAGs that fail fast: a failure stops all other tasks but teardowns."""

import msgspec
import pytest

from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import finish_task, start_run
from pubsubflow.model.runs.rules.failing_fast import fail_fast
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.source.stored_specs import FAIL_FAST, STORED_SPEC, needed_format
from pubsubflow.model.spec import TriggerRule
from support.specs import dag, task

SUCCESS, FAILED, SKIPPED = TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED
DROP = {"role": "teardown", "trigger_rule": TriggerRule.ALL_DONE_SETUP_SUCCESS}
RUNNING, QUEUED = TaskState.RUNNING, TaskState.QUEUED


def planned(*tasks):
    return Plan(msgspec.structs.replace(dag("d", *tasks), by_instance=True, fail_fast=True))


def test_what_runs_has_failed_and_what_has_not_begun_is_skipped():
    tasks = [task(name) for name in ("bad", "runs", "waits")]
    plan = planned(*tasks, task("after", "bad"), task("last", "after", "runs"))
    progress, _ = start_run(plan)
    live = {(1, -1): RUNNING, (2, -1): QUEUED}
    stopped, decision = fail_fast(plan, progress, (0, -1), live)
    assert stopped == [
        (1, -1, FAILED),
        (2, -1, SKIPPED),
        (3, -1, SKIPPED),
        (4, -1, SKIPPED),
    ]
    assert (decision.ready, decision.resolved, decision.ended) == ([], [], RunState.SUCCESS)


def test_teardowns_of_what_was_set_up_still_run():
    plan = planned(
        task("make", role="setup"),
        task("other"),
        task("work", "make"),
        task("drop", "make", "work", **DROP),
        task("unmade", role="setup"),
        task("unmade_drop", "unmade", **DROP),
    )
    progress, _ = start_run(plan)
    finish_task(plan, progress, 0, SUCCESS)
    live = {(2, -1): RUNNING, (4, -1): QUEUED}
    stopped, decision = fail_fast(plan, progress, (1, -1), live)
    assert stopped == [(2, -1, FAILED), (4, -1, SKIPPED)]
    assert decision.ready == [(3, -1)]
    assert decision.resolved == [(5, -1, SKIPPED)]
    assert finish_task(plan, progress, 3, SUCCESS).ended is RunState.FAILED


def test_other_instances_of_the_task_that_failed_go_on():
    plan = planned(
        task("first"),
        task("each", "first", over=["first"]),
        task("double", "first", over=["first"]),
        task("after", "each"),
    )
    progress, _ = start_run(plan)
    finish_task(plan, progress, 0, SUCCESS, length=2)
    live = {(1, 1): RUNNING, (2, 0): RUNNING, (2, 1): TaskState.DEFERRED}
    stopped, decision = fail_fast(plan, progress, (1, 0), live)
    assert stopped == [(2, 0, FAILED), (2, 1, SKIPPED), (3, -1, SKIPPED)]
    assert decision.ended is None
    assert finish_task(plan, progress, 1, SUCCESS, map_index=1).ended is RunState.FAILED


def test_instances_that_are_not_made_yet_are_skipped():
    plan = planned(task("first"), task("bad"), task("each", "first", over=["first"]))
    progress, _ = start_run(plan)
    ready = finish_task(plan, progress, 0, SUCCESS, length=400).ready
    assert len(ready) == 250
    stopped, decision = fail_fast(plan, progress, (1, -1), dict.fromkeys(ready, QUEUED))
    assert {state for *_, state in stopped} == {SKIPPED}
    assert [index for _, index, _ in stopped] == list(range(400))
    assert decision.ended is RunState.FAILED


@pytest.mark.parametrize("length", [None, 300])
def test_mapped_groups(length):
    """Before their indexes are known they end as a whole; then index by index, also the unbegun."""
    group = {"over": ["first"], "map_group": "g"}
    plan = planned(
        task("first"),
        task("bad"),
        task("one", "first", **group),
        task("two", "one", **group),
        task("drop", "two", **DROP, **group),
    )
    progress, _ = start_run(plan)
    live = {(0, -1): QUEUED}
    if length:
        ready = finish_task(plan, progress, 0, SUCCESS, length=length).ready
        live = dict.fromkeys(ready, RUNNING)
        for done in (0, 1):
            finish_task(plan, progress, 2, SUCCESS, map_index=done)
            live.pop((2, done))
        live[3, 0] = live[3, 1] = QUEUED
    stopped, _ = fail_fast(plan, progress, (1, -1), live)
    states = {(node, index): state for node, index, state in stopped}
    if length is None:
        assert states == {(0, -1): SKIPPED, (2, -1): SKIPPED, (3, -1): SKIPPED}
        return
    assert len(states) == len(stopped) == 298 + 300
    assert {states[2, index] for index in range(2, 250)} == {FAILED}
    assert {states[2, index] for index in range(250, 300)} == {SKIPPED}
    assert {states[3, index] for index in range(300)} == {SKIPPED}


def test_daemons_of_before_leave_such_dags_to_newer_ones():
    made = planned(task("first")).spec
    assert needed_format(made) == FAIL_FAST
    assert STORED_SPEC.decode(STORED_SPEC.encode(made)) == made
