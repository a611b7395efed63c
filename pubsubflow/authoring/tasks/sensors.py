"""Sensors: functions under `@task.sensor`, which begin with a wait."""

import inspect
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

from pubsubflow.authoring.runtime.signatures import FunctionSignature, is_async
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.body import Binding, FunctionBody, Kind
from pubsubflow.authoring.tasks.wait_target import WaitTarget, wait_at_start, wait_result
from pubsubflow.model.wire.waits import WaitSet


class SensorSignature(FunctionSignature):
    """The parameters of a sensor's function: the first one gets the event.

    An empty function need not have that parameter. It may have parameters for the function that
    makes the trigger.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.empty = is_empty(function)
        given = list(self._given.parameters.values())
        if given and not self.empty:
            self.event = given[0].name
            self._given = self._given.replace(parameters=given[1:])

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError unless the function accepts the arguments and the event."""
        if self.empty:
            self._given.bind_partial(*args, **kwargs)
        else:
            super().check(args, kwargs)

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments by the names of their parameters."""
        return self._given.bind_partial(*args, **kwargs).arguments


class SensorBody(FunctionBody):
    """A function that runs after an event, a trigger's or a dataset's.

    Args:
        signature: The function's.
        args: Its arguments after the event.
        kwargs: Its keyword arguments.
        target: The event to wait for.
    """

    def __init__(
        self,
        signature: SensorSignature,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        target: WaitTarget,
    ) -> None:
        super().__init__(signature, args, kwargs, operator="sensor")
        self._sensor = signature
        self._target = target

    @property
    def kind(self) -> Kind:
        """`empty` when it only waits, for a target that is known before the task runs."""
        if not self._target.is_static:
            return "async"
        return "empty" if self._sensor.empty else super().kind

    def arguments(self) -> list[object]:
        """Return all arguments, and the references in the trigger's fields."""
        return [*super().arguments(), *self._target.references()]

    @property
    def starts_with_wait(self) -> bool:
        """True."""
        return True

    def start_wait(self, timeout: float | None) -> WaitSet | None:
        """Return the wait before the function is called, if its target is known."""
        return self._target.start_wait(timeout)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with all its arguments."""
        if self._target.is_static:
            return super().bind(binding)
        args = binding.resolve(self.args)
        kwargs = binding.resolve(self.kwargs) | binding.elements
        wanted = self._target.resolve(binding, self._sensor.by_name(args, kwargs))

        async def run() -> Any:
            event = await wait_at_start(binding.context, wanted, binding.timeout)
            if self._sensor.empty:
                return wait_result(event)
            return await self._sensor.call(binding.context, args, kwargs)()

        return run


def sensor_signature(
    function: Callable[..., Any], target: WaitTarget, task_id: str
) -> FunctionSignature:
    """Return the parameters of a sensor's function.

    Raises:
        DefinitionError: The function cannot wait, or it lacks an argument of the function that
            makes the trigger.
    """
    signature = SensorSignature(function)
    if not (target.is_static or signature.empty or is_async(function)):
        raise definition_error(
            "the target of this sensor is known only when it runs: write its function "
            "as `async def`",
            task_id=task_id,
        )
    if target.factory is not None:
        _, *more = inspect.signature(target.factory).parameters.values() or (None,)
        for parameter in more:
            if parameter.default is parameter.empty and parameter.name not in signature.names:
                raise definition_error(
                    f"the sensor's trigger needs an argument {parameter.name!r}, which "
                    f"{getattr(function, '__name__', function)}() does not have",
                    task_id=task_id,
                )
    target.start_wait(None)
    return signature


def is_empty(function: object) -> bool:
    """Return whether a function is empty: at most a docstring, `pass` or `...`."""
    return isinstance(getattr(function, "__code__", None), CodeType) and _shape(function) in _EMPTY


def _empty() -> None:
    pass


def _empty_with_doc() -> None:
    """Do nothing."""


async def _empty_async() -> None:
    pass


async def _empty_async_with_doc() -> None:
    """Do nothing."""


def _shape(function: Any) -> tuple[bytes, tuple[Any, ...], int]:
    """Return a function's code without its docstring, in a comparable form."""
    # Bytecode differs between versions of Python, so it is compared with samples of this one.
    code, doc = function.__code__, function.__doc__
    constants = tuple(b"doc" if doc and each == doc else each for each in code.co_consts)
    return code.co_code, constants, code.co_flags & inspect.CO_COROUTINE


_EMPTY = frozenset(map(_shape, (_empty, _empty_with_doc, _empty_async, _empty_async_with_doc)))
