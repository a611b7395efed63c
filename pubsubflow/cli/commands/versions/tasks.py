"""Tables of the tasks of a version."""

from pubsubflow.cli import output
from pubsubflow.model.api.resources import DagTaskView
from pubsubflow.model.wire.task_resources import describe_resources


def show_tasks(tasks: list[DagTaskView]) -> None:
    """Print a table of tasks."""
    listing = output.Listing(
        *("task", "kind", "retries", "resources", "after", "emits"),
        right=["retries"],
        elastic=["after", "emits"],
    )
    for task in tasks:
        listing.row(
            task.task_id,
            task.operator + mapping_of(task),
            str(task.retries or ""),
            _resources(task),
            ", ".join(task.upstream),
            ", ".join(task.outlets),
        )
    listing.show(none="no tasks")


def _resources(task: DagTaskView) -> str:
    declared = task.resources
    return "" if declared is None else describe_resources(declared.memory, declared.cpu)


def mapping_of(task: DagTaskView) -> str:
    """Describe that a task is mapped, itself or with its group; empty if it is not."""
    if task.map_group is not None:
        return f" (mapped group {task.map_group})"
    return " (mapped)" if task.mapped else ""
