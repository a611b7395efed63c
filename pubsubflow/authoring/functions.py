"""What nodes run: functions and shell commands that functions return."""

from collections.abc import Callable, Mapping
from typing import Any

from pubsubflow.authoring.runtime.bash import as_variables, run_bash
from pubsubflow.authoring.runtime.context import current_context
from pubsubflow.authoring.runtime.signatures import Signature, is_async
from pubsubflow.authoring.task_body import Binding, Kind
from pubsubflow.model.runs.waits import Waiting


class FunctionBody:
    """A function with its arguments.

    Attributes:
        operator: `task`, `bash` or `PythonOperator`.
    """

    def __init__(
        self,
        signature: Signature,
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
        return "async" if is_async(self.signature.function) else "sync"

    def values(self) -> list[object]:
        """Return all arguments."""
        return [*self.args, *self.kwargs.values()]

    @property
    def waits_first(self) -> bool:
        """It runs at once."""
        return False

    def start(self, timeout: float | None) -> Waiting | None:  # noqa: ARG002 - see sensors
        """It runs at once."""
        return None

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with all its arguments."""
        call = self.signature.call(
            binding.context,
            binding.resolve(self.args),
            binding.resolve(self.kwargs) | binding.elements,
        )
        if self.operator != "bash":
            return call
        return lambda: run_bash(_command(call()), as_variables(current_context().trace))


def _command(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"@task.bash functions return the command as a text, not {value!r}")
    return value
