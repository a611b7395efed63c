"""Graphs of versions: what differs between the tasks of a run and those that its file makes."""

from collections.abc import Sequence

from pubsubflow.model.source.elements import same_elements
from pubsubflow.model.spec import TaskSpec

_MOST_NAMES = 5
_FACETS = (
    ("kind", "its kind"),
    ("operator", "its operator"),
    ("role", "its role"),
    ("upstream", "what runs before it"),
    ("inputs", "whose results it takes"),
    ("mapped_arguments", "what it is mapped over"),
    ("map_group", "the mapped group that it is in"),
)


def graph_difference(expected: Sequence[TaskSpec], made: Sequence[TaskSpec]) -> str | None:
    """Return what differs between two graphs, apart from the order of their tasks.

    Args:
        expected: The tasks of a run's version.
        made: The tasks that the run's file makes now.

    Returns:
        A part of a sentence; None for equal graphs.
    """
    wanted, found = _by_id(expected), _by_id(made)
    parts = []
    if more := sorted(found.keys() - wanted.keys()):
        parts.append(f"{_names(more)} {_verb(more)} new")
    if less := sorted(wanted.keys() - found.keys()):
        parts.append(f"{_names(less)} {_verb(less)} missing")
    before = {task.task_id: task for task in expected}
    for task in sorted(made, key=lambda each: each.task_id):
        task_id = task.task_id
        if task_id not in wanted or len(parts) >= _MOST_NAMES:
            continue
        if wanted[task_id] != found[task_id]:
            (_, name), *_ = [
                facet
                for facet, one, other in zip(_FACETS, wanted[task_id], found[task_id], strict=True)
                if one != other
            ]
            parts.append(f"of {task_id}, {name} differs")
            continue
        for one, other in zip(before[task_id].mapped_arguments, task.mapped_arguments, strict=True):
            if not same_elements(one.elements, other.elements):
                argument = f"expand({one.name}=…)" if one.name else "expand_kwargs()"
                parts.append(f"of {task_id}, the elements of {argument} differ")
    if not parts:
        return None
    return (
        f"the file now makes {_names(sorted(found)) or 'no task'}; "
        f"the version of this run has {_names(sorted(wanted)) or 'none'}: {', '.join(parts)}"
    )


def _by_id(tasks: Sequence[TaskSpec]) -> dict[str, tuple[object, ...]]:
    """Return by task id what a task is, with the ids of others in place of their numbers."""
    ids = [task.task_id for task in tasks]
    return {
        task.task_id: (
            task.kind,
            task.operator,
            task.role,
            {ids[node] for node in task.upstream},
            {ids[node] for node in task.inputs},
            [
                (each.name, each.length, each.joined, [ids[node] for node in each.sources()])
                for each in task.mapped_arguments
            ],
            task.map_group,
        )
        for task in tasks
    }


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{listed} and {more} more" if more > 0 else listed


def _verb(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
