"""Assignments: what of a task message a worker passes on to its runner."""

from types import SimpleNamespace

import msgspec
from msgspec import Raw

from pubsubflow.model.wire.messages import JournalEntry, TaskMessage, decode_task, encode
from pubsubflow.worker.assignment import Assignment, decode_header


def test_a_redelivered_message_loses_its_journal_and_nothing_else():
    entry = JournalEntry("0", "a", "step", b"\x01")
    message = TaskMessage(
        1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(b"\xc0"), {0: Raw(b"\x01")}, journal=(entry,)
    )
    parts = [*msgspec.msgpack.decode(encode(message)), "of a newer manager"]
    data = encode(parts)
    assignment = Assignment(1, decode_header(data), SimpleNamespace(data=data), redelivered=True)
    passed = assignment.encode_without_journal()
    assert decode_task(passed) == msgspec.structs.replace(message, journal=None)
    assert msgspec.msgpack.decode(passed)[-1] == "of a newer manager"
