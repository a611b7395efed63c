"""Changes between two versions of a DAG: tasks, schedule, code and the DAG's other options."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import fields

from pubsubflow.model.source.changes import TaskChange, VersionChanges
from pubsubflow.model.spec import DagSpec, TaskSpec

_EDGES = ("upstream", "inputs", "mapped_arguments")
_TASK_OPTIONS = tuple(
    each.name for each in fields(TaskSpec) if each.name not in ("node", "task_id", "line", *_EDGES)
)
SCHEDULING = ("schedule", "start", "end", "catchup", "subscribe_from")
"""The fields of a DAG that say which runs it has, and when."""
ADMISSION = ("params", "params_from", "params_schema", "presets", "result", "on_pause")
"""The fields that a run is checked by before it has a version."""
_DAG_OPTIONS = tuple(
    each.name
    for each in fields(DagSpec)
    if each.name not in ("dag_id", "source", "tasks", "line", *SCHEDULING)
)


def version_changes(before: DagSpec, after: DagSpec) -> VersionChanges:
    """Return what differs between two versions of a DAG."""
    old, new = _tasks(before), _tasks(after)
    differing = [
        TaskChange(task_id, found)
        for task_id in new
        if task_id in old
        and (found := [name for name, value in new[task_id].items() if old[task_id][name] != value])
    ]
    return VersionChanges(
        added=[task_id for task_id in new if task_id not in old],
        removed=[task_id for task_id in old if task_id not in new],
        changed=differing,
        schedule=bool(differing_fields(before, after, SCHEDULING)),
        code=before.source != after.source,
        options=differing_fields(before, after, _DAG_OPTIONS),
    )


def differing_fields(before: DagSpec, after: DagSpec, names: Iterable[str]) -> list[str]:
    """Return which of some fields of two versions differ."""
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _tasks(spec: DagSpec) -> dict[str, dict[str, Any]]:
    """Return task id → what the task is, with the ids of others in place of their numbers."""
    ids = [task.task_id for task in spec.tasks]
    return {
        task.task_id: {
            **{name: getattr(task, name) for name in _TASK_OPTIONS},
            "upstream": {ids[node] for node in task.upstream},
            "inputs": {ids[node] for node in task.inputs},
            "mapped_arguments": [
                (each.name, each.length, each.elements, each.node is not None and ids[each.node])
                for each in task.mapped_arguments
            ],
        }
        for task in spec.tasks
    }
