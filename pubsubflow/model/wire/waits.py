"""Waits of a task as they are sent and stored: what it waits for, and what is complete."""

from typing import Literal

import msgspec
from msgspec import Raw, Struct

START = "start"
"""Key of the journal entry of a wait before any of the task's code runs."""

POLL = "poll"
"""Key of the journal entry that counts the looks of a polling sensor."""

CONCURRENT = "~"
"""Prefix of the keys of steps that a function does concurrently."""


class Wait(Struct, frozen=True, array_like=True):
    """One thing that a task waits for.

    Attributes:
        kind: `time`: a stored timer. `trigger`: a trigger in the triggerer. `event`: an event of a
            dataset.
        name: The trigger's entry point; of an event the dataset's URI or pattern; of a time a label
            for people.
        data: The encoded trigger.
        share: Its share key.
        due_at: Of a time: seconds since 1970.
        delay_seconds: Of a time that counts from the start of the wait, in place of `due_at`.
        pattern: Whether `name` is a pattern.
        where: A CEL expression that must be true of the event.
        since: Earlier events do not count; seconds since 1970. None: from the wait's start.
        after: Only events with a larger number in the log count.
    """

    kind: Literal["time", "trigger", "event"]
    name: str
    data: bytes = b""
    share: str | None = None
    due_at: float | None = None
    delay_seconds: float | None = None
    pattern: bool = False
    where: str | None = None
    since: float | None = None
    after: int = 0


class WaitCompletion(Struct, frozen=True, array_like=True):
    """The completion of one wait.

    Attributes:
        slot: Index of the wait in its set.
        payload: Encoded JSON value of a trigger, EventInfo of an event, nil of a time.
        id: Identity of the trigger's event, if it has one.
        number: Of an event, its number in the log.
    """

    slot: int
    payload: Raw = Raw(b"\xc0")
    id: str | None = None
    number: int = 0


class WaitSet(Struct, frozen=True, array_like=True):
    """The waits of a deferred task, of which some or all must be complete before it continues.

    Attributes:
        key: Key of the journal entry that the set becomes; see `JournalEntry`.
        label: For people; a replay with another label has taken another path.
        waits: One, or those of `ctx.first` or `ctx.all`.
        required: How many of them must be complete.
        timeout_at: Seconds since 1970.
        timeout_seconds: In place of `timeout_at`: counted from the start of the wait.
        completions: The waits that are complete.
        looks: Of a polling sensor, how often it has looked.
    """

    key: str
    label: str
    waits: tuple[Wait, ...]
    required: int = 1
    timeout_at: float | None = None
    timeout_seconds: float | None = None
    completions: tuple[WaitCompletion, ...] = ()
    looks: int = 0


encode_wait_set = msgspec.msgpack.Encoder().encode
decode_wait_set = msgspec.msgpack.Decoder(WaitSet).decode
encode_completions = msgspec.msgpack.Encoder().encode
decode_completions = msgspec.msgpack.Decoder(tuple[WaitCompletion, ...]).decode
