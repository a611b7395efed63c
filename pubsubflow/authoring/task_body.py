"""What a node of a DAG runs, and what it is given to run it."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

from pubsubflow.model.runs.waits import Waiting

Kind = Literal["async", "sync", "empty"]


class Binding(Protocol):
    """What a body gets to turn references into values when it is about to run.

    Attributes:
        context: The task's Context.
        elements: Argument → the element that this instance is mapped to.
        timeout: The task's timeout in seconds.
    """

    context: Any
    elements: dict[str, Any]
    timeout: float | None

    def resolve(self, value: Any) -> Any:
        """Return the value with every reference inside replaced by what it refers to."""

    def render(self, value: Any, field: str) -> Any:
        """Do what `resolve` does, and render the texts as templates."""


class Body(Protocol):
    """What a node runs."""

    @property
    def kind(self) -> Kind:
        """Which sort of runner it needs."""

    @property
    def operator(self) -> str:
        """Its name for people."""

    def values(self) -> list[object]:
        """Return the argument values that may hold references."""

    @property
    def waits_first(self) -> bool:
        """Whether it begins with a wait, which its timeout limits."""

    def start(self, timeout: float | None) -> Waiting | None:
        """Return what must happen before anything of it runs, if that is known by now.

        Args:
            timeout: The task's timeout in seconds.
        """

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with all its arguments."""
