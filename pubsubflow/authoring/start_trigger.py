"""`Operator.start_trigger`: what must happen before an operator executes."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pubsubflow.authoring.graph import references
from pubsubflow.authoring.runtime.signatures import is_async
from pubsubflow.authoring.sensors import Awaited, holds_template, result_of, wait_at_start
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.task_body import Binding, Kind


class Startable(Protocol):
    """An operator, as far as its start is concerned."""

    @property
    def template_fields(self) -> Sequence[str]:
        """Names of attributes that are rendered."""

    @property
    def start_trigger(self) -> Any:
        """What it waits for."""

    def execute(self, ctx: Any) -> Any:
        """Do the work."""


def operator_awaited(operator: Startable) -> Awaited | None:
    """Return what an operator waits for; nobody knows yet when that takes other tasks' results.

    Raises:
        DefinitionError: Its property raises.
    """
    kind = type(operator)
    if not _computed(kind):
        return _awaited(operator.start_trigger, kind, templates=True)
    if _unresolved(operator):
        return Awaited(_later, _place(kind))
    try:
        wanted = operator.start_trigger
    except Exception as error:
        raise mistake(f"{_place(kind)} raises {type(error).__name__}: {error}") from error
    return _awaited(wanted, kind, templates=False)


def class_awaited(kind: type[Startable]) -> Awaited | None:
    """Return what all instances of a class wait for, as far as the class knows."""
    if _computed(kind):
        return Awaited(_later, _place(kind))
    return _awaited(kind.start_trigger, kind, templates=True)


def kind_with_wait(name: str, kind: Kind, awaited: Awaited | None, *, executes: bool) -> Kind:
    """Return which sort of runner an operator needs.

    Args:
        name: The operator's class.
        kind: What its `execute` needs.
        awaited: What it waits for.
        executes: Whether it has an `execute` of its own.

    Raises:
        DefinitionError: It cannot wait where it runs.
    """
    if awaited is None:
        return kind
    if awaited.known:
        return kind if executes else "empty"
    if executes and kind != "async":
        raise _cannot_wait(name)
    return "async"


def start_then_execute(
    operator: Startable, binding: Binding, *, executes: bool
) -> Callable[[], Any]:
    """Return a call that waits on a worker for `start_trigger` and executes then.

    Args:
        operator: Its attributes are rendered and resolved.
        binding: What it gets.
        executes: Whether it has an `execute` of its own.

    Raises:
        DefinitionError: It cannot wait where it runs.
    """
    kind = type(operator)
    if executes and not is_async(operator.execute):
        raise _cannot_wait(kind.__name__)
    awaited = Awaited(operator.start_trigger, _place(kind), templates=not _computed(kind))
    wanted = awaited.resolve(binding, {})

    async def run() -> Any:
        event = await wait_at_start(binding.context, wanted, binding.timeout)
        return await operator.execute(binding.context) if executes else result_of(event)

    return run


def _awaited(wanted: Any, kind: type, *, templates: bool) -> Awaited | None:
    return None if wanted is None else Awaited(wanted, _place(kind), templates=templates)


def _computed(kind: type) -> bool:
    return isinstance(inspect.getattr_static(kind, "start_trigger"), property)


def _unresolved(operator: Startable) -> bool:
    """Whether attributes are not yet what they will be when it runs."""
    fields = operator.template_fields
    return any(
        next(references(value), None) is not None or (name in fields and holds_template(value))
        for name, value in vars(operator).items()
    )


def _later(ctx: Any) -> Any:
    """Stand for what is known when the task runs."""
    raise NotImplementedError(f"{ctx} asks its operator")


def _place(kind: type) -> str:
    return f"{kind.__name__}.start_trigger"


def _cannot_wait(name: str) -> Exception:
    return mistake(
        f"what {name} waits for is known only when it runs, so write its execute as `async def`"
    )
