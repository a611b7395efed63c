"""Wait specs: triggers, durations and datasets that a user waits for, in serialised form."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec

from pubsubflow.authoring.datasets import uri_of
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.schedules.dataset_expressions import ConstrainedDataset, DatasetExpression
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.trigger_encoding import encode_checked
from pubsubflow.authoring.validation import Seconds, positive_seconds, seconds
from pubsubflow.model.schedule.conditions import DatasetInput
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.model.wire.waits import START, Wait, WaitCompletion, WaitSet

Waitable = Trigger | timedelta | DatasetExpression | str
"""A wait's argument: a trigger, a time that passes, an event of a dataset or its URI."""

MAX_LABEL_CHARACTERS = 200
SLEEP = "sleep"


class TaskDeferred(BaseException):
    """Ends an attempt at a wait; user code must not handle it."""

    def __init__(self, wait_set: WaitSet) -> None:
        super().__init__(wait_set.label)
        self.wait_set = wait_set


def as_wait(wanted: object, what: str, now: float | None) -> Wait:
    """Return the serialised form of one wait.

    Args:
        wanted: Its argument.
        what: The caller, for messages.
        now: Seconds since 1970; None while it is open when the wait begins.

    Raises:
        DefinitionError: It is not possible to wait for it; the message says why.
    """
    if isinstance(wanted, Trigger):
        return trigger_wait(wanted, what, now)
    if isinstance(wanted, timedelta):
        return sleep_wait(wanted, what, now)
    if isinstance(wanted, DatasetExpression | str):
        return event_wait(wanted, what, now)
    hint = "; call it" if isinstance(wanted, type) and issubclass(wanted, Trigger) else ""
    raise definition_error(f"{what} takes triggers, timedeltas and datasets, not {wanted!r}{hint}")


def trigger_wait(trigger: Trigger, what: str, now: float | None) -> Wait:
    """Return the serialised form of a trigger; see `as_wait`."""
    name, data = encode_checked(trigger, what)
    timer = trigger.timer()
    if timer is None:
        return Wait("trigger", name, data, trigger.share_key())
    if isinstance(timer, timedelta):
        return _after(name, max(timer.total_seconds(), 0.0), now)
    # The daemon's zone may be another one than the author's.
    if timer.tzinfo is None:
        raise definition_error(
            f"{what}: {trigger!r} has the moment {timer.isoformat()} without a time zone"
        )
    return Wait("time", name, due_at=timer.timestamp())


def sleep_wait(length: Seconds, what: str, now: float | None) -> Wait:
    """Return the serialised form of a time that passes; see `as_wait`."""
    try:
        return _after(SLEEP, seconds(length), now)
    except (TypeError, ValueError) as error:
        raise definition_error(f"{what}: {length!r} {error}") from None


def event_wait(dataset: DatasetExpression | str, what: str, now: float | None) -> Wait:
    """Return the serialised form of an event to come; see `as_wait`."""
    source = as_dataset_expression(dataset).dataset_input
    if source.at_least > 1 or source.within_seconds is not None:
        raise definition_error(
            f"{what} waits for one event: {dataset!r} may have .where(), but no more"
        )
    return Wait("event", source.uri, pattern=source.pattern, where=source.where, since=now)


def as_dataset_expression(dataset: DatasetExpression | str) -> DatasetExpression:
    """Return a dataset expression as it is, and a URI as one."""
    return (
        dataset
        if isinstance(dataset, DatasetExpression)
        else ConstrainedDataset(DatasetInput(0, uri_of(dataset)))
    )


def timeout_seconds(timeout: object, what: str) -> float | None:
    """Return a wait's timeout in seconds.

    Raises:
        DefinitionError: It is not a duration above zero.
    """
    try:
        return None if timeout is None else positive_seconds(timeout)
    except (TypeError, ValueError) as error:
        raise definition_error(f"{what}: timeout={timeout!r} {error}") from None


def start_wait_set(wanted: object, what: str, timeout: float | None) -> WaitSet:
    """Return a wait that begins before anything of its task runs."""
    wait = as_wait(wanted, what, None)
    return WaitSet(START, wait.name, (wait,), timeout_seconds=timeout)


def combined_label(word: str, waits: Sequence[Wait]) -> str:
    """Return the label of several waits that are awaited together."""
    text = f"{word}({', '.join(wait.name for wait in waits)})"
    return text if len(text) <= MAX_LABEL_CHARACTERS else f"{text[:MAX_LABEL_CHARACTERS]}…"


def as_event(wait: Wait, completion: WaitCompletion) -> TriggerEvent | DatasetEvent:
    """Return a completion in the form that users see."""
    if wait.kind == "event":
        return DatasetEvent.of(msgspec.msgpack.decode(completion.payload, type=EventInfo))
    return TriggerEvent(msgspec.msgpack.decode(completion.payload), completion.id)


def as_events(
    waits: Sequence[Wait], completions: Iterable[WaitCompletion]
) -> list[TriggerEvent | DatasetEvent]:
    """Return the events of completions, in the same order."""
    return [as_event(waits[each.slot], each) for each in completions]


def _after(name: str, length: float, now: float | None) -> Wait:
    if now is None:
        return Wait("time", name, delay_seconds=length)
    return Wait("time", name, due_at=now + length)
