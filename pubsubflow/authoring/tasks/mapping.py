"""Dynamic task mapping: the inputs of `expand` and `expand_kwargs`, checked."""

from collections.abc import Mapping
from typing import Any

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.graph import ExpandInput, Reference


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
        ExpandInput(name, _elements(value, f"expand({name}=…)", task_id))
        for name, value in given.items()
    )


def expand_kwargs_input(rows: Any, fixed: Mapping[str, Any], task_id: str) -> ExpandInput:
    """Return the input that `expand_kwargs(rows)` maps over.

    Raises:
        DefinitionError: It is not a list of dicts with string keys, or a key is fixed already.
    """
    elements = _elements(rows, "expand_kwargs()", task_id)
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


def _elements(value: Any, what: str, task_id: str) -> list[Any] | Reference:
    if isinstance(value, Reference):
        # The length of a part is unknown to the manager, which counts elements of whole results.
        if value.path:
            raise definition_error(
                f"{what} maps over whole results; write a task that returns {value!r}",
                task_id=task_id,
            )
        return value
    if isinstance(value, dict):
        raise definition_error(
            f"{what} maps over a list, not over a dict; "
            "write list(…) of its keys, or expand_kwargs() for a list of dicts",
            task_id=task_id,
        )
    if not isinstance(value, list | tuple):
        raise definition_error(
            f"{what} maps over a list or a task's result, not over {value!r}", task_id=task_id
        )
    return list(value)
