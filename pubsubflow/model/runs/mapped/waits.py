"""Reasons why instances of mapped groups wait, for people."""

from collections.abc import Iterator

from pubsubflow.model.runs.mapped.groups import DUE, Instances, MappedGroup, undecided
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import MAP_WINDOW, Progress

_NO_ROOM = f"room: {MAP_WINDOW:,} instances of a group are in the queue at once"


def describe_groups(plan: Plan, progress: Progress) -> Iterator[str]:
    """Yield what the instances of a run's mapped groups wait for, a line each.

    Args:
        plan: The DAG's version that the run has.
        progress: The run's.
    """
    for group in plan.groups:
        state = progress.groups[group.number]
        if state.total == UNDECIDED:
            names = [
                plan.spec.tasks[node].task_id
                for node in group.sources
                if not progress.nodes[node].complete
            ]
            if names:
                yield f"group {group.name} waits for its elements: {', '.join(names)}"
            continue
        for index in state.open_indexes(group):
            yield from _waits_of(plan, progress, group, index)
        left = state.total - state.opened
        unfinished = any(not progress.nodes[node].complete for node in group.places)
        if left and unfinished:
            yield f"group {group.name}: {left:,} of {state.total:,} indexes have not begun"


def _waits_of(plan: Plan, progress: Progress, group: MappedGroup, index: int) -> Iterator[str]:
    state, tasks = progress.groups[group.number], plan.spec.tasks
    seen = Instances(progress.nodes, group, state, index)
    for node in group.places:
        code = state.code(group, node, index)
        name = f"task {tasks[node].task_id}.{index}"
        if code == DUE:
            yield f"{name} waits for {_NO_ROOM}"
        if not undecided(code):
            continue
        before = [
            f"{tasks[each].task_id}.{index}" if each in group.places else tasks[each].task_id
            for each in tasks[node].upstream
            if not seen[each].complete
        ]
        if not before and progress.nodes[node].total == UNDECIDED:
            # By Airflow's rules it is decided as a whole, before it is at an index.
            before = [
                f"all of {tasks[each].task_id}"
                for each in tasks[node].upstream
                if not progress.nodes[each].complete
            ]
        if before:
            yield f"{name} waits for {', '.join(before)}"
