"""Start triggers: the event or time that an operator waits for before it executes."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pubsubflow.authoring.runtime.signatures import is_async
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.body import Binding, Kind
from pubsubflow.authoring.tasks.graph import references
from pubsubflow.authoring.tasks.wait_target import (
    WaitTarget,
    holds_template,
    wait_at_start,
    wait_result,
)


class Startable(Protocol):
    """An operator, as its start uses it."""

    @property
    def template_fields(self) -> Sequence[str]:
        """Names of attributes that are rendered."""

    @property
    def start_trigger(self) -> Any:
        """The event or time that it waits for."""

    def execute(self, ctx: Any) -> Any:
        """Do the work."""


def operator_wait_target(operator: Startable) -> WaitTarget | None:
    """Return the target of an operator's wait; it is open while it takes other tasks' results.

    Raises:
        DefinitionError: Its property raises.
    """
    kind = type(operator)
    if not _is_property(kind):
        return _target(operator.start_trigger, kind, templates=True)
    if _unresolved(operator):
        return WaitTarget(_known_later, _attribute(kind))
    try:
        wanted = operator.start_trigger
    except Exception as error:
        raise definition_error(
            f"{_attribute(kind)} raises {type(error).__name__}: {error}"
        ) from error
    return _target(wanted, kind, templates=False)


def class_wait_target(kind: type[Startable]) -> WaitTarget | None:
    """Return the target that all instances of a class wait for, if the class determines it."""
    if _is_property(kind):
        return WaitTarget(_known_later, _attribute(kind))
    return _target(kind.start_trigger, kind, templates=True)


def runner_kind(name: str, kind: Kind, target: WaitTarget | None, *, executes: bool) -> Kind:
    """Return the kind of runner that an operator needs.

    Args:
        name: The operator's class.
        kind: The kind that its `execute` needs.
        target: The target of its wait.
        executes: Whether it has an `execute` of its own.

    Raises:
        DefinitionError: It cannot wait where it runs.
    """
    if target is None:
        return kind
    if target.is_static:
        return kind if executes else "empty"
    if executes and kind != "async":
        raise _cannot_wait(name)
    return "async"


def wait_then_execute(
    operator: Startable, binding: Binding, *, executes: bool
) -> Callable[[], Any]:
    """Return a call that waits on a worker for `start_trigger` and then executes.

    Args:
        operator: Its attributes are rendered and resolved.
        binding: The values of the task instance.
        executes: Whether it has an `execute` of its own.

    Raises:
        DefinitionError: It cannot wait where it runs.
    """
    kind = type(operator)
    if executes and not is_async(operator.execute):
        raise _cannot_wait(kind.__name__)
    target = WaitTarget(operator.start_trigger, _attribute(kind), templates=not _is_property(kind))
    wanted = target.resolve(binding, {})

    async def run() -> Any:
        event = await wait_at_start(binding.context, wanted, binding.timeout)
        return await operator.execute(binding.context) if executes else wait_result(event)

    return run


def _target(wanted: Any, kind: type, *, templates: bool) -> WaitTarget | None:
    return None if wanted is None else WaitTarget(wanted, _attribute(kind), templates=templates)


def _is_property(kind: type) -> bool:
    # A plain getattr would evaluate the property, which may need results of other tasks.
    return isinstance(inspect.getattr_static(kind, "start_trigger"), property)


def _unresolved(operator: Startable) -> bool:
    """Return whether attributes hold references or templates, which the run replaces."""
    fields = operator.template_fields
    return any(
        next(references(value), None) is not None or (name in fields and holds_template(value))
        for name, value in vars(operator).items()
    )


def _known_later(ctx: Any) -> Any:
    """Stand for a target that is known when the task runs; it is never called."""
    raise NotImplementedError(ctx)


def _attribute(kind: type) -> str:
    return f"{kind.__name__}.start_trigger"


def _cannot_wait(name: str) -> Exception:
    return definition_error(
        f"the start_trigger of {name} is known only when it runs: write its execute as `async def`"
    )
