"""Wait targets: the event or time that a task waits for before any of its code runs."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.runtime.wait_specs import start_wait_set
from pubsubflow.authoring.tasks.body import Binding
from pubsubflow.authoring.tasks.graph import references
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.waits import WaitSet

_TEMPLATE_SIGNS = ("{{", "{%", "{#")


class WaitTarget:
    """The argument of a sensor or a `start_trigger`, as its author wrote it.

    Args:
        wanted: A trigger, timedelta or dataset; or a function of the Context that returns one.
        what: The decorator or attribute, for messages.
        templates: Whether strings in a trigger's fields are templates.
    """

    def __init__(self, wanted: object, what: str, *, templates: bool = False) -> None:
        self.what = what
        self._wanted = wanted
        self._templates = templates

    @property
    def factory(self) -> Callable[..., object] | None:
        """The function that returns the target when the task runs, if it is one."""
        wanted = self._wanted
        # A trigger's class is callable as well; a user who passes it forgot to call it.
        is_type = isinstance(wanted, type)
        return wanted if callable(wanted) and not is_type else None

    def references(self) -> list[object]:
        """Return the references to other tasks' results in a trigger's fields."""
        return [each for value in self._fields().values() for each in references(value)]

    def rendered(self) -> list[object]:
        """Return the values of a trigger's fields whose strings are templates."""
        return list(self._fields().values()) if self._templates else []

    @property
    def is_static(self) -> bool:
        """Whether the target is known before the task runs."""
        if self.factory is not None or self.references():
            return False
        return not (self._templates and holds_template(self._fields()))

    def start_wait(self, timeout: float | None) -> WaitSet | None:
        """Return the wait that begins before the task runs; None while the target is unknown.

        Raises:
            DefinitionError: It is not possible to wait for it.
        """
        return start_wait_set(self._wanted, self.what, timeout) if self.is_static else None

    def resolve(self, binding: Binding, arguments: Mapping[str, Any]) -> Any:
        """Return the trigger, timedelta or dataset, once the task runs.

        Args:
            binding: The values of other tasks.
            arguments: The task's arguments by name, for a factory that takes some.
        """
        if self.factory is not None:
            _, *names = inspect.signature(self.factory).parameters.values() or (None,)
            given = {each.name: arguments[each.name] for each in names if each.name in arguments}
            return self.factory(binding.context, **given)
        if not isinstance(self._wanted, Trigger):
            return self._wanted
        replace = binding.resolve
        if self._templates:
            replace = functools.partial(binding.render, field="start_trigger")
        fields = {name: replace(value) for name, value in self._fields().items()}
        return msgspec.structs.replace(self._wanted, **fields)

    def _fields(self) -> dict[str, Any]:
        trigger = self._wanted
        return msgspec.structs.asdict(trigger) if isinstance(trigger, Trigger) else {}


async def wait_at_start(context: Context, wanted: Any, seconds: float | None) -> Any:
    """Wait on a worker for a target that is known only there; return its event."""
    event = (await context.first(wanted, timeout=seconds)).event
    context.set_trigger_event(event)
    return event


def wait_result(event: TriggerEvent | DatasetEvent) -> Any:
    """Return the result of a task that only waits; see `waits.start_result`."""
    if isinstance(event, TriggerEvent):
        return event.payload
    return msgspec.structs.asdict(event) | {"dataset": event.dataset.uri}


def is_template(text: str) -> bool:
    """Return whether a string holds the delimiters of a template."""
    return any(sign in text for sign in _TEMPLATE_SIGNS)


def holds_template(value: object) -> bool:
    """Return whether a string inside nested lists, tuples and dicts is a template."""
    if isinstance(value, str):
        return is_template(value)
    if isinstance(value, dict):
        return any(map(holds_template, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_template, value))
