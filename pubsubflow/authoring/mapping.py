"""What a task may be mapped over."""

from collections.abc import Mapping
from typing import Any

from pubsubflow.authoring.graph import MappedOver, Reference
from pubsubflow.authoring.source_location import mistake


def keyword_factors(
    factors: Mapping[str, Any], fixed: Mapping[str, Any], task_id: str
) -> tuple[MappedOver, ...]:
    """Return what `expand(**factors)` maps over.

    Raises:
        DefinitionError: Nothing is given, a keyword is fixed already, or a value is no list.
    """
    if not factors:
        raise mistake("expand() needs a list, as in expand(day=days)", task_id=task_id)
    for name in factors:
        if name in fixed:
            raise mistake(f"{name!r} is given to partial() and to expand()", task_id=task_id)
    return tuple(
        MappedOver(name, _elements(value, f"expand({name}=…)", task_id))
        for name, value in factors.items()
    )


def row_factor(rows: Any, fixed: Mapping[str, Any], task_id: str) -> MappedOver:
    """Return what `expand_kwargs(rows)` maps over.

    Raises:
        DefinitionError: It is no list of dicts with text keys, or a key is fixed already.
    """
    elements = _elements(rows, "expand_kwargs()", task_id)
    if isinstance(elements, Reference):
        return MappedOver("", elements)
    for row in elements:
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            raise mistake(f"expand_kwargs() takes dicts, not {row!r}", task_id=task_id)
        twice = sorted(row.keys() & fixed.keys())
        if twice:
            raise mistake(
                f"{twice[0]!r} is given to partial() and to expand_kwargs()", task_id=task_id
            )
    return MappedOver("", elements)


def _elements(value: Any, what: str, task_id: str) -> list[Any] | Reference:
    if isinstance(value, Reference):
        if value.path:
            raise mistake(
                f"{what} maps over whole results; write a task that returns {value!r}",
                task_id=task_id,
            )
        return value
    if isinstance(value, dict):
        raise mistake(
            f"{what} maps over a list, not over a dict; "
            "write list(…) of its keys, or expand_kwargs() for a list of dicts",
            task_id=task_id,
        )
    if not isinstance(value, list | tuple):
        raise mistake(
            f"{what} maps over a list or a task's result, not over {value!r}", task_id=task_id
        )
    return list(value)
