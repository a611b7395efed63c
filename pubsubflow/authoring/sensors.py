"""`@task.sensor`: tasks that begin with a wait."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import msgspec

from pubsubflow.authoring.functions import FunctionBody
from pubsubflow.authoring.graph import references
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.signatures import Signature, is_async
from pubsubflow.authoring.runtime.wait_specs import start_waiting
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.task_body import Binding, Kind
from pubsubflow.model.runs.waits import Waiting
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.messages import EventInfo

_TEMPLATE_SIGNS = ("{{", "{%", "{#")


class Awaited:
    """What a task waits for before it does anything, as its author wrote it.

    Args:
        wanted: A trigger, timedelta or dataset; or a function of the Context that gives one.
        what: Who waits, for messages.
        templates: Whether texts in a trigger's fields are templates.
    """

    def __init__(self, wanted: object, what: str, *, templates: bool = False) -> None:
        self.what = what
        self._wanted = wanted
        self._templates = templates

    @property
    def make(self) -> Callable[..., object] | None:
        """The function that gives it when the task runs, if it is one."""
        wanted = self._wanted
        is_type = isinstance(wanted, type)
        return wanted if callable(wanted) and not is_type else None

    def references(self) -> list[object]:
        """Return the results of other tasks that a trigger's fields hold."""
        return [each for value in self._fields().values() for each in references(value)]

    @property
    def known(self) -> bool:
        """Whether it is known before the task runs."""
        if self.make is not None or self.references():
            return False
        return not (self._templates and holds_template(self._fields()))

    def start(self, timeout: float | None) -> Waiting | None:
        """Return the wait that begins before anything of the task runs; None if it cannot yet.

        Raises:
            DefinitionError: Nobody can wait for it.
        """
        return start_waiting(self._wanted, self.what, timeout) if self.known else None

    def resolve(self, binding: Binding, arguments: Mapping[str, Any]) -> Any:
        """Return what to wait for, now that the task runs.

        Args:
            binding: Has the results of other tasks.
            arguments: The task's, by name, for a function that asks for some.
        """
        if self.make is not None:
            _, *names = inspect.signature(self.make).parameters.values() or (None,)
            given = {each.name: arguments[each.name] for each in names if each.name in arguments}
            return self.make(binding.context, **given)
        if not isinstance(self._wanted, Trigger):
            return self._wanted
        turn = binding.resolve
        if self._templates:
            turn = functools.partial(binding.render, field="start_trigger")
        fields = {name: turn(value) for name, value in self._fields().items()}
        return msgspec.structs.replace(self._wanted, **fields)

    def _fields(self) -> dict[str, Any]:
        trigger = self._wanted
        return msgspec.structs.asdict(trigger) if isinstance(trigger, Trigger) else {}


async def wait_at_start(context: Context, wanted: Any, seconds: float | None) -> Any:
    """Wait on a worker for what is known only there; return the event, which the task sees."""
    event = (await context.first(wanted, timeout=seconds)).event
    context.see(event)
    return event


def result_of(event: TriggerEvent | EventInfo) -> Any:
    """Return the result of a task that does nothing but wait; see `waits.start_result`."""
    return msgspec.structs.asdict(event) if isinstance(event, EventInfo) else event.payload


class SensorSignature(Signature):
    """The parameters of a sensor's function: the first one gets the event.

    A function with nothing in it need not have that parameter, and may have others for the
    function that makes the trigger.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.empty = is_empty(function)
        given = list(self._given.parameters.values())
        self._event = None if self.empty or not given else given[0].name
        if self._event is not None:
            self._given = self._given.replace(parameters=given[1:])

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError unless the function can be called like that, and with the event."""
        if self.empty:
            self._given.bind_partial(*args, **kwargs)
        else:
            super().check(args, kwargs)

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments by the names of their parameters."""
        return self._given.bind_partial(*args, **kwargs).arguments

    def _ours(self, context: Context) -> dict[str, Any]:
        event = {} if self._event is None else {self._event: context.trigger_event}
        return super()._ours(context) | event


class SensorBody(FunctionBody):
    """A function that runs when something has happened.

    Args:
        signature: Of the function.
        args: Its arguments behind the event.
        kwargs: Its keyword arguments.
        awaited: What must happen.
    """

    def __init__(
        self,
        signature: SensorSignature,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        awaited: Awaited,
    ) -> None:
        super().__init__(signature, args, kwargs, operator="sensor")
        self._sensor = signature
        self._awaited = awaited

    @property
    def kind(self) -> Kind:
        """`empty` when it only waits, for something that is known before."""
        if not self._awaited.known:
            return "async"
        return "empty" if self._sensor.empty else super().kind

    def values(self) -> list[object]:
        """Return all arguments, and what the trigger takes of other tasks."""
        return [*super().values(), *self._awaited.references()]

    @property
    def waits_first(self) -> bool:
        """It does."""
        return True

    def start(self, timeout: float | None) -> Waiting | None:
        """Return what must happen before the function is called, if that is known."""
        return self._awaited.start(timeout)

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return the call with all its arguments."""
        if self._awaited.known:
            return super().bind(binding)
        args = binding.resolve(self.args)
        kwargs = binding.resolve(self.kwargs) | binding.elements
        wanted = self._awaited.resolve(binding, self._sensor.by_name(args, kwargs))

        async def run() -> Any:
            event = await wait_at_start(binding.context, wanted, binding.timeout)
            if self._sensor.empty:
                return result_of(event)
            return await self._sensor.call(binding.context, args, kwargs)()

        return run


def sensor_signature(function: Callable[..., Any], awaited: Awaited, task_id: str) -> Signature:
    """Return the parameters of a sensor's function.

    Raises:
        DefinitionError: The function cannot wait, or the trigger's asks for an argument that it
            does not have.
    """
    signature = SensorSignature(function)
    if not (awaited.known or signature.empty or is_async(function)):
        raise mistake(
            "what this sensor waits for is known only when it runs, so write its function "
            "as `async def`",
            task_id=task_id,
        )
    if awaited.make is not None:
        _, *more = inspect.signature(awaited.make).parameters.values() or (None,)
        for parameter in more:
            if parameter.default is parameter.empty and parameter.name not in signature.names:
                raise mistake(
                    f"the sensor's trigger needs an argument {parameter.name!r}, which "
                    f"{getattr(function, '__name__', function)}() does not have",
                    task_id=task_id,
                )
    awaited.start(None)
    return signature


def is_empty(function: object) -> bool:
    """Tell whether a function surely does nothing: at most a docstring, `pass` or `...`."""
    return isinstance(getattr(function, "__code__", None), CodeType) and _shape(function) in _EMPTY


def is_template(text: str) -> bool:
    """Tell whether a text holds a template's signs."""
    return any(sign in text for sign in _TEMPLATE_SIGNS)


def holds_template(value: object) -> bool:
    """Tell whether one of the texts inside lists, tuples and dicts is a template."""
    if isinstance(value, str):
        return is_template(value)
    if isinstance(value, dict):
        return any(map(holds_template, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_template, value))


def _nothing() -> None:
    pass


def _nothing_told() -> None:
    """Do nothing."""


async def _nothing_async() -> None:
    pass


async def _nothing_async_told() -> None:
    """Do nothing."""


def _shape(function: Any) -> tuple[bytes, tuple[Any, ...], int]:
    """Return what a function's code comes to, whatever its docstring says."""
    code, doc = function.__code__, function.__doc__
    constants = tuple(b"doc" if doc and each == doc else each for each in code.co_consts)
    return code.co_code, constants, code.co_flags & inspect.CO_COROUTINE


_EMPTY = frozenset(map(_shape, (_nothing, _nothing_told, _nothing_async, _nothing_async_told)))
