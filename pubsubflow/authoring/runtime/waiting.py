"""Waits and steps of a task's context, for `async def` tasks."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from pubsubflow.authoring.approvals.question import (
    ApprovalAnswer,
    ApprovalRequest,
    Escalate,
    Form,
    Notify,
    answer_of,
    approval_spec,
    escalation,
    new_approval_id,
)
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.runtime.wait_specs import (
    MAX_LABEL_CHARACTERS,
    Waitable,
    as_dataset_expression,
    as_events,
    as_wait,
    combined_label,
    event_wait,
    sleep_wait,
    timeout_seconds,
    trigger_wait,
)
from pubsubflow.authoring.schedules.dataset_expressions import DatasetExpression
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import Seconds, seconds
from pubsubflow.errors import WaitTimeout
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.approvals import ApprovalSpec, approval_wait
from pubsubflow.model.wire.waits import Wait, WaitCompletion

IN_STEP: ContextVar[bool] = ContextVar("pubsubflow_in_step", default=False)
"""Whether the current code runs inside of a step."""


class Journal(Protocol):
    """The journal of one attempt: it answers recorded waits and steps, and records new ones."""

    @property
    def replaying(self) -> bool:
        """Whether a further step or wait is recorded already."""

    def now(self) -> float:
        """Return the time in seconds since 1970."""

    def check_open(self) -> None:
        """Raise the attempt's end, if that is decided already."""

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Return the recorded value of a step, or call its function and record the value."""

    async def wait(
        self, label: str, waits: Sequence[Wait], required: int, limit: float | None
    ) -> tuple[WaitCompletion, ...]:
        """Return the recorded completions of a wait, or end the attempt until it is complete."""


class First(Struct, frozen=True):
    """The result of `ctx.first`.

    Attributes:
        index: Position of the completed argument, from 0.
        event: Its event; without a payload when a time has passed.
    """

    index: int
    event: TriggerEvent | DatasetEvent


class WaitMethods:
    """Waits that hold no slot, and steps that are done once.

    At a wait the task leaves its worker. When the wait is over, the function runs again from its
    top: waits and steps that it has done before return their recorded values at once.
    """

    _journal: Journal | None = None
    _trigger_event: Any = None

    @property
    def trigger_event(self) -> TriggerEvent | DatasetEvent | None:
        """The event of an operator's `start_trigger`; None for a task without one."""
        found: TriggerEvent | DatasetEvent | None = self._trigger_event
        return found

    def set_trigger_event(self, event: TriggerEvent | DatasetEvent) -> None:
        """Set the event of the task's `start_trigger`."""
        self._trigger_event = event

    def wait(
        self, trigger: Trigger, *, timeout: Seconds | None = None, name: str | None = None
    ) -> Awaitable[TriggerEvent]:
        """Wait until a trigger fires, and return its event.

        Args:
            trigger: For example `FileArrived(path="/data/orders.csv")`.
            timeout: A timedelta, or seconds.
            name: A label for people; the trigger's registered name when left out.

        Raises:
            DefinitionError: The task is not an `async def`, the trigger is not registered, or an
                argument is invalid.
            WaitTimeout: It did not fire in time.
            TriggerError: It failed; its traceback is a note of the exception.
        """
        what = "ctx.wait()"
        journal = self._journal_of_task(what)
        if isinstance(trigger, DatasetExpression | timedelta):
            raise definition_error(
                f"{what} takes a trigger; use ctx.sleep() or ctx.wait_for_event()"
            )
        wait = trigger_wait(trigger, what, journal.now())
        label = wait.name if name is None else _name(name, what)
        return _only(journal, label, wait, timeout_seconds(timeout, what))

    def sleep(self, length: Seconds) -> Awaitable[None]:
        """Wait until a time has passed.

        Args:
            length: A timedelta, or seconds.

        Raises:
            DefinitionError: The task is not an `async def`, or the length is not a duration.
        """
        what = "ctx.sleep()"
        journal = self._journal_of_task(what)
        return _slept(journal, sleep_wait(length, what, journal.now()))

    def wait_for_event(
        self,
        dataset: DatasetExpression | str,
        *,
        where: str | None = None,
        lookback: Seconds | None = None,
        timeout: Seconds | None = None,
    ) -> Awaitable[DatasetEvent]:
        """Wait for an event of a dataset, and return it.

        Events that are recorded after the call count. A further call for the same dataset
        continues after the event of the call before, so a loop misses none.

        Args:
            dataset: A dataset, its URI, `Dataset.match(…)`, or one of these with `.where(…)`.
            where: A CEL expression over `event` that must be true.
            lookback: Also count events recorded so long before the call.
            timeout: A timedelta, or seconds.

        Raises:
            DefinitionError: The task is not an `async def`, or an argument is invalid.
            WaitTimeout: None was recorded in time.
        """
        what = "ctx.wait_for_event()"
        journal = self._journal_of_task(what)
        if not isinstance(dataset, DatasetExpression | str):
            raise definition_error(f"{what} takes a dataset or its URI, not {dataset!r}")
        source = as_dataset_expression(dataset)
        try:
            back = 0.0 if lookback is None else seconds(lookback)
        except (TypeError, ValueError) as error:
            raise definition_error(f"{what}: lookback={lookback!r} {error}") from None
        source = source if where is None else source.where(where)
        wait = event_wait(source, what, journal.now() - back)
        return _only(journal, wait.name, wait, timeout_seconds(timeout, what))

    def approve(
        self,
        question: str,
        *,
        options: Sequence[str] = ("approve", "reject"),
        form: Form | None = None,
        by: Sequence[str] = ("role:operator",),
        quorum: int = 1,
        details: str | None = None,
        timeout: Seconds | None = None,
        default: str | None = None,
        escalate: Escalate | None = None,
        notify: Notify | None = None,
    ) -> Awaitable[ApprovalAnswer]:
        """Wait until enough people have given the same answer to a question.

        Args:
            question: For people, at most 200 characters.
            options: What may be answered.
            form: Values that go with the answer: a Struct type, or a mapping of `Param`s.
            by: Who may answer: `role:operator` or above, `user:<name of a token>`.
            quorum: How many persons must choose the same option.
            details: What they need to know to decide.
            timeout: A timedelta, or seconds.
            default: The option when the time is over; WaitTimeout is raised without one.
            escalate: `Escalate(after=…, by=…)`: more people may answer after a while.
            notify: A function that notifies people; gets an `ApprovalRequest`, and another when
                it is escalated.

        Raises:
            DefinitionError: The task is not an `async def`, or an argument is invalid.
            WaitTimeout: Too few have answered in time.
        """
        what = "ctx.approve()"
        journal = self._journal_of_task(what)
        spec = approval_spec(question, options, form, by, quorum, details)
        if default is not None and default not in spec.options:
            raise definition_error(f"{what}: default={default!r} is none of the options")
        limit = timeout_seconds(timeout, what)
        stages = [(spec, limit)]
        later = escalation(escalate, limit)
        if later is not None:
            wider = msgspec.structs.replace(spec, by=(*spec.by, *later[1]), escalated=True)
            stages = [(spec, later[0]), (wider, None if limit is None else limit - later[0])]
        return _approved(journal, stages, default, form, notify)

    def step(
        self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Awaitable[Any]:
        """Call a function once, record its value, and return it.

        However often the task runs again, a recorded step is not done again. A plain function
        runs in a thread. In `asyncio.gather` and the like, steps need different names or
        arguments.

        Args:
            name: A label for people; the same in every run of the task.
            function: A function, `def` or `async def`.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Raises:
            DefinitionError: The task is not an `async def`, the step is inside of another one, or
                its value is not one that a task could return.
            StepFailed: The function raised; that is recorded as well.
        """
        what = "ctx.step()"
        journal = self._journal_of_task(what)
        label = _name(name, what)
        if not callable(function):
            raise definition_error(
                f"{what}: step {name!r} takes a function and its arguments, not {function!r}"
            )
        return journal.step(label, function, args, kwargs)

    def first(self, *wanted: Waitable, timeout: Seconds | None = None) -> Awaitable[First]:
        """Wait until one of several things happens, and return which one.

        Args:
            wanted: Triggers, timedeltas, datasets, `Dataset.match(…)`, `.where(…)`, URIs.
            timeout: A timedelta, or seconds.

        Raises:
            DefinitionError: There is nothing to wait for, or see `wait`.
            WaitTimeout: Nothing happened in time.
            TriggerError: A trigger failed.
        """
        what = "ctx.first()"
        journal = self._journal_of_task(what)
        if not wanted:
            raise definition_error(f"{what} needs something to wait for")
        waits = [as_wait(each, what, journal.now()) for each in wanted]
        return _first(journal, waits, timeout_seconds(timeout, what))

    def all(
        self, *wanted: Waitable, timeout: Seconds | None = None
    ) -> Awaitable[list[TriggerEvent | DatasetEvent]]:
        """Wait until all of several things have happened, and return their events in this order.

        Args:
            wanted: Triggers, timedeltas, datasets and URIs, as for `first`.
            timeout: A timedelta, or seconds.

        Raises:
            DefinitionError: See `wait`.
            WaitTimeout: Not all happened in time.
            TriggerError: A trigger failed.
        """
        what = "ctx.all()"
        journal = self._journal_of_task(what)
        waits = [as_wait(each, what, journal.now()) for each in wanted]
        return _all(journal, waits, timeout_seconds(timeout, what))

    def _journal_of_task(self, what: str) -> Journal:
        if self._journal is None:
            raise definition_error(
                f"{what} works in `async def` tasks only: a plain `def` cannot be suspended; "
                "write `async def`, and call blocking functions with ctx.step()"
            )
        return self._journal


async def _only(journal: Journal, label: str, wait: Wait, limit: float | None) -> Any:
    completions = await journal.wait(label, (wait,), 1, limit)
    return as_events((wait,), completions)[0]


async def _approved(
    journal: Journal,
    stages: Sequence[tuple[ApprovalSpec, float | None]],
    default: str | None,
    form: Form | None,
    notify: Notify | None,
) -> ApprovalAnswer:
    """Wait in stages: when the time of one is over, more people may answer in the next."""
    approval = await journal.step("approval id", new_approval_id, (), {})
    for number, (stage, limit) in enumerate(stages, 1):
        spec = msgspec.structs.replace(stage, id=approval)
        if notify is not None:
            about = ApprovalRequest(
                approval, spec.title, spec.options, spec.by, spec.details, spec.escalated
            )
            await journal.step("notify", notify, (about,), {})
        wait = approval_wait(spec, journal.now())
        try:
            completions = await journal.wait(spec.title, (wait,), 1, limit)
        except WaitTimeout:
            if number < len(stages):
                continue
            if default is None:
                raise
            return ApprovalAnswer(default)
        (event,) = as_events((wait,), completions)
        return answer_of(event.extra, form) if isinstance(event, DatasetEvent) else _unasked()
    return _unasked()


def _unasked() -> ApprovalAnswer:
    raise TypeError("an approval ended without the event of an answer")


async def _slept(journal: Journal, wait: Wait) -> None:
    await journal.wait(wait.name, (wait,), 1, None)


async def _first(journal: Journal, waits: Sequence[Wait], limit: float | None) -> First:
    completions = await journal.wait(combined_label("first", waits), waits, 1, limit)
    return First(completions[0].slot, as_events(waits, completions)[0])


async def _all(
    journal: Journal, waits: Sequence[Wait], limit: float | None
) -> list[TriggerEvent | DatasetEvent]:
    if not waits:
        return []
    return as_events(
        waits, await journal.wait(combined_label("all", waits), waits, len(waits), limit)
    )


def _name(name: object, what: str) -> str:
    if not isinstance(name, str) or not name or len(name) > MAX_LABEL_CHARACTERS:
        raise definition_error(
            f"{what} needs a name of 1 to {MAX_LABEL_CHARACTERS} characters, not {name!r}"
        )
    return name
