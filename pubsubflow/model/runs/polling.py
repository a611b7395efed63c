"""Polling sensors: functions that are called again and again until what they look for is there.

Between two looks a task is deferred until a stored time. It keeps one journal entry, which counts
its looks; nothing of a look is replayed in the next one.
"""

from zlib import crc32

import msgspec
from msgspec.structs import replace

from pubsubflow.model.spec import PollSpec
from pubsubflow.model.wire.messages import JournalEntry, Outcome, TaskError, TaskKey
from pubsubflow.model.wire.waits import POLL, WaitSet

_JITTER = 0.05
_MOST_SPREAD_SECONDS = 60.0
_LATE_SECONDS = 5.0
_SAME_SECONDS = 0.001

_encode = msgspec.msgpack.Encoder().encode
_decode_looks = msgspec.msgpack.Decoder(int).decode


def looks_entry(wait_set: WaitSet) -> JournalEntry:
    """Return the journal entry that counts a sensor's looks."""
    return JournalEntry(POLL, wait_set.label, "wait", _encode(wait_set.looks))


def looks_of(entry: JournalEntry) -> int:
    """Return how often a sensor has looked, by its journal entry."""
    return _decode_looks(entry.value)


def next_delay(poll: PollSpec, looks: int) -> float:
    """Return the seconds between a look and the next one.

    Args:
        poll: The sensor's.
        looks: How often it has looked, this look included.
    """
    longest = poll.max_every_seconds or poll.every_seconds * poll.backoff**_MOST_DOUBLINGS
    try:
        return min(poll.every_seconds * poll.backoff ** (looks - 1), longest)
    except OverflowError:
        return longest


_MOST_DOUBLINGS = 10


def spread_look(wait_set: WaitSet, task: TaskKey) -> WaitSet:
    """Return the wait for the next look a little earlier or later, in a way of the task's own.

    Thousands of sensors that began together would look together for ever.
    """
    (wait,) = wait_set.waits
    length = (wait.delay_seconds or 0.0) * (1 + _JITTER * (2 * _share(task, wait_set.looks) - 1))
    return replace(wait_set, waits=(replace(wait, delay_seconds=length),))


def postponed_look(
    poll: PollSpec, wait_set: WaitSet, task: TaskKey, due: float, now: float
) -> float | None:
    """Return when a sensor looks whose time passed while nothing ran; None for at once.

    After a restart all sensors are late. Each is postponed once, by its share of an interval.

    Args:
        poll: The sensor's.
        wait_set: Its wait.
        task: The task instance.
        due: When its timer was due, in seconds since 1970.
        now: The time.
    """
    # The database rounds moments to microseconds.
    postponed = abs(due - (wait_set.waits[0].due_at or 0.0)) > _SAME_SECONDS
    if postponed or now - due < _LATE_SECONDS:
        return None
    spread = min(poll.every_seconds, now - due, _MOST_SPREAD_SECONDS)
    return now + spread * _share(task, wait_set.looks)


def _share(task: TaskKey, looks: int) -> float:
    """Return a number from 0 to 1 that tasks do not share and that is not random."""
    return crc32(f"{task} {looks}".encode()) / 2**32


def poll_timeout(
    poll: PollSpec, seconds: float | None, looks: int | None
) -> tuple[Outcome, TaskError]:
    """Return how a sensor ends that has not found what it looks for in its time.

    Args:
        poll: The sensor's.
        seconds: Its timeout.
        looks: How often it has looked; None if that is not at hand.
    """
    often = "" if looks is None else f" in {looks:,} look{'s' * (looks != 1)}"
    text = f"it was not done after {seconds or 0:g} s{often}"
    if poll.soft_fail:
        return Outcome.SKIPPED, TaskError("TaskSkipped", text)
    # More attempts would look for as long again.
    return Outcome.FAILED, TaskError("TimeoutError", text, final=True)
