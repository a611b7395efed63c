"""DAGs whose rules count the instances of mapped tasks, as Airflow's do."""

import msgspec
import pytest

from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import finish_task, mapped_lengths, start_run
from pubsubflow.model.runs.rules.trigger_rules import evaluate_rule
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.source.stored_specs import BY_INSTANCE, PLAIN, STORED_SPEC, needed_format
from pubsubflow.model.spec import MappedArgument, TriggerRule
from support.specs import dag, task

SUCCESS, FAILED, SKIPPED = TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED


def spec(*tasks):
    return msgspec.structs.replace(dag("d", *tasks), by_instance=True)


@pytest.mark.parametrize(
    ("rule", "ends", "expected"),
    [
        ("all_success", "sk", "skipped"),
        ("all_success", "sf", "upstream_failed"),
        ("all_failed", "sf", "skipped"),
        ("all_failed", "ff", "queued"),
        ("all_skipped", "sk", "skipped"),
        ("none_failed", "kk", "queued"),
        ("none_failed_min_one_success", "sk", "queued"),
        ("none_skipped", "sk", "skipped"),
        ("one_success", "kk", "skipped"),
    ],
)
def test_rules_count_instances(rule, ends, expected):
    counts = {"s": "success", "f": "failed", "k": "skipped"}
    entry = NodeProgress(len(ends), **{name: ends.count(each) for each, name in counts.items()})
    found = evaluate_rule(TriggerRule(rule), [entry], by_instance=True)
    assert found is TaskState(expected)


def test_a_fork_leaves_out_what_does_not_follow_it():
    plan = Plan(spec(task("fork", role="branch"), task("near", "fork"), task("far", "near")))
    progress, _ = start_run(plan)
    assert finish_task(plan, progress, 0, SUCCESS, follow=("!far",)).ready == [(1, -1)]
    decision = finish_task(plan, progress, 1, SUCCESS)
    assert decision.resolved == [(2, -1, SKIPPED)]
    assert decision.ended is RunState.SUCCESS


@pytest.mark.parametrize(
    ("end", "rule", "expected"),
    [
        (FAILED, "all_done", TaskState.UPSTREAM_FAILED),
        (FAILED, "all_skipped", TaskState.UPSTREAM_FAILED),
        (SKIPPED, "all_done", SKIPPED),
        (SKIPPED, "all_success", SKIPPED),
    ],
)
def test_what_is_mapped_over_nothing_cannot_start(end, rule, expected):
    after = task("after", "first", over=["first"], trigger_rule=TriggerRule(rule))
    plan = Plan(spec(task("first"), after))
    progress, _ = start_run(plan)
    assert finish_task(plan, progress, 0, end).resolved == [(1, -1, expected)]


def test_lengths_of_what_is_joined():
    parts = (MappedArgument("a", node=0), MappedArgument("b", length=2))
    joined = [
        MappedArgument(kind, joined=kind, parts=parts) for kind in ("zip", "longest", "concat")
    ]
    nested = MappedArgument("n", joined="concat", parts=(joined[0], parts[0]))
    made = spec(task("first"), task("each", "first"))
    each = msgspec.structs.replace(made.tasks[1], mapped_arguments=(*joined, nested))
    plan = Plan(msgspec.structs.replace(made, tasks=(made.tasks[0], each)))
    progress, _ = start_run(plan)
    ready = finish_task(plan, progress, 0, SUCCESS, length=3).ready
    assert mapped_lengths(plan, plan.spec.tasks[1], progress) == (2, 3, 5, 5)
    assert len(ready) == 150


def test_daemons_of_before_leave_such_dags_to_newer_ones():
    made = spec(task("first"))
    assert needed_format(dag("d", task("first"))) == PLAIN
    assert needed_format(made) == BY_INSTANCE
    assert STORED_SPEC.decode(STORED_SPEC.encode(made)) == made
