"""The body of a task: a function, an operator or a sensor, as the graph and a runner see it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol

from pubsubflow.authoring.runtime.bash import run_bash, trace_variables
from pubsubflow.authoring.runtime.context import current_context
from pubsubflow.authoring.runtime.signatures import FunctionSignature
from pubsubflow.model.wire.waits import WaitSet

Kind = Literal["async", "sync", "empty"]


class Binding(Protocol):
    """The values of one task instance, which replace the references in a body's arguments.

    Attributes:
        context: The task's Context.
        elements: Argument → the element that this instance is mapped to.
        timeout: The task's timeout in seconds.
        has_references: Whether the arguments hold references.
        looks: How often a polling sensor has looked.
    """

    context: Any
    elements: dict[str, Any]
    timeout: float | None
    has_references: bool
    looks: int

    def resolve(self, value: Any) -> Any:
        """Return the value with every reference inside replaced by the result it refers to."""

    def render(self, value: Any, field: str) -> Any:
        """Do what `resolve` does, and render the strings that stand in the file as templates."""

    def render_elements(self, fields: Collection[str]) -> dict[str, Any]:
        """Return `elements` with those of the file rendered; results and events are data."""


class Body(Protocol):
    """The work of a node."""

    @property
    def kind(self) -> Kind:
        """The kind of runner that it needs."""

    @property
    def operator(self) -> str:
        """Its name for people."""

    def arguments(self) -> list[object]:
        """Return the argument values that may hold references."""

    @property
    def starts_with_wait(self) -> bool:
        """Whether it begins with a wait, which its timeout limits."""

    def start_wait(self, timeout: float | None) -> WaitSet | None:
        """Return the wait before anything of it runs, if it is known before the task runs.

        Args:
            timeout: The task's timeout in seconds.
        """

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with all its arguments."""


class FunctionBody:
    """A function with its arguments.

    Attributes:
        operator: `task`, `bash` or `PythonOperator`.
    """

    def __init__(
        self,
        signature: FunctionSignature,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        operator: str = "task",
    ) -> None:
        self.signature = signature
        self.args = args
        self.kwargs = dict(kwargs)
        self.operator = operator

    @property
    def kind(self) -> Kind:
        """`async` for `async def`."""
        return "async" if self.signature.is_async else "sync"

    def arguments(self) -> list[object]:
        """Return all arguments."""
        return [*self.args, *self.kwargs.values()]

    @property
    def starts_with_wait(self) -> bool:
        """False: it runs at once."""
        return False

    def start_wait(self, timeout: float | None) -> WaitSet | None:  # noqa: ARG002 - see sensors
        """Return None: it runs at once."""
        return None

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with all its arguments."""
        args, kwargs = self.args, self.kwargs
        if binding.has_references:
            args, kwargs = binding.resolve(args), binding.resolve(kwargs)
        call = self.signature.call(binding.context, args, kwargs | binding.elements)
        if self.operator != "bash":
            return call
        # The context is current only while the task runs, so it is read inside of the call.
        return lambda: run_bash(_command(call()), trace_variables(current_context().trace))


def _command(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"@task.bash functions return the command as a string, not {value!r}")
    return value
