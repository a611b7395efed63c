"""Dynamic task mapping: the inputs of `expand` and `expand_kwargs`, checked."""

from collections.abc import Mapping
from typing import Any

from pubsubflow.authoring.runtime.signatures import FunctionSignature
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.body import FunctionBody
from pubsubflow.authoring.tasks.graph import Reference, new_node
from pubsubflow.authoring.tasks.mapped.group_mapping import ExpandInput
from pubsubflow.authoring.tasks.mapped.map_expressions import (
    MapExpression,
    compute_elements,
    expression_of,
)
from pubsubflow.authoring.tasks.options import Outlets


def expand_inputs(
    given: Mapping[str, Any], fixed: Mapping[str, Any], task_id: str
) -> tuple[ExpandInput, ...]:
    """Return the inputs that `expand(**given)` maps over.

    Raises:
        DefinitionError: Nothing is given, a keyword is fixed already, or a value is not a list.
    """
    if not given:
        raise definition_error("expand() needs a list, as in expand(day=days)", task_id=task_id)
    for name in given:
        if name in fixed:
            raise definition_error(
                f"{name!r} is given to partial() and to expand()", task_id=task_id
            )
    return tuple(
        ExpandInput(name, _elements(value, name, f"expand({name}=…)", task_id))
        for name, value in given.items()
    )


def expand_kwargs_input(rows: Any, fixed: Mapping[str, Any], task_id: str) -> ExpandInput:
    """Return the input that `expand_kwargs(rows)` maps over.

    Raises:
        DefinitionError: It is not a list of dicts with string keys, or a key is fixed already.
    """
    elements = _elements(rows, "kwargs", "expand_kwargs()", task_id)
    if isinstance(elements, Reference):
        return ExpandInput("", elements)
    for row in elements:
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            raise definition_error(f"expand_kwargs() takes dicts, not {row!r}", task_id=task_id)
        twice = sorted(row.keys() & fixed.keys())
        if twice:
            raise definition_error(
                f"{twice[0]!r} is given to partial() and to expand_kwargs()", task_id=task_id
            )
    return ExpandInput("", elements)


def _elements(value: Any, name: str, what: str, task_id: str) -> list[Any] | Reference:
    """Return the elements of the file, or the reference to the result that holds them."""
    if isinstance(value, Reference) and not value.path:
        return value
    # The length of a part is unknown to the manager, which counts elements of whole results.
    if isinstance(value, Reference | MapExpression):
        return _computed(value, name, task_id)
    if isinstance(value, dict):
        return list(value.items())
    if not isinstance(value, list | tuple):
        raise definition_error(
            f"{what} maps over a list, a dict or a task's result, not over {value!r}",
            task_id=task_id,
        )
    return list(value)


def _computed(value: Reference | MapExpression, name: str, task_id: str) -> Reference:
    """Add the task that computes the elements, and return the reference to its result."""
    body = FunctionBody(
        FunctionSignature(compute_elements), (expression_of(value),), {}, operator="elements"
    )
    # Limits, events and callbacks of the mapped task's DAG are those of its instances.
    options: dict[str, Any] = {
        "outlets": Outlets(),
        "pool": None,
        "pool_slots": 1,
        "concurrency_key": None,
    }
    options |= {"concurrency_limit": 1, "rate_limit": None}
    options |= {"on_success": (), "on_failure": (), "on_retry": (), "on_skipped": ()}
    doc = f"The elements that {task_id} is mapped over ({name})."
    node = new_node(f"{task_id}__{name}", body, options | {"doc": doc}, origin=compute_elements)
    node.add_dependencies()
    return Reference(node)
