"""Every trigger rule against a reference in plain words, for all ends of upstream tasks."""

from itertools import combinations_with_replacement, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.runs.clearing import TaskSelection, clear, select
from pubsubflow.model.runs.closing import close_run, has_teardowns_left
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.plan import Plan, SetupScope
from pubsubflow.model.runs.progress import finish_task, resume_run, start_run
from pubsubflow.model.runs.rules.trigger_rules import evaluate_rule, waits_for_more
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import TriggerRule
from support.specs import dag, task

WORDS = {
    "s": TaskState.SUCCESS,
    "f": TaskState.FAILED,
    "k": TaskState.SKIPPED,
    "u": TaskState.UPSTREAM_FAILED,
}
# A mapped upstream node: the ends of its instances.
NODES = [*"sfku", "ss", "sf", "sk", "fk", "kk", "ff", "sfk"]


def whole(ends):
    """Return how a node ended, of its instances."""
    return next((letter for letter in "fus" if letter in ends), "k")


def reference(rule, nodes):  # noqa: C901, PLR0911 - a table of rules
    """Return `run`, `k` or `u`, as the documentation says it."""
    states, instances = [whole(node) for node in nodes], "".join(nodes)
    bad = any(state in "fu" for state in states)
    good, skipped = "s" in states, "k" in states
    match rule:
        case "all_success":
            return "u" if bad else "k" if skipped else "run"
        case "all_failed":
            return "k" if good or skipped else "run"
        case "all_done" | "always":
            return "run"
        case "all_skipped":
            return "k" if good or bad else "run"
        case "one_success":
            return "run" if "s" in instances else "u" if bad else "k"
        case "one_failed":
            return "run" if "f" in instances or "u" in instances else "k"
        case "one_done":
            return "run" if "s" in instances or "f" in instances else "k"
        case "none_failed":
            return "u" if bad else "run"
        case "none_failed_min_one_success":
            return "u" if bad else "run" if good else "k"
        case "none_skipped":
            return "k" if "k" in instances else "run"
        case "all_done_min_one_success":
            return "k" if "k" in instances else "run" if "s" in instances else "u"
        case "all_done_setup_success":
            return "run"
    raise ValueError(rule)


def entry(ends):
    found = NodeProgress(total=len(ends))
    for letter in ends:
        found.count(WORDS[letter])
    return found


RESULTS = {TaskState.QUEUED: "run", TaskState.SKIPPED: "k", TaskState.UPSTREAM_FAILED: "u"}


@pytest.mark.parametrize("rule", TriggerRule)
def test_a_rule_says_what_the_reference_says(rule):
    for size in (1, 2, 3):
        for nodes in combinations_with_replacement(NODES, size):
            found = evaluate_rule(rule, [entry(ends) for ends in nodes])
            assert RESULTS[found] == reference(rule, nodes), nodes


@pytest.mark.parametrize("ends", ["".join(x) for n in (1, 2) for x in product("sfku", repeat=n)])
def test_a_teardown_runs_if_one_of_its_setups_succeeded(ends):
    setups = [entry(letter) for letter in ends]
    for work in "sfku":
        found = evaluate_rule(TriggerRule.ALL_DONE_SETUP_SUCCESS, [*setups, entry(work)], setups)
        wanted = "run" if "s" in ends else "k" if set(ends) == {"k"} else "u"
        assert RESULTS[found] == wanted


def cluster(**options):
    """Return a plan: make >> (work >> check) >> drop, and make >> drop; report comes after work."""
    return Plan(
        dag(
            "d",
            task("make", role="setup"),
            task("work", "make"),
            task("check", "work"),
            task("drop", "make", "check", role="teardown",
                 trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS, **options),
            task("report", "work"),
        )
    )  # fmt: skip


def ends_of(plan, wanted, choose=min):
    """Play a run in which tasks end as wanted; return how each ended, and the run."""
    progress, decision = start_run(plan)
    names = [each.task_id for each in plan.spec.tasks]
    found, outcome, waiting = {}, None, set()
    while True:
        for node, _, state in decision.resolved:
            found[names[node]] = state
        waiting |= {node for node, _ in decision.ready}
        outcome = outcome or decision.ended
        if not waiting:
            return found, outcome
        node = choose(waiting)
        waiting.remove(node)
        found[names[node]] = state = WORDS[wanted.get(names[node], "s")]
        decision = finish_task(plan, progress, node, state)


@pytest.mark.parametrize(
    ("wanted", "found", "outcome"),
    [
        ({}, "sssss", RunState.SUCCESS),
        ({"make": "f"}, "fuuuu", RunState.FAILED),
        ({"make": "k"}, "kkkkk", RunState.SUCCESS),
        ({"work": "f"}, "sfusu", RunState.FAILED),
        ({"check": "k"}, "ssksk"[:4] + "s", RunState.SUCCESS),
        ({"drop": "f"}, "sssfs", RunState.SUCCESS),
        ({"check": "f", "drop": "f"}, "ssffs", RunState.FAILED),
    ],
)
def test_a_teardown_cleans_up_whatever_happened_and_decides_nothing(wanted, found, outcome):
    letters = {state: letter for letter, state in WORDS.items()}
    states, ended = ends_of(cluster(), wanted)
    names = ("make", "work", "check", "drop", "report")
    assert "".join(letters[states[name]] for name in names) == found
    assert ended is outcome


def test_a_teardown_may_fail_the_run():
    assert ends_of(cluster(fails_run=True), {"drop": "f"})[1] is RunState.FAILED
    assert ends_of(cluster(fails_run=True), {})[1] is RunState.SUCCESS
    assert ends_of(cluster(fails_run=True), {"check": "f"})[1] is RunState.FAILED


def test_scopes():
    plan = cluster()
    nothing, work, check = SetupScope(), SetupScope((0,), (), (3,)), SetupScope((0,), (0,), (3,))
    assert plan.scopes == (nothing, work, check, nothing, nothing)
    assert plan.with_scopes({2}) == {0, 2, 3}
    assert plan.with_scopes({0}) == {0, 3}
    assert plan.with_scopes({3, 4}) == {3, 4}
    # Without a teardown a setup is for all that follows it.
    open_end = Plan(dag("d", task("s", role="setup"), task("a", "s"), task("b", "a")))
    assert open_end.scopes[2] == SetupScope((0,), (0,), ())


@given(st.sampled_from("sfk"), st.sampled_from(sorted(TriggerRule)), st.randoms())
def test_what_uses_a_setup_never_runs_without_it(made, rule, chance):
    """Whatever the rule but always, and whichever task ends first."""
    plan = Plan(
        dag(
            "d",
            task("make", role="setup"),
            task("other", "make", trigger_rule=TriggerRule.ALWAYS),
            task("work", "other", trigger_rule=rule),
            task("drop", "make", "work", role="teardown",
                 trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS),
        )
    )  # fmt: skip
    found, outcome = ends_of(plan, {"make": made}, lambda nodes: chance.choice(sorted(nodes)))
    assert outcome is not None
    assert len(found) == 4
    if made != "s" and rule != TriggerRule.ALWAYS:
        assert found["work"] is {"f": TaskState.UPSTREAM_FAILED, "k": TaskState.SKIPPED}[made]
    assert (found["drop"] is TaskState.SUCCESS) is (made == "s")


@pytest.mark.parametrize(
    ("tasks", "cleared"),
    [
        (("check",), {"make", "check", "drop"}),
        (("report",), {"report"}),
        (("drop",), {"drop"}),
        (("make",), {"make", "drop"}),
    ],
)
def test_clearing_a_task_clears_its_setup_and_teardown(tasks, cleared):
    plan = cluster()
    progress, _ = start_run(plan)
    for node in range(5):
        finish_task(plan, progress, node, TaskState.SUCCESS)
    states = {(node, -1): TaskState.SUCCESS for node in range(5)}
    chosen = select(plan, progress, states, TaskSelection(tasks))
    assert {plan.spec.tasks[node].task_id for node, _ in chosen} == cleared
    assert clear(plan, progress, states, chosen, {}) == []
    again = resume_run(plan, progress, ()).ready
    assert again == [(min(node for node, _ in chosen), -1)]


def test_a_short_circuit_spares_teardowns():
    plan = Plan(
        dag(
            "d",
            task("make", role="setup"),
            task("stop", "make", role="short_circuit"),
            task("work", "stop"),
            task("drop", "make", "work", role="teardown",
                 trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS),
        )
    )  # fmt: skip
    progress, _ = start_run(plan)
    finish_task(plan, progress, 0, TaskState.SUCCESS)
    decision = finish_task(plan, progress, 1, TaskState.SUCCESS, follow=())
    assert decision.resolved == [(2, -1, TaskState.SKIPPED)]
    assert decision.ready == [(3, -1)]


@given(st.integers(0, 4), st.randoms())
def test_a_run_that_is_closed_cleans_up_what_was_made(ended, chance):
    """Whenever it is closed: teardowns run if their setup has succeeded, and nothing else does."""
    plan = cluster()
    progress, decision = start_run(plan)
    ready, made = [node for node, _ in decision.ready], set()
    for _ in range(ended):
        node = ready.pop(chance.randrange(len(ready)))
        made.add(node)
        decision = finish_task(plan, progress, node, TaskState.SUCCESS)
        ready += [node for node, _ in decision.ready]
        if not ready:
            break
    cleans = 0 in made and 3 not in made
    assert has_teardowns_left(plan, progress) is cleans
    if not cleans:
        return
    decision = close_run(plan, progress)
    dropping = [3] if 3 in ready else [node for node, _ in decision.ready]
    assert dropping == [3]
    assert decision.ended is None
    assert finish_task(plan, progress, 3, TaskState.SUCCESS).ended is not None


def test_a_branch_may_name_a_group():
    plan = Plan(
        dag(
            "d",
            task("b", role="branch"),
            task("g.x", "b", groups=("g",)),
            task("g.y", "g.x", groups=("g",)),
            task("h.x", "b", groups=("h",)),
            task("z", "b"),
        )
    )
    progress, _ = start_run(plan)
    decision = finish_task(plan, progress, 0, TaskState.SUCCESS, follow=["g", "z"])
    assert decision.ready == [(1, -1), (4, -1)]
    assert decision.resolved == [(3, -1, TaskState.SKIPPED)]


ENTRIES = st.sampled_from(
    [
        NodeProgress(),
        NodeProgress(1),
        NodeProgress(3, success=1, failed=1),
        NodeProgress(1, success=1),
        NodeProgress(1, failed=1),
        NodeProgress(2, success=1, skipped=1),
        NodeProgress(0),
    ]
)


@pytest.mark.parametrize("rule", TriggerRule)
@given(st.lists(ENTRIES, max_size=5), st.randoms())
def test_what_is_certain_at_a_glance_is_what_the_rule_says(rule, nodes, chance):
    upstream = chance.sample(range(len(nodes)), chance.randint(0, len(nodes)))
    found = evaluate_rule(rule, [nodes[number] for number in upstream])
    if waits_for_more(rule, nodes, upstream):
        assert found is None
    elif not rule.startswith("one_"):
        assert found is not None


@pytest.mark.parametrize("order", ["forward", "backward", "random"])
def test_a_join_of_many_reads_few_of_them_at_each_end(order, monkeypatch):
    names = [f"t{number}" for number in range(400)]
    plan = Plan(dag("d", *map(task, names), task("join", *names)))
    progress, _ = start_run(plan)
    ends = list(range(400))
    if order != "forward":
        ends.reverse() if order == "backward" else Random(3).shuffle(ends)
    reads = 0

    def complete(entry):
        nonlocal reads
        reads += 1
        return entry.total == entry.ended

    monkeypatch.setattr(NodeProgress, "complete", property(complete))
    for node in ends[:-1]:
        assert not finish_task(plan, progress, node, TaskState.SUCCESS).ready
    assert reads < 400 * 12
    assert finish_task(plan, progress, ends[-1], TaskState.SUCCESS).ready == [(400, -1)]
