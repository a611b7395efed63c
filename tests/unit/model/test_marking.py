"""What marks do to a run's progress, whatever the DAG and whenever they come."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clearing import Play, as_seen, specs
from test_progress_properties import PATIENT, RandomResults

from pubsubflow.errors import NotFound
from pubsubflow.model.runs.clearing import FORKS, TaskSelection, clear
from pubsubflow.model.runs.marking import apply_marks, result_of_mark, select_marks
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import resume_run
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.model.wire.messages import NOT_MAPPED

WHOLE_RUN = TaskSelection()


class Marked(Play):
    """A run in which people mark tasks."""

    def mark(self, selection, state, live=()):
        """Mark tasks and continue the run; return the marks."""
        states = {**self.states, **dict.fromkeys(live, TaskState.RUNNING)}
        unstarted = [key for key in self.states if key not in self.attempted]
        marks = select_marks(self.plan, self.progress, states, unstarted, selection, state)
        gone = marks.cleared(states)
        clear(self.plan, self.progress, states, gone, self.chosen)
        apply_marks(self.plan, self.progress, marks)
        for key in gone:
            self.states.pop(key, None)
            self.chosen.pop(key, None)
        for key in marks.marked:
            self.states[key], self.lengths[key] = state, None
            role = self.plan.spec.tasks[key[0]].role
            if state is TaskState.SUCCESS and role in FORKS:
                self.chosen[key] = result_of_mark(self.plan, key[0], None)
        self.attempted |= marks.marked
        left = [key for key in live if key not in marks.marked]
        self.ran, self.outcome = [], None
        self._steps = resume_run(self.plan, self.progress, left)
        return marks

    def play(self, most=10_000):
        waiting = super().play(most)
        self.attempted = getattr(self, "attempted", set()) | set(self.ran)
        return waiting


@settings(max_examples=200, deadline=None)
@given(
    specs(PATIENT),
    st.integers(0, 2**32),
    st.integers(0, 12),
    st.sampled_from([TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED]),
)
def test_a_marked_run_ends_and_marked_tasks_never_run(spec, seed, most, state):
    plan = Plan(spec)
    run = Marked(plan, RandomResults(plan, seed))
    live = run.play(most)
    before, ran = dict(run.states), set(run.attempted)
    chosen = random.Random(seed).choices(spec.tasks, k=2)
    selection = TaskSelection(tuple(task.task_id for task in chosen))
    marks = run.mark(selection, state, live)
    assert run.play() == []
    assert run.outcome is not None
    assert not marks.marked & set(run.ran)
    for key in marks.marked:
        assert run.states[key] is state
    for key in ran - marks.marked:  # what ran is as it was
        assert run.states[key] is before[key]
        assert key not in run.ran
    assert {node for node, _ in run.states} == set(range(len(spec.tasks)))
    assert as_seen(plan, run.rebuilt())[:2] == as_seen(plan, run.progress)[:2]


@settings(max_examples=100, deadline=None)
@given(specs(PATIENT), st.integers(0, 2**32), st.integers(0, 12), st.booleans())
def test_a_run_marked_as_successful_has_nothing_left_to_run(spec, seed, most, again):
    plan = Plan(spec)
    run = Marked(plan, RandomResults(plan, seed))
    live = run.play(most)
    run.mark(WHOLE_RUN, TaskState.SUCCESS, live)
    assert run.play() == []
    assert (run.ran, run.outcome) == ([], RunState.SUCCESS)
    if again and spec.tasks:
        run.mark(WHOLE_RUN, TaskState.FAILED)
        assert run.play() == []
        # Teardowns may start anew after it; they decide no outcome.
        assert run.outcome is RunState.FAILED


def chain(*roles):
    return Plan(
        DagSpec(
            "d",
            "d.py",
            "h",
            tuple(
                TaskSpec(node, f"t{node}", role=role, upstream=(node - 1,) if node else ())
                for node, role in enumerate(roles)
            ),
        )
    )


class Fates:
    """Gives each node the state that a test says, success if it says none."""

    def __init__(self, **states):
        self._states = states

    def of(self, node, _):
        state = self._states.get(f"t{node}", TaskState.SUCCESS)
        return state, {"length": None, "follow": None}


def test_what_could_not_start_starts_after_its_upstream_is_marked():
    run = Marked(chain("task", "task", "task"), Fates(t0=TaskState.FAILED))
    run.play()
    assert run.states[2, NOT_MAPPED] is TaskState.UPSTREAM_FAILED
    marks = run.mark(TaskSelection(("t0",)), TaskState.SUCCESS)
    assert marks.anew == {(1, NOT_MAPPED), (2, NOT_MAPPED)}
    run.play()
    assert (run.ran, run.outcome) == ([(1, NOT_MAPPED), (2, NOT_MAPPED)], RunState.SUCCESS)


def test_a_mark_before_another_stays_when_what_is_upstream_of_it_is_marked():
    run = Marked(chain("task", "task", "task"), Fates(t0=TaskState.FAILED))
    run.play()
    run.mark(TaskSelection(("t1",)), TaskState.SKIPPED)
    run.play()
    run.mark(TaskSelection(("t0",)), TaskState.SUCCESS)
    run.play()
    assert (run.states[1, NOT_MAPPED], run.ran) == (TaskState.SKIPPED, [])


def test_tasks_and_instances_that_are_not_there_are_refused():
    run = Marked(chain("task", "task"), Fates())
    run.play(0)
    for name in ("x", "t0.3"):
        with pytest.raises(NotFound):
            run.mark(TaskSelection((name,)), TaskState.SUCCESS)
