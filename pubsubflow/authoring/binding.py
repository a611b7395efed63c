"""The binding of a task instance: its arguments with values in place of references."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import msgspec

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.graph import Node, Reference, references
from pubsubflow.authoring.tasks.mapped.group_mapping import ElementReference, elements_in
from pubsubflow.authoring.tasks.param_reference import ParamReference
from pubsubflow.authoring.tasks.wait_target import holds_template, is_template
from pubsubflow.errors import DefinitionError, ResultNotFound
from pubsubflow.model.wire.messages import MAX_MAP_NAME, NOT_MAPPED

_SHOWN_CHARACTERS = 4_096


class TaskBinding:
    """The Binding of one task instance: replaces references by values."""

    def __init__(
        self,
        nodes: Sequence[Node],
        node: Node,
        context: Context,
        inputs: Mapping[int, Any],
        elements: Mapping[str, Any],
        indexes: Sequence[int],
    ) -> None:
        self.context = context
        self.timeout = node.options.timeout
        self.has_references = bool(node.inputs or node.used_elements) or node.uses_params
        self._node = node
        self._nodes = nodes
        self._values = {nodes[number]: value for number, value in inputs.items()}
        self._given = elements
        self._indexes = indexes
        self.looks = 0
        self.elements = self.render_elements(()) if node.expand_inputs else {}

    def render_elements(self, fields: Collection[str]) -> dict[str, Any]:
        """Return argument → element, with the fields' elements that stand in the file rendered."""
        found: dict[str, Any] = {}
        for position, mapped in enumerate(self._node.expand_inputs):
            if mapped.counted:
                continue
            name, value = mapped.name, self._given.get(mapped.name)
            from_result = isinstance(mapped.values, Reference)
            if not isinstance(mapped.values, Reference):
                value = mapped.values[self._indexes[position]]
            row = {name: value} if name else value
            if not isinstance(row, dict):
                raise bad_task(self._node, f"expand_kwargs() needs dicts, not {value!r}")
            for key, item in row.items():
                if from_result:
                    found[key] = item
                else:
                    found[key] = self.render(item, key) if key in fields else self.resolve(item)
        return found

    def all_elements(self, fetch: Callable[[int, int], bytes]) -> dict[str, Any]:
        """Return argument → the element that this instance, or its group, is mapped to.

        Args:
            fetch: Returns an encoded element of a node's result; called for those that its order
                has left out, as none of its arguments is one.
        """
        mapping = self._node.mapping
        if mapping is None:
            return self.elements
        found: dict[str, Any] = {}
        for position, mapped in enumerate(mapping.inputs):
            index = self._indexes[position]
            if not isinstance(mapped.values, Reference):
                value = self.resolve(mapped.values[index])
            elif mapped.name in self._given:
                value = self._given[mapped.name]
            else:
                value = results.decode(fetch(self._nodes.index(mapped.values.node), index))
            found |= {mapped.name: value} if mapped.name else dict(value)
        return found

    def resolve(self, value: Any) -> Any:
        """Return the value with references replaced."""
        plain = not self._node.uses_params and next(references(value), None) is None
        if plain and (not self._node.used_elements or next(elements_in(value), None) is None):
            return value
        return _walk(value, self._value_of, lambda text: text)

    def render(self, value: Any, field: str) -> Any:
        """Return the value with references replaced and strings rendered."""
        found = _walk(value, self._value_of, lambda text: self._render(text, field))
        if holds_template(value):
            self.context.rendered[field] = _shown(found)
        return found

    def _element(self, reference: ElementReference) -> Any:
        """Return the element, or the part of it, that a reference means for this instance."""
        mapped = reference.input
        if isinstance(mapped.values, Reference):
            return reference.select(self._given.get(mapped.name))
        position = [each.name for each in reference.mapping.inputs].index(mapped.name)
        return self.resolve(reference.select(mapped.values[self._indexes[position]]))

    def _value_of(self, reference: Reference | ParamReference | ElementReference) -> Any:
        try:
            if isinstance(reference, ElementReference):
                return self._element(reference)
            if isinstance(reference, ParamReference):
                return reference.select(self.context.run.params)
            return reference.select(self._values[reference.node])
        except (KeyError, IndexError, TypeError) as error:
            if isinstance(reference, Reference):
                return self._pushed_value(reference, error)
            raise bad_task(self._node, f"{reference!r} is missing: {error!r}") from error

    def _pushed_value(self, reference: Reference, error: Exception) -> Any:
        """Return what a reference names among the values that its task has pushed by key."""
        key = reference.path[0] if reference.path else None
        if isinstance(key, str):
            with suppress(ResultNotFound, KeyError, IndexError, TypeError):
                found = self.context.pull(reference.node.task_id, key)
                return Reference(reference.node, reference.path[1:]).select(found)
        raise bad_task(self._node, f"{reference!r} is missing: {error!r}") from error

    def _render(self, text: str, field: str) -> str:
        if not is_template(text):
            return text
        try:
            return _templates().render(text, self.context)  # type: ignore[no-any-return]
        except Exception as error:
            reason = error.message if isinstance(error, DefinitionError) else error
            raise bad_task(self._node, f"template field {field!r}: {reason}") from error


def _shown(value: Any) -> str:
    """Return a rendered value for people: a text as it is, other values as JSON, cut to length."""
    text = value if isinstance(value, str) else ""
    if not text:
        with suppress(TypeError, ValueError):
            text = msgspec.json.encode(value).decode()
    more = len(text) - _SHOWN_CHARACTERS
    return text if more <= 0 else f"{text[:_SHOWN_CHARACTERS]}… {more:,} characters more"


def map_name(template: str | None, context: Context) -> str:
    """Return the name of an instance once its function has ended; empty for none.

    A template that cannot be rendered is a line in the log: the outcome of the task does not hang
    on its name.
    """
    if template is None or context.task.map_index == NOT_MAPPED:
        return ""
    try:
        text: str = _templates().render(template, context)
    except Exception as error:  # noqa: BLE001 - values of users are converted to text
        context.log.warning("map_index_template cannot be rendered", reason=str(error))
        return ""
    return " ".join(text.split())[:MAX_MAP_NAME]


@cache
def _templates() -> Any:
    """Import jinja2 for the first template; see `templates`."""
    return import_module("pubsubflow.authoring.runtime.templates")


def _walk(value: Any, picked: Callable[[Any], Any], rendered: Callable[[str], str]) -> Any:
    if isinstance(value, Reference | ParamReference | ElementReference):
        return picked(value)
    if isinstance(value, str):
        return rendered(value)
    if isinstance(value, dict):
        return {key: _walk(item, picked, rendered) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_walk(item, picked, rendered) for item in value]
        if isinstance(value, list):
            return items
        # A namedtuple takes its items as arguments.
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def bad_task(node: Node, message: str) -> Exception:
    """Return the error for a task that cannot be bound or whose value does not fit."""
    return definition_error(
        message, location=node.location, dag_id=node.graph.dag_id, task_id=node.task_id
    )
