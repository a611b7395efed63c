"""What a task waits for in the previous run, against a reference in plain words."""

from itertools import product

import pytest

from pubsubflow import DAG
from pubsubflow.authoring.tasks.operators import EmptyOperator
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.past import PastRun, ended_nodes, unmet_task
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import finish_task, release_held, start_run
from pubsubflow.model.runs.states import TaskState
from support.specs import dag, task

WORDS = {
    "s": TaskState.SUCCESS,
    "f": TaskState.FAILED,
    "k": TaskState.SKIPPED,
    "u": TaskState.UPSTREAM_FAILED,
}
ENDS = ["", *"sfku", "ss", "sk", "sf", "kk", "s-"]  # `-`: an instance that has not ended


def node(ends):
    found = NodeProgress(total=len(ends)) if ends else NodeProgress()
    for letter in ends.replace("-", ""):
        found.count(WORDS[letter])
    return found


def met(ends):
    return bool(ends) and set(ends) <= set("sk")


@pytest.mark.parametrize("downstream", [False, True])
def test_a_task_waits_for_what_has_not_ended_well(downstream):
    spec = dag("d", task("a", wait_for_downstream=downstream), task("b", "a"), task("c", "b"))
    for ends in product(ENDS, repeat=3):
        past = PastRun(spec, [node(each) for each in ends])
        needed = "ab" if downstream else "a"
        expected = next((n for n, e in zip(needed, ends, strict=False) if not met(e)), None)
        assert unmet_task(spec.tasks[0], past) == expected


def test_what_is_absent_is_waited_for_by_none():
    spec = dag("d", task("new", depends_on_past=True))
    assert unmet_task(spec.tasks[0], None) is None
    assert unmet_task(spec.tasks[0], PastRun(dag("d", task("old")), [NodeProgress()])) is None


def test_a_run_that_ended_is_read_from_its_tasks():
    spec = dag("d", task("a"), task("b"), task("c"))
    ended = [(0, TaskState.SUCCESS), (0, TaskState.FAILED), (1, TaskState.SKIPPED)]
    past = PastRun(spec, ended_nodes(spec, ended))
    found = [unmet_task(each, past) for each in spec.tasks]
    assert found == ["a", None, "c"]  # the third was never made: its run was cancelled


def test_a_task_is_held_and_released_once_its_rule_holds():
    plan = Plan(dag("d", task("a"), task("b", "a", depends_on_past=True), task("c", "b")))
    assert plan.past
    assert plan.chains[0] == ()
    progress, _ = start_run(plan)
    assert release_held(plan, progress, 1).ready == []  # too early: the rule decides
    progress, _ = start_run(plan)
    decision = finish_task(plan, progress, 0, TaskState.SUCCESS)
    assert (decision.ready, decision.held, decision.ended) == ([], [1], None)
    assert release_held(plan, progress, 1).ready == [(1, -1)]
    assert finish_task(plan, progress, 1, TaskState.SUCCESS).ready == [(2, -1)]


def test_what_is_skipped_by_its_rule_waits_for_nothing():
    plan = Plan(dag("d", task("a"), task("b", "a", depends_on_past=True)))
    progress, _ = start_run(plan)
    decision = finish_task(plan, progress, 0, TaskState.SKIPPED)
    assert (decision.held, decision.resolved) == ([], [(1, -1, TaskState.SKIPPED)])


def test_the_keywords():
    with DAG("d", default_args={"depends_on_past": True}) as made:
        EmptyOperator(task_id="a")
        EmptyOperator(task_id="b", depends_on_past=False)
        EmptyOperator(task_id="c", depends_on_past=False, wait_for_downstream=True)
    found = [(t.depends_on_past, t.wait_for_downstream) for t in made.to_spec("", "").tasks]
    assert found == [(True, False), (False, False), (True, True)]
    assert made.test().state == "success"
