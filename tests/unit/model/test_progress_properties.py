"""Whatever the DAG and whatever happens: every run ends, every node once, in any order alike."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import finish_task, start_run
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec, TriggerRule
from pubsubflow.model.wire.messages import NOT_MAPPED

EAGER = (TriggerRule.ONE_SUCCESS, TriggerRule.ONE_FAILED, TriggerRule.ONE_DONE)
PATIENT = sorted(set(TriggerRule) - set(EAGER))
ENDINGS = [TaskState.SUCCESS] * 4 + [TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED]


@st.composite
def specs(draw, rules):
    tasks = []
    for node in range(draw(st.integers(1, 8))):
        upstream = draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set()
        factors = ()
        if draw(st.integers(0, 3)) == 0:
            over = draw(st.sampled_from([None, *sorted(upstream)]))
            length = draw(st.integers(0, 3)) if over is None else None
            factors = (MappedArgument("x", length, over),)
        role = draw(
            st.sampled_from(["task"] * 3 + ["branch", "short_circuit", "setup", "teardown"])
        )
        tasks.append(
            TaskSpec(
                node,
                f"t{node}",
                kind=draw(st.sampled_from(["async", "async", "empty"])) if not factors else "sync",
                role=role,
                upstream=tuple(sorted(upstream)),
                mapped_arguments=factors,
                trigger_rule=draw(st.sampled_from(rules)),
            )
        )
    return DagSpec("d", "d.py", "h", tuple(tasks))


class RandomResults:
    """What every instance will do, the same in whatever order they end."""

    def __init__(self, plan, seed):
        self._plan = plan
        self._seed = seed

    def of(self, node, map_index):
        chance = random.Random(f"{self._seed}/{node}/{map_index}")
        task = self._plan.spec.tasks[node]
        state = chance.choice(ENDINGS)
        length = chance.choice([None, 0, 1, 2, 3]) if state is TaskState.SUCCESS else None
        follow = None
        if task.role == "branch":
            names = [f"t{after}" for after in self._plan.downstream[node]]
            follow = [name for name in names if chance.random() < 0.5]
        elif task.role == "short_circuit":
            follow = chance.choice([None, ()])
        return state, {"length": length, "follow": follow}


def play(plan, results, choose):
    """Run to the end; return the outcome and how every instance ended."""
    progress, steps = start_run(plan)
    waiting, ended, outcome = [], {}, None
    while True:
        for node, map_index in steps.ready:
            assert (node, map_index) not in ended
            assert (node, map_index) not in waiting
            waiting.append((node, map_index))
        for node, map_index, state in steps.resolved:
            assert (node, map_index) not in ended
            ended[node, map_index] = state
        assert steps.ended is None or outcome is None
        outcome = outcome or steps.ended
        if not waiting:
            break
        assert outcome is None, "a run does not end before its tasks"
        key = waiting.pop(choose(len(waiting)))
        state, result = results.of(*key)
        ended[key] = state
        steps = finish_task(plan, progress, key[0], state, **result)
    assert outcome is not None, "a run ends when its tasks have"
    assert progress.incomplete == 0
    for node, entry in enumerate(progress.nodes):
        assert entry.total != UNDECIDED
        assert entry.complete
        instances = [index for number, index in ended if number == node]
        assert len(instances) == entry.total
        assert instances == [NOT_MAPPED] or sorted(instances) == list(range(entry.total))
    return outcome, ended


@given(specs(sorted(TriggerRule)), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_every_run_ends_and_every_instance_once(spec, seed, chance):
    plan = Plan(spec)
    play(plan, RandomResults(plan, seed), chance.randrange)


@given(specs(PATIENT), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_the_order_of_results_does_not_matter(spec, seed, chance):
    plan = Plan(spec)
    results = RandomResults(plan, seed)
    first = play(plan, results, lambda _: 0)
    assert play(plan, results, lambda count: count - 1) == first
    assert play(plan, results, chance.randrange) == first


@given(specs(sorted(TriggerRule)), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_nothing_starts_before_a_patient_rules_upstream_has_ended(spec, seed, chance):
    plan = Plan(spec)
    results = RandomResults(plan, seed)
    progress, steps = start_run(plan)
    waiting = list(steps.ready)
    while waiting:
        for node, _ in steps.ready:
            task = spec.tasks[node]
            if task.trigger_rule not in EAGER and task.trigger_rule is not TriggerRule.ALWAYS:
                assert all(progress.nodes[before].complete for before in task.upstream)
        key = waiting.pop(chance.randrange(len(waiting)))
        state, result = results.of(*key)
        steps = finish_task(plan, progress, key[0], state, **result)
        waiting += steps.ready


@given(specs(PATIENT), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_a_run_fails_exactly_when_a_leaf_does(spec, seed):
    plan = Plan(spec)
    outcome, ended = play(plan, RandomResults(plan, seed), lambda _: 0)
    bad = (TaskState.FAILED, TaskState.CANCELLED, TaskState.UPSTREAM_FAILED)
    failed = any(state in bad for (node, _), state in ended.items() if node in plan.leaves)
    assert outcome is (RunState.FAILED if failed else RunState.SUCCESS)
