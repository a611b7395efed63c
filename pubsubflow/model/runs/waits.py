"""Waits of a deferred task: when they are complete, and the journal entry that they become.

A task that waits has left its worker. When its wait is complete, it runs again from its top, and
each wait and step that it reaches is answered from the journal.
"""

from collections.abc import Iterable

import msgspec

from pubsubflow.model.runs.polling import looks_entry
from pubsubflow.model.wire.messages import EventInfo, JournalEntry, TaskError
from pubsubflow.model.wire.waits import (
    CONCURRENT,
    POLL,
    WaitCompletion,
    WaitSet,
    decode_completions,
    encode_completions,
)


def begin_wait(wait_set: WaitSet, now: float) -> WaitSet:
    """Return the set with its relative times counted from now, seconds since 1970."""
    waits = tuple(
        msgspec.structs.replace(
            wait,
            due_at=wait.due_at if wait.delay_seconds is None else now + wait.delay_seconds,
            since=now if wait.since is None else wait.since,
        )
        for wait in wait_set.waits
    )
    timeout_at = wait_set.timeout_at
    if wait_set.timeout_seconds is not None:
        timeout_at = now + wait_set.timeout_seconds
    return msgspec.structs.replace(wait_set, waits=waits, timeout_at=timeout_at)


def complete_wait(wait_set: WaitSet, completion: WaitCompletion) -> WaitSet:
    """Return the set with one more completion; a second one of the same wait changes nothing."""
    if any(completion.slot == known.slot for known in wait_set.completions):
        return wait_set
    return msgspec.structs.replace(wait_set, completions=(*wait_set.completions, completion))


def completed_entry(wait_set: WaitSet) -> JournalEntry | None:
    """Return the journal entry of a complete set; None while too few waits are complete.

    Its value is the encoded tuple of WaitCompletion, in the order of the slots.
    """
    if len(wait_set.completions) < wait_set.required:
        return None
    if wait_set.key == POLL:
        return looks_entry(wait_set)
    completions = sorted(wait_set.completions, key=lambda each: each.slot)
    return JournalEntry(wait_set.key, wait_set.label, "wait", encode_completions(completions))


def failed_entry(wait_set: WaitSet, error: TaskError) -> JournalEntry:
    """Return the journal entry of a failed set: of a timeout, or a trigger's error."""
    return JournalEntry(wait_set.key, wait_set.label, "wait", b"", error)


def start_result(wait_set: WaitSet, value: bytes) -> bytes:
    """Return the encoded result of a task that only waits.

    Of a trigger it is the payload, of an event a dict of its fields.

    Args:
        wait_set: The set with its one wait.
        value: The value of the set's journal entry.
    """
    (completion,) = decode_completions(value)
    if wait_set.waits[0].kind == "event":
        event = msgspec.msgpack.decode(completion.payload, type=EventInfo)
        return _encode(msgspec.structs.asdict(event))
    payload = bytes(completion.payload)
    return b"" if payload == _NIL else payload


def drop_failures(journal: Iterable[JournalEntry]) -> tuple[JournalEntry, ...]:
    """Return the journal with which a further attempt begins: without the failures at its end."""
    # Entries of concurrent steps at the end have no order: any of them may be the one that failed.
    kept = list(journal)
    start = len(kept)
    while start and kept[start - 1].key.startswith(CONCURRENT):
        start -= 1
    if start == len(kept):
        start = max(start - 1, 0)
    return (*kept[:start], *(entry for entry in kept[start:] if entry.error is None))


_NIL = b"\xc0"
_encode = msgspec.msgpack.Encoder().encode
