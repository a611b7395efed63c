"""What a task waits for, what came of it, and what a task has recorded; decided purely.

A task that waits is gone from its worker. When what it waits for has happened, it runs again from
its top, and each wait and step that it comes to is answered from the record.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from pubsubflow.model.wire.messages import EventInfo, Step, TaskError

START = "start"
"""The key of what a sensor waits for before anything of it runs."""

BESIDE = "~"
"""How the keys begin of what a function does side by side."""


class Wait(Struct, frozen=True, array_like=True):
    """One thing that a task waits for.

    Attributes:
        kind: `time`: the clock has a timer. `trigger`: the triggerer runs it. `event`: an event of
            a dataset.
        name: The trigger's entry point; of an event the dataset's URI or pattern; of a time a word
            for people.
        data: The encoded trigger.
        share: Its share key.
        due_at: Of a time: seconds since 1970.
        delay_seconds: Of a time that counts from the start of the wait, in place of `due_at`.
        pattern: Whether `name` is a pattern.
        where: A CEL expression that the event must meet.
        since: Events recorded before count not; seconds since 1970. None: from the wait's start.
        after: Only events with a larger number in the log.
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


class Happening(Struct, frozen=True, array_like=True):
    """What came of one wait.

    Attributes:
        slot: Which one of the waits.
        payload: Encoded JSON value of a trigger, EventInfo of an event, nil of a time.
        id: Identity of what the trigger saw, if it has one.
        number: Of an event, its place in the log.
    """

    slot: int
    payload: Raw = Raw(b"\xc0")
    id: str | None = None
    number: int = 0


class Waiting(Struct, frozen=True, array_like=True):
    """What a deferred task waits for.

    Attributes:
        key: The wait's place in the task's record; see `Step`.
        label: For people, and to tell when a replay takes another path.
        waits: One, or those of `ctx.first` or `ctx.all`.
        need: How many of them must happen.
        timeout_at: Seconds since 1970.
        timeout_seconds: In place of `timeout_at`: counted from the start of the wait.
        happened: What did so far.
    """

    key: str
    label: str
    waits: tuple[Wait, ...]
    need: int = 1
    timeout_at: float | None = None
    timeout_seconds: float | None = None
    happened: tuple[Happening, ...] = ()


def begin_wait(waiting: Waiting, now: float) -> Waiting:
    """Return the wait with its relative times counted from now, seconds since 1970."""
    waits = tuple(
        msgspec.structs.replace(
            wait,
            due_at=wait.due_at if wait.delay_seconds is None else now + wait.delay_seconds,
            since=now if wait.since is None else wait.since,
        )
        for wait in waiting.waits
    )
    timeout_at = waiting.timeout_at
    if waiting.timeout_seconds is not None:
        timeout_at = now + waiting.timeout_seconds
    return msgspec.structs.replace(waiting, waits=waits, timeout_at=timeout_at)


def happen(waiting: Waiting, happening: Happening) -> Waiting:
    """Return the wait after something happened; the same thing again changes nothing."""
    if any(happening.slot == known.slot for known in waiting.happened):
        return waiting
    return msgspec.structs.replace(waiting, happened=(*waiting.happened, happening))


def outcome(waiting: Waiting) -> Step | None:
    """Return what the record gets, or None while too little has happened.

    Its value is the encoded tuple of Happening, in the order of the slots.
    """
    if len(waiting.happened) < waiting.need:
        return None
    happened = sorted(waiting.happened, key=lambda each: each.slot)
    return Step(waiting.key, waiting.label, "wait", encode_happened(happened))


def failure(waiting: Waiting, error: TaskError) -> Step:
    """Return what the record gets when a wait fails: a timeout, or a trigger's error."""
    return Step(waiting.key, waiting.label, "wait", b"", error)


def start_result(waiting: Waiting, value: bytes) -> bytes:
    """Return the encoded result of a task of which nothing runs: what its wait gave.

    Of a trigger it is the payload, of an event a dict of its fields.

    Args:
        waiting: What it waited for.
        value: The value of the wait's Step.
    """
    (happened,) = decode_happened(value)
    if waiting.waits[0].kind == "event":
        event = msgspec.msgpack.decode(happened.payload, type=EventInfo)
        return _encode(msgspec.structs.asdict(event))
    payload = bytes(happened.payload)
    return b"" if payload == _NIL else payload


def forget_failures(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return the record with which a further attempt begins: it tries again what failed last.

    That is the last entry, or all at the end that the function did side by side.
    """
    kept = list(steps)
    start = len(kept)
    while start and kept[start - 1].key.startswith(BESIDE):
        start -= 1
    if start == len(kept):
        start = max(start - 1, 0)
    return (*kept[:start], *(step for step in kept[start:] if step.error is None))


_NIL = b"\xc0"
_encode = msgspec.msgpack.Encoder().encode
encode_waiting = msgspec.msgpack.Encoder().encode
decode_waiting = msgspec.msgpack.Decoder(Waiting).decode
encode_happened = msgspec.msgpack.Encoder().encode
decode_happened = msgspec.msgpack.Decoder(tuple[Happening, ...]).decode
