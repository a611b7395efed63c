"""What follows from a DAG's spec alone."""

import msgspec
import pytest
from hypothesis import given, settings
from test_progress_properties import specs

from pubsubflow.model.runs.concurrency import Limit
from pubsubflow.model.runs.plan import LONGEST_CHAIN, Plan
from pubsubflow.model.spec import DagSpec, TaskSpec, TriggerRule
from pubsubflow.model.wire.task_resources import ResourcesSpec
from support.specs import dag, task

PATIENT_CHAINS = (
    TriggerRule.ALL_DONE_SETUP_SUCCESS,
    TriggerRule.ALL_SUCCESS,
    TriggerRule.ALL_DONE,
    TriggerRule.NONE_FAILED,
)


def chains(*tasks):
    plan = Plan(dag("d", *tasks))
    names = [each.task_id for each in plan.spec.tasks]
    return {
        name: [names[node] for node in chain]
        for name, chain in zip(names, plan.chains, strict=True)
        if chain
    }


def test_a_line_of_tasks_is_one_chain():
    assert chains(task("a"), task("b", "a"), task("c", "b")) == {"a": ["b", "c"], "b": ["c"]}


def test_a_chain_has_an_end():
    tasks = [task("t0"), *(task(f"t{n}", f"t{n - 1}") for n in range(1, 200))]
    assert len(chains(*tasks)["t0"]) == LONGEST_CHAIN


def test_a_fan_out_and_a_fan_in_end_a_chain():
    fan = [task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c")]
    assert chains(*fan, task("e", "d")) == {"d": ["e"]}


@pytest.mark.parametrize(
    "follower",
    [
        {"over": ["a"]},
        {"over": [2]},
        {"kind": "sync"},
        {"kind": "empty"},
        {"queue": "gpu"},
        {"pool": "db"},
        {"concurrency_key": "k"},
        {"resources": ResourcesSpec(cpu=1)},
        {"trigger_rule": TriggerRule.ALL_FAILED},
        {"trigger_rule": TriggerRule.ALWAYS},
        {"trigger_rule": TriggerRule.ONE_SUCCESS},
        {"trigger_rule": TriggerRule.ONE_FAILED},
    ],
)
def test_a_chain_does_not_go_on_with(follower):
    assert chains(task("a"), task("b", "a", **follower)) == {}


@pytest.mark.parametrize("role", ["branch", "short_circuit", "setup", "teardown"])
def test_a_chain_does_not_go_past(role):
    assert chains(task("a"), task("b", "a", role=role), task("c", "b")) == {"a": ["b"]}


def test_a_chain_does_not_start_at_a_mapped_task():
    assert chains(task("a", over=[2]), task("b", "a"), task("c", "b")) == {"b": ["c"]}


@given(specs(sorted(TriggerRule)))
@settings(deadline=None)
def test_every_link_is_all_that_the_one_before_leads_to(spec):
    plan = Plan(spec)
    for node, chain in enumerate(plan.chains):
        for before, after in zip((node, *chain), chain, strict=False):
            assert plan.downstream[before] == (after,)
            assert spec.tasks[after].upstream == (before,)
            assert spec.tasks[before].role == "task"
            assert not spec.tasks[before].mapped
            assert not spec.tasks[after].mapped
            assert spec.tasks[before].kind == spec.tasks[after].kind
            assert spec.tasks[after].trigger_rule in PATIENT_CHAINS


@given(specs(sorted(TriggerRule)))
@settings(deadline=None)
def test_a_spec_survives_its_serialised_form(spec):
    for protocol in (msgspec.msgpack, msgspec.json):
        assert protocol.decode(protocol.encode(spec), type=DagSpec) == spec


def test_leaves_are_what_only_teardowns_follow():
    plan = Plan(
        dag("d", task("a"), task("b", "a"), task("c", "a"), task("down", "b", role="teardown"))
    )
    assert plan.leaves == (1, 2)


def test_a_task_of_an_older_version_gets_the_defaults():
    assert msgspec.json.decode(b'{"node": 0, "task_id": "a"}', type=TaskSpec) == TaskSpec(0, "a")


def test_a_plan_knows_what_its_tasks_need_slots_of():
    assert Plan(dag("d", task("a"), task("b", priority=3))).limits == ()
    limited = dag("d", task("a"), task("b", pool="p", concurrency_key="k"), max_active_tasks=2)
    assert Plan(limited).limits == (
        (Limit("dag:d", 2),),
        (Limit("dag:d", 2), Limit("key:k", 1), Limit("pool:p")),
    )


def test_tasks_of_a_dag_that_bounds_them_are_handed_out_one_by_one():
    assert Plan(dag("d", task("a"), task("b", "a"), max_active_tasks=2)).chains == ((), ())
