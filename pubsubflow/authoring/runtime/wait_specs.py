"""From what a user waits for to how it is carried."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec

from pubsubflow.authoring.datasets import uri_of
from pubsubflow.authoring.schedules.dataset_expressions import Demand, Source
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.trigger_encoding import carried
from pubsubflow.authoring.validation import Seconds, positive_seconds, seconds
from pubsubflow.model.runs.waits import START, Happening, Wait, Waiting
from pubsubflow.model.schedule.conditions import Input
from pubsubflow.model.triggers import Trigger, TriggerEvent
from pubsubflow.model.wire.messages import EventInfo

Wanted = Trigger | timedelta | Source | str
"""What can be waited for: a trigger, a time that passes, an event of a dataset or its URI."""

MAX_LABEL_CHARACTERS = 200
SLEEP = "sleep"


def as_wait(wanted: object, what: str, now: float | None) -> Wait:
    """Return the serialised form of one thing to wait for.

    Args:
        wanted: The thing.
        what: Who waits, for messages.
        now: Seconds since 1970; None when nobody knows yet when the wait begins.

    Raises:
        DefinitionError: Nobody can wait for it; the text says why.
    """
    if isinstance(wanted, Trigger):
        return trigger_wait(wanted, what, now)
    if isinstance(wanted, timedelta):
        return sleep_wait(wanted, what, now)
    if isinstance(wanted, Source | str):
        return event_wait(wanted, what, now)
    hint = "; call it" if isinstance(wanted, type) and issubclass(wanted, Trigger) else ""
    raise mistake(f"{what} takes triggers, timedeltas and datasets, not {wanted!r}{hint}")


def trigger_wait(trigger: Trigger, what: str, now: float | None) -> Wait:
    """Return the serialised form of a trigger; see `as_wait`."""
    name, data = carried(trigger, what)
    timer = trigger.timer()
    if timer is None:
        return Wait("trigger", name, data, trigger.share_key())
    if isinstance(timer, timedelta):
        return _after(name, max(timer.total_seconds(), 0.0), now)
    if timer.tzinfo is None:
        raise mistake(f"{what}: {trigger!r} has the moment {timer.isoformat()} without a time zone")
    return Wait("time", name, due_at=timer.timestamp())


def sleep_wait(length: Seconds, what: str, now: float | None) -> Wait:
    """Return the serialised form of a time that passes; see `as_wait`."""
    try:
        return _after(SLEEP, seconds(length), now)
    except (TypeError, ValueError) as error:
        raise mistake(f"{what}: {length!r} {error}") from None


def event_wait(dataset: Source | str, what: str, now: float | None) -> Wait:
    """Return the serialised form of an event to come; see `as_wait`."""
    place = as_source(dataset).place
    if place.at_least > 1 or place.within_seconds is not None:
        raise mistake(f"{what} waits for one event: {dataset!r} may have .where(), but no more")
    return Wait("event", place.uri, pattern=place.pattern, where=place.where, since=now)


def as_source(dataset: Source | str) -> Source:
    """Return a dataset, pattern or demand as it is, and a URI as one."""
    return dataset if isinstance(dataset, Source) else Demand(Input(0, uri_of(dataset)))


def timeout_seconds(timeout: object, what: str) -> float | None:
    """Return a wait's timeout in seconds.

    Raises:
        DefinitionError: It is no duration above zero.
    """
    try:
        return None if timeout is None else positive_seconds(timeout)
    except (TypeError, ValueError) as error:
        raise mistake(f"{what}: timeout={timeout!r} {error}") from None


def start_waiting(wanted: object, what: str, timeout: float | None) -> Waiting:
    """Return a wait that begins before anything of its task runs."""
    wait = as_wait(wanted, what, None)
    return Waiting(START, wait.name, (wait,), timeout_seconds=timeout)


def joint_label(word: str, waits: Sequence[Wait]) -> str:
    """Return a text for several things that are waited for together."""
    text = f"{word}({', '.join(wait.name for wait in waits)})"
    return text if len(text) <= MAX_LABEL_CHARACTERS else f"{text[:MAX_LABEL_CHARACTERS]}…"


def as_event(wait: Wait, happened: Happening) -> TriggerEvent | EventInfo:
    """Return what happened as users see it."""
    if wait.kind == "event":
        return msgspec.msgpack.decode(happened.payload, type=EventInfo)
    return TriggerEvent(msgspec.msgpack.decode(happened.payload), happened.id)


def as_events(
    waits: Sequence[Wait], happened: Iterable[Happening]
) -> list[TriggerEvent | EventInfo]:
    """Return all that happened, in the order of the waits."""
    return [as_event(waits[each.slot], each) for each in happened]


def _after(name: str, length: float, now: float | None) -> Wait:
    if now is None:
        return Wait("time", name, delay_seconds=length)
    return Wait("time", name, due_at=now + length)
