"""Mapped groups decide as the same DAG does with a copy of the tasks for each index."""

import random
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pubsubflow.model.runs import progress as progress_module
from pubsubflow.model.runs.mapped.lengths import after_sources
from pubsubflow.model.runs.mapped.waits import describe_groups
from pubsubflow.model.runs.node_progress import NodeProgress
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import (
    STORED_PROGRESS,
    finish_task,
    replace_queued,
    start_run,
)
from pubsubflow.model.runs.rules.forks import not_followed
from pubsubflow.model.runs.rules.node_rules import decide_node
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec, TriggerRule
from pubsubflow.model.wire.messages import NOT_MAPPED
from support.specs import dag
from support.specs import task as described

EAGER = (TriggerRule.ONE_SUCCESS, TriggerRule.ONE_FAILED, TriggerRule.ONE_DONE)
OVER_INSTANCES = (*EAGER, TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
PATIENT = sorted(set(TriggerRule) - set(EAGER))
ENDINGS = [TaskState.SUCCESS] * 5 + [TaskState.FAILED, TaskState.SKIPPED]
KINDS = ["async", "async", "async", "empty"]


@st.composite
def specs(draw, rules=PATIENT, *, by_instance=False):
    """Tasks before a group, the group, and tasks after it or beside it, also in a group."""
    before, inside, after = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.integers(0, 3)),
    )
    total = before + inside + after
    groups = {"g": range(before, before + inside)}
    if draw(st.booleans()):
        groups["h"] = range(before + inside, total)
    sources = {
        name: draw(st.sampled_from([None, *range(each[0])]))
        for name, each in groups.items()
        if each
    }
    lengths = {
        name: draw(st.integers(0, 3)) if source is None else None
        for name, source in sources.items()
    }
    tasks = []
    for node in range(total):
        name = next((name for name, each in groups.items() if node in each), "")
        members = groups.get(name, ())
        source, length = sources.get(name), lengths.get(name)
        upstream = draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set()
        if node < before:
            upstream &= set(range(before))
        if name and not upstream & set(members) and source is not None:
            upstream.add(source)
        roles = ["task"] * 4 + ["setup", "teardown"]
        roles += ["branch", "short_circuit"] * (node not in range(before))
        tasks.append(
            TaskSpec(
                node,
                f"t{node}",
                kind="async" if node in sources.values() else draw(st.sampled_from(KINDS)),
                role=draw(st.sampled_from(roles)),
                upstream=tuple(sorted(upstream)),
                mapped_arguments=(MappedArgument("x", length, source),) if name else (),
                map_group=name,
                trigger_rule=draw(st.sampled_from(rules)),
            )
        )
    return DagSpec("d", "d.py", "h", tuple(tasks), by_instance=by_instance)


class RandomResults:
    def __init__(self, plan, seed):
        self._plan = plan
        self._seed = seed

    def of(self, node, index):
        chance = random.Random(f"{self._seed}/{node}/{index}")
        task = self._plan.spec.tasks[node]
        state = chance.choice(ENDINGS)
        length = chance.choice([0, 1, 2, 3]) if state is TaskState.SUCCESS else None
        follow = None
        if task.role == "branch":
            names = [f"t{after}" for after in self._plan.downstream[node]]
            follow = [name for name in names if chance.random() < 0.5]
        elif task.role == "short_circuit":
            follow = chance.choice([None, ()])
        return state, {"length": length, "follow": follow}


@contextmanager
def window(room):
    """Have so many instances in the queue at once."""
    before, progress_module.MAP_WINDOW = progress_module.MAP_WINDOW, room
    try:
        yield
    finally:
        progress_module.MAP_WINDOW = before


def play(plan, results, chance, room=1000, *, waits=False):
    """Run to the end, in an order by chance; return the outcome and how every instance ended."""
    with window(room):
        return _play(plan, results, chance, room, waits=waits)


def _play(plan, results, chance, room, *, waits):
    progress, steps = start_run(plan)
    working, waiting, ended, outcome = [], [], {}, None
    while True:
        for key in steps.ready:
            assert key not in ended
            assert key not in working + waiting
            working.append(key)
        for node, index, state in steps.resolved:
            assert (node, index) not in ended
            ended[node, index] = state
        outcome = outcome or steps.ended
        for group in plan.groups:
            assert sum(key[0] in group.places for key in working) <= room
        if not working + waiting:
            break
        progress = STORED_PROGRESS.decode(STORED_PROGRESS.encode(progress))
        if waits and working and chance.random() < 0.3:
            waiting.append(working.pop(chance.randrange(len(working))))
            steps = replace_queued(plan, progress, *waiting[-1])
            continue
        source = working if working and (not waiting or chance.random() < 0.5) else waiting
        node, index = source.pop(chance.randrange(len(source)))
        state, result = results.of(node, index)
        ended[node, index] = state
        steps = finish_task(plan, progress, node, state, map_index=index, **result)
    assert outcome is not None
    assert progress.incomplete == 0
    for group in progress.groups:
        assert not group.rows
        assert not group.due
        assert not group.active
    return outcome, ended


class Unrolled:
    """The plain reference: each index a copy of the tasks, decided in topological order."""

    def __init__(self, plan, results):
        self._plan, self._results = plan, results
        self._left_out, self._lengths = set(), {}
        self.ended = {}
        for task in plan.spec.tasks:
            whole = self._late(task) and self._before_indexes(task)
            if whole not in (False, TaskState.QUEUED):
                self.ended[task.node, NOT_MAPPED] = whole
                continue
            for index in self._copies(task):
                self._decide(task, index)

    def _late(self, task):
        """Return whether a task gets its indexes after the run has begun, by Airflow's rules."""
        over_result = any(each.node is not None for each in task.mapped_arguments)
        indexed = self._copies(task) != [NOT_MAPPED]
        return self._plan.spec.by_instance and over_result and indexed

    def _before_indexes(self, task):
        entries = [self._seen(node, task, NOT_MAPPED) for node in range(task.node)]
        for node, each in enumerate(self._plan.spec.tasks[: task.node]):
            expanded = each.shares_index(task) and (node, NOT_MAPPED) not in self.ended
            if expanded and task.trigger_rule not in OVER_INSTANCES:
                entries[node] = NodeProgress(0)
        left_out = (task.node, None) in self._left_out
        return decide_node(self._plan, task, entries, left_out=left_out)

    def _copies(self, task):
        if not task.map_group:
            return [NOT_MAPPED]
        (argument,) = task.mapped_arguments
        total = argument.length
        if argument.node is not None and self._plan.spec.tasks[argument.node].mapped:
            total = self._seen(argument.node, task, NOT_MAPPED).success
        elif argument.node is not None:
            total = self._lengths.get(argument.node) or 0
        return range(total) if total else [NOT_MAPPED]

    def _seen(self, node, by, index):
        """Return a node as an instance sees it: a group from outside as a whole."""
        found = NodeProgress(0)
        alike = index == NOT_MAPPED or not self._plan.spec.tasks[node].shares_index(by)
        for (other, at), state in self.ended.items():
            if other == node and (alike or at in (index, NOT_MAPPED)):
                found.total += 1
                found.count(state)
        return found

    def _decide(self, task, index):
        left_out = bool({(task.node, index), (task.node, None)} & self._left_out)
        entries = [self._seen(node, task, index) for node in range(task.node)]
        verdict = decide_node(self._plan, task, entries, left_out=left_out)
        assert verdict is not None
        if self._plan.spec.by_instance and index == NOT_MAPPED:
            verdict = after_sources(self._plan, task, entries, verdict)
        if verdict is TaskState.QUEUED and task.map_group and index == NOT_MAPPED:
            verdict = TaskState.SKIPPED
        elif verdict is TaskState.QUEUED and task.kind == "empty":
            verdict = TaskState.SUCCESS
        elif verdict is TaskState.QUEUED:
            verdict, result = self._results.of(task.node, index)
            if verdict is TaskState.SUCCESS:
                self._lengths[task.node] = result["length"]
                self._follow(task, index, result["follow"])
        self.ended[task.node, index] = verdict

    def _follow(self, task, index, follow):
        nodes = [] if follow is None else not_followed(self._plan, task, follow)
        for node in nodes:
            if not task.map_group:
                self._left_out.add((node, None))
            elif self._plan.spec.tasks[node].shares_index(task):
                self._left_out.add((node, index))


def collapse(ended):
    """Return how tasks ended; those of which every instance ended alike, as one."""
    found = {}
    for (node, at), state in ended.items():
        found.setdefault(node, {})[at] = state
    return {
        node: next(iter(states.values())) if len(set(states.values())) == 1 else states
        for node, states in found.items()
    }


@given(specs(), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_a_group_decides_as_its_unrolled_form(spec, seed, chance):
    plan = Plan(spec)
    results = RandomResults(plan, seed)
    _, ended = play(plan, results, chance)
    assert collapse(ended) == collapse(Unrolled(plan, results).ended)


@given(specs(), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_neither_order_nor_window_nor_waits_matter(spec, seed, chance):
    plan = Plan(spec)
    results = RandomResults(plan, seed)
    first = play(plan, results, chance)
    assert play(plan, results, chance, room=1) == first
    assert play(plan, results, chance, room=2, waits=True) == first


@given(specs(sorted(TriggerRule)), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_every_run_ends_whatever_the_rules(spec, seed, chance):
    plan = Plan(spec)
    play(plan, RandomResults(plan, seed), chance, room=2, waits=True)


def _races(plan, ended):
    """Whether a task is skipped for its source, or fails by another one: what ends first decides.

    So it is with Airflow: a source that was skipped ends what is mapped over it at once.
    """
    return any(
        state is TaskState.UPSTREAM_FAILED
        and any(
            ended.get((source, NOT_MAPPED)) is TaskState.SKIPPED
            for each in plan.spec.tasks[node].mapped_arguments
            for source in each.sources()
        )
        for (node, _), state in ended.items()
    )


@given(specs(by_instance=True), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_tasks_that_get_their_indexes_late_end_as_a_whole_before(spec, seed, chance):
    plan = Plan(spec)
    results = RandomResults(plan, seed)
    first = play(plan, results, chance)
    ended, expected = first[1], Unrolled(plan, results).ended
    assume(not _races(plan, expected))
    assert collapse(ended) == collapse(expected)
    late = {node for group in plan.groups if group.sources for node in group.places}
    assert {key for key in ended if key[0] in late} == {key for key in expected if key[0] in late}
    assert play(plan, results, chance, room=1) == first
    assert play(plan, results, chance, room=2, waits=True) == first


@given(
    specs(sorted(TriggerRule), by_instance=True),
    st.integers(0, 10**6),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_every_run_of_late_indexes_ends_whatever_the_rules(spec, seed, chance):
    plan = Plan(spec)
    play(plan, RandomResults(plan, seed), chance, room=2, waits=True)


@pytest.mark.parametrize(
    ("rule", "ends", "expected"),
    [
        ("one_failed", "sk", {-1: "skipped"}),
        ("one_failed", "sf", {0: "skipped", 1: "success"}),
        ("one_success", "fk", {-1: "upstream_failed"}),
        ("one_success", "fs", {0: "upstream_failed", 1: "success"}),
        ("one_done", "kk", {-1: "skipped"}),
        ("none_failed_min_one_success", "sf", {-1: "upstream_failed"}),
        ("none_failed_min_one_success", "sk", {0: "success", 1: "skipped"}),
        ("all_success", "sk", {0: "success", 1: "skipped"}),
    ],
)
def test_rules_that_one_instance_decides_see_all_of_them(rule, ends, expected):
    """See `test_groups_over_results` of `tests/integration/airflow`: so does Airflow."""
    third = described("third", "first", kind="empty", trigger_rule=TriggerRule(rule))
    found = _ends_of_group([described("first", "source"), third], ends)
    assert {index: str(state) for (node, index), state in found.items() if node == 2} == expected


def _group_over_result(tasks):
    plain = dag("d", described("source"), *tasks)
    over = {"map_group": "g", "mapped_arguments": (MappedArgument("x", node=0),)}
    members = [msgspec.structs.replace(each, **over) for each in plain.tasks[1:]]
    made = (plain.tasks[0], *members)
    return Plan(msgspec.structs.replace(plain, tasks=made, by_instance=True))


def _ends_of_group(tasks, ends):
    """Run a group over a result whose tasks that run end so at each index."""
    states = {"s": TaskState.SUCCESS, "f": TaskState.FAILED, "k": TaskState.SKIPPED}
    plan = _group_over_result(tasks)
    progress, _ = start_run(plan)
    steps, found = finish_task(plan, progress, 0, TaskState.SUCCESS, length=len(ends)), {}
    waiting = list(steps.ready)
    found.update({(node, index): state for node, index, state in steps.resolved})
    while waiting:
        node, index = waiting.pop(0)
        found[node, index] = states[ends[index]]
        steps = finish_task(plan, progress, node, found[node, index], map_index=index)
        waiting += steps.ready
        found.update({(node, index): state for node, index, state in steps.resolved})
    assert progress.incomplete == 0
    return found


def test_what_such_a_task_waits_for_is_said():
    third = described("third", "first", trigger_rule=TriggerRule.ONE_FAILED)
    plan = _group_over_result([described("first", "source"), third])
    progress, _ = start_run(plan)
    finish_task(plan, progress, 0, TaskState.SUCCESS, length=2)
    finish_task(plan, progress, 1, TaskState.SUCCESS, map_index=0)
    assert list(describe_groups(plan, progress)) == [
        "task third.0 waits for all of first",
        "task third.1 waits for first.1",
    ]


def test_what_has_ended_as_a_whole_decides_without_regard_to_what_has_indexes():
    first = described("first", "source", trigger_rule=TriggerRule.ONE_FAILED)
    second = described("second", "first", trigger_rule=TriggerRule.ALL_DONE)
    found = _ends_of_group([first, second, described("third", "first", "second")], "sf")
    assert found == {
        (1, NOT_MAPPED): TaskState.SKIPPED,
        (2, 0): TaskState.SUCCESS,
        (2, 1): TaskState.FAILED,
        (3, NOT_MAPPED): TaskState.SKIPPED,
    }
