"""The part of a task's context that waits and does steps; for `async def` tasks."""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pubsubflow.authoring.runtime.wait_specs import (
    MAX_LABEL_CHARACTERS,
    Wanted,
    as_events,
    as_source,
    as_wait,
    event_wait,
    joint_label,
    sleep_wait,
    timeout_seconds,
    trigger_wait,
)
from pubsubflow.authoring.schedules.dataset_expressions import Source
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.validation import Seconds, seconds
from pubsubflow.model.runs.waits import Wait
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.messages import EventInfo

if TYPE_CHECKING:
    from pubsubflow.authoring.runtime.journal import Journal

IN_STEP: ContextVar[bool] = ContextVar("pubsubflow_in_step", default=False)
"""Whether a step runs here."""


class First(Struct, frozen=True):
    """What `ctx.first` gives.

    Attributes:
        index: Which one of its arguments happened, from 0.
        event: What happened; without a payload when a time has passed.
    """

    index: int
    event: TriggerEvent | EventInfo


class Waits:
    """Waits that hold no slot, and steps that are done once.

    At a wait the task leaves its worker. When it is over, the function runs again from its top:
    waits and steps that it comes to once more give at once what they gave before.
    """

    _journal: "Journal | None" = None
    _trigger_event: Any = None

    @property
    def trigger_event(self) -> TriggerEvent | EventInfo | None:
        """What an operator's `start_trigger` saw; None for a task without one."""
        found: TriggerEvent | EventInfo | None = self._trigger_event
        return found

    def see(self, event: TriggerEvent | EventInfo) -> None:
        """Take an event for the one with which the task begins."""
        self._trigger_event = event

    def wait(
        self, trigger: Trigger, *, timeout: Seconds | None = None, name: str | None = None
    ) -> Awaitable[TriggerEvent]:
        """Wait until a trigger fires, and give its event.

        Args:
            trigger: For example `FileArrived(path="/data/orders.csv")`.
            timeout: A timedelta, or seconds.
            name: What people see; the trigger's registered name when left out.

        Raises:
            DefinitionError: The task is no `async def`, the trigger is not registered, or an
                argument is bad.
            WaitTimeout: It did not fire in time.
            TriggerError: It failed; its traceback is a note of the exception.
        """
        what = "ctx.wait()"
        journal = self._recording(what)
        if isinstance(trigger, Source | timedelta):
            raise mistake(f"{what} takes a trigger; use ctx.sleep() or ctx.wait_for_event()")
        wait = trigger_wait(trigger, what, journal.now())
        label = wait.name if name is None else _name(name, what)
        return _only(journal, label, wait, timeout_seconds(timeout, what))

    def sleep(self, length: Seconds) -> Awaitable[None]:
        """Wait until a time has passed.

        Args:
            length: A timedelta, or seconds.

        Raises:
            DefinitionError: The task is no `async def`, or the length is negative or no time.
        """
        what = "ctx.sleep()"
        journal = self._recording(what)
        return _slept(journal, sleep_wait(length, what, journal.now()))

    def wait_for_event(
        self,
        dataset: Source | str,
        *,
        where: str | None = None,
        lookback: Seconds | None = None,
        timeout: Seconds | None = None,
    ) -> Awaitable[EventInfo]:
        """Wait for an event of a dataset, and give it.

        Events count that are recorded after the call. A further call for the same dataset goes on
        after the event that the one before gave, so a loop misses none.

        Args:
            dataset: A dataset, its URI, `Dataset.match(…)`, or one of these with `.where(…)`.
            where: A CEL expression over `event` that must be true.
            lookback: Also count events recorded so long before the call.
            timeout: A timedelta, or seconds.

        Raises:
            DefinitionError: The task is no `async def`, or an argument is bad.
            WaitTimeout: There was none in time.
        """
        what = "ctx.wait_for_event()"
        journal = self._recording(what)
        if not isinstance(dataset, Source | str):
            raise mistake(f"{what} takes a dataset or its URI, not {dataset!r}")
        source = as_source(dataset)
        try:
            back = 0.0 if lookback is None else seconds(lookback)
        except (TypeError, ValueError) as error:
            raise mistake(f"{what}: lookback={lookback!r} {error}") from None
        source = source if where is None else source.where(where)
        wait = event_wait(source, what, journal.now() - back)
        return _only(journal, wait.name, wait, timeout_seconds(timeout, what))

    def step(
        self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Awaitable[Any]:
        """Call a function once, record what it returns, and give that.

        However often the task runs again, what is recorded is not done again. A plain function
        runs in a thread. In `asyncio.gather` and the like, steps need names or arguments that
        tell them apart.

        Args:
            name: What people see; the same in every run of the task.
            function: A function, `def` or `async def`.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            DefinitionError: The task is no `async def`, the step stands in another one, or its
                value is none that a task could return.
            StepFailed: The function raised; recorded as well.
        """
        what = "ctx.step()"
        journal = self._recording(what)
        label = _name(name, what)
        if not callable(function):
            raise mistake(
                f"{what}: step {name!r} takes a function and its arguments, not {function!r}"
            )
        return journal.step(label, function, args, kwargs)

    def first(self, *wanted: Wanted, timeout: Seconds | None = None) -> Awaitable[First]:
        """Wait until one of several things happens, and tell which.

        Args:
            wanted: Triggers, timedeltas, datasets, `Dataset.match(…)`, `.where(…)`, URIs.
            timeout: A timedelta, or seconds.

        Raises:
            DefinitionError: There is nothing to wait for, or see `wait`.
            WaitTimeout: Nothing happened in time.
            TriggerError: A trigger failed.
        """
        what = "ctx.first()"
        journal = self._recording(what)
        if not wanted:
            raise mistake(f"{what} needs something to wait for")
        waits = [as_wait(each, what, journal.now()) for each in wanted]
        return _first(journal, waits, timeout_seconds(timeout, what))

    def all(
        self, *wanted: Wanted, timeout: Seconds | None = None
    ) -> Awaitable[list[TriggerEvent | EventInfo]]:
        """Wait until all of several things have happened, and give their events in this order.

        Args:
            wanted: What `first` takes.
            timeout: A timedelta, or seconds.

        Raises:
            DefinitionError: See `wait`.
            WaitTimeout: Not all happened in time.
            TriggerError: A trigger failed.
        """
        what = "ctx.all()"
        journal = self._recording(what)
        waits = [as_wait(each, what, journal.now()) for each in wanted]
        return _all(journal, waits, timeout_seconds(timeout, what))

    def _recording(self, what: str) -> "Journal":
        if self._journal is None:
            raise mistake(
                f"{what} works in `async def` tasks only: a plain `def` cannot be left in the "
                "middle; write `async def`, and call what blocks with ctx.step()"
            )
        return self._journal


async def _only(journal: "Journal", label: str, wait: Wait, limit: float | None) -> Any:
    happened = await journal.wait(label, (wait,), 1, limit)
    return as_events((wait,), happened)[0]


async def _slept(journal: "Journal", wait: Wait) -> None:
    await journal.wait(wait.name, (wait,), 1, None)


async def _first(journal: "Journal", waits: Sequence[Wait], limit: float | None) -> First:
    happened = await journal.wait(joint_label("first", waits), waits, 1, limit)
    return First(happened[0].slot, as_events(waits, happened)[0])


async def _all(
    journal: "Journal", waits: Sequence[Wait], limit: float | None
) -> list[TriggerEvent | EventInfo]:
    if not waits:
        return []
    return as_events(waits, await journal.wait(joint_label("all", waits), waits, len(waits), limit))


def _name(name: object, what: str) -> str:
    if not isinstance(name, str) or not name or len(name) > MAX_LABEL_CHARACTERS:
        raise mistake(
            f"{what} needs a name of 1 to {MAX_LABEL_CHARACTERS} characters, not {name!r}"
        )
    return name
