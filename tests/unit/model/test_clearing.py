"""What clearing tasks does to a run's progress, whatever the DAG."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st
from test_mapped_groups import specs as grouped
from test_progress_properties import PATIENT, RandomResults
from test_progress_properties import specs as plain

from pubsubflow.model.runs.clearing import (
    FAILED,
    FORKS,
    TaskSelection,
    clear,
    compatible,
    rebuild,
    select,
)
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import finish_task, resume_run, start_run
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.spec import DagSpec, MappedArgument, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED


def specs(rules):
    """DAGs without and with a mapped group."""
    return st.one_of(plain(rules), grouped(rules))


class Play:
    """A run that is played to its end, more than once."""

    def __init__(self, plan, results):
        self.plan, self.results = plan, results
        self.progress, self._steps = start_run(plan)
        self.states, self.lengths, self.chosen = {}, {}, {}
        self.ran = []
        self.outcome = None

    def play(self, most=10_000):
        """Let instances end as their fate says; return those that still live."""
        steps, waiting = self._steps, []
        while True:
            waiting += steps.ready
            for node, index, state in steps.resolved:
                self._end(node, index, state, None)
            self.outcome = steps.ended or self.outcome
            if not waiting or len(self.ran) >= most:
                return waiting
            node, index = waiting.pop()
            state, fields = self.results.of(node, index)
            self.ran.append((node, index))
            self._end(node, index, state, fields["length"])
            if state is TaskState.SUCCESS:
                follow = fields["follow"]
                if self.plan.spec.tasks[node].role == "branch":
                    self.chosen[node, index] = follow
                elif self.plan.spec.tasks[node].role == "short_circuit":
                    self.chosen[node, index] = follow is None
            steps = finish_task(self.plan, self.progress, node, state, map_index=index, **fields)

    def _end(self, node, index, state, length):
        assert (node, index) not in self.states
        self.states[node, index] = state
        self.lengths[node, index] = length if index == NOT_MAPPED else None

    def rebuilt(self):
        ended = [(*key, state, self.lengths[key]) for key, state in self.states.items()]
        return rebuild(self.plan, ended, self.chosen, self.progress.clear_number)

    def clear(self, asked, live=()):
        """Clear tasks and let the run go on."""
        states = {**self.states, **dict.fromkeys(live, TaskState.RUNNING)}
        chosen = select(self.plan, self.progress, states, asked)
        again = clear(self.plan, self.progress, states, chosen, self.chosen)
        for key in chosen:
            self.states.pop(key, None)
            self.chosen.pop(key, None)
        self.ran, self.outcome = [], None
        self._steps = resume_run(self.plan, self.progress, again)
        return chosen


def as_seen(plan, progress):
    """A progress without what no decision asks for: in what order branches left a node out."""
    nodes = copy.deepcopy(progress.nodes)
    for entry, task in zip(nodes, plan.spec.tasks, strict=True):
        entry.left_out_by = tuple(sorted(set(entry.left_out_by)))
        entry.length = None if task.mapped else entry.length
    groups = [(each.rows, each.active) for each in progress.groups]
    return nodes, groups, progress.incomplete, progress.clear_number


@settings(max_examples=150, deadline=None)
@given(specs(PATIENT), st.integers(0, 2**32))
def test_the_progress_of_an_ended_run_is_rebuilt_from_its_tasks(spec, seed):
    run = Play(Plan(spec), RandomResults(Plan(spec), seed))
    run.play()
    assert as_seen(run.plan, run.rebuilt()) == as_seen(run.plan, run.progress)


@settings(max_examples=150, deadline=None)
@given(specs(PATIENT), st.integers(0, 2**32), st.data())
def test_what_is_cleared_with_all_that_follows_comes_to_the_same_again(spec, seed, data):
    run = Play(Plan(spec), RandomResults(Plan(spec), seed))
    run.play()
    outcome, states = run.outcome, dict(run.states)
    run.progress = run.rebuilt()
    names = data.draw(st.lists(st.sampled_from([task.task_id for task in spec.tasks])))
    chosen = run.clear(TaskSelection(tuple(names), downstream=True))
    run.play()
    assert set(run.ran) <= chosen, "what is not cleared does not run again"
    assert run.states == states
    assert run.outcome == (outcome if chosen else None)


@settings(max_examples=150, deadline=None)
@given(specs(PATIENT), st.integers(0, 2**32), st.integers(0, 20), st.data())
def test_a_run_ends_whatever_is_cleared_while_it_lives(spec, seed, most, data):
    run = Play(Plan(spec), RandomResults(Plan(spec), seed))
    live = run.play(most)
    names = data.draw(st.lists(st.sampled_from([task.task_id for task in spec.tasks])))
    asked = TaskSelection(
        tuple(names), downstream=data.draw(st.booleans()), only_failed=data.draw(st.booleans())
    )
    chosen = run.clear(asked, live)
    run._steps.ready += [key for key in live if key not in chosen]
    run.play()
    assert run.progress.incomplete == 0
    assert run.outcome is not None


@settings(max_examples=100, deadline=None)
@given(specs(PATIENT), st.integers(0, 2**32))
def test_a_retry_keeps_what_succeeded_unless_it_stands_on_what_failed(spec, seed):
    plan = Plan(spec)
    run = Play(plan, RandomResults(plan, seed))
    run.play()
    chosen = select(plan, run.progress, run.states, TaskSelection(only_failed=True))
    assert {key for key, state in run.states.items() if state in FAILED} <= chosen
    again = {node for node, _ in chosen}
    for node, index in chosen:
        upstream = again.intersection(spec.tasks[node].upstream)
        whole = spec.tasks[node].role in FORKS  # its instances decide together
        scoped = spec.tasks[node].role in ("setup", "teardown")  # come with what uses them
        assert run.states[node, index] in FAILED or upstream or whole or scoped


def test_a_version_fits_while_every_task_keeps_its_place():
    def spec(*tasks):
        return DagSpec("d", "d.py", "h", tasks)

    a, b = TaskSpec(0, "a"), TaskSpec(1, "b", upstream=(0,))
    assert compatible(spec(a), spec(a, b))
    assert compatible(spec(a), spec(TaskSpec(0, "a", pool="p")))
    assert not compatible(spec(a, b), spec(a))
    assert not compatible(spec(a, b), spec(a, TaskSpec(1, "b")))
    assert not compatible(
        spec(a), spec(TaskSpec(0, "a", mapped_arguments=(MappedArgument("x", 2),)))
    )
