"""Polling sensors: functions under `@task.sensor(every=…)`, called until they are done."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from pubsubflow.authoring.runtime.signatures import FunctionSignature, is_async
from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.body import Binding, FunctionBody
from pubsubflow.authoring.validation import flag, number, optional, positive_seconds
from pubsubflow.model.runs.polling import next_delay
from pubsubflow.model.spec import PollSpec
from pubsubflow.model.wire.waits import POLL, Wait, WaitSet

POLL_KEYWORDS = ("soft_fail", "backoff", "max_every")
_CHECKS: Mapping[str, Callable[[object], Any]] = {
    "every": positive_seconds,
    "soft_fail": flag,
    "backoff": number(1, 100),
    "max_every": optional(positive_seconds),
}


class Poked(Struct, frozen=True):
    """What a look of a polling sensor has found.

    Attributes:
        done: Whether the sensor is done.
        value: Its result, when it is.
    """

    done: bool
    value: Any = None


def poll_spec(given: Mapping[str, Any], task_id: str) -> PollSpec:
    """Return the serialised form of a sensor's keywords.

    Raises:
        DefinitionError: One of them is invalid.
    """
    found = {}
    for name, value in given.items():
        try:
            found[name] = _CHECKS[name](value)
        except (TypeError, ValueError) as error:
            raise definition_error(
                f"@task.sensor: {name}={value!r} {error}", task_id=task_id
            ) from None
    return PollSpec(
        found["every"],
        soft_fail=found.get("soft_fail", False),
        backoff=found.get("backoff", 1.0),
        max_every_seconds=found.get("max_every"),
    )


class PollBody(FunctionBody):
    """A function that looks for something.

    Args:
        signature: The function's.
        args: Its arguments.
        kwargs: Its keyword arguments.
        poll: How often it is called.
    """

    def __init__(
        self,
        signature: FunctionSignature,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        poll: PollSpec,
    ) -> None:
        super().__init__(signature, args, kwargs, operator="sensor")
        self.poll = poll

    def bind(self, binding: Binding) -> Callable[[], Any]:
        """Return one look, which ends the attempt until the next one unless it is done."""
        call = super().bind(binding)
        looks = binding.looks + 1
        if not is_async(self.signature.function):
            return lambda: self._found(call(), looks)

        async def look() -> Any:
            pending: Awaitable[Any] = call()
            return self._found(await pending, looks)

        return look

    def _found(self, value: object, looks: int) -> Any:
        done: object = value.done if isinstance(value, Poked) else value
        if not isinstance(done, bool):
            name = self.signature.function.__name__
            raise definition_error(
                f"{name}() is a sensor: it returns True, False or Poked(done, value), not {done!r}"
            )
        if done:
            return value.value if isinstance(value, Poked) else None
        wait = Wait("time", "the next look", delay_seconds=next_delay(self.poll, looks))
        raise TaskDeferred(WaitSet(POLL, "the next look", (wait,), looks=looks))
