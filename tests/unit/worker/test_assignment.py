"""Assignments: what of a task message a worker passes on to its runner."""

from types import SimpleNamespace

import msgspec
from msgspec import Raw

from pubsubflow.model.wire.messages import (
    JournalEntry,
    TaskMessage,
    decode_log,
    decode_task,
    encode,
)
from pubsubflow.worker.assignment import Assignment, decode_header


def test_a_redelivered_message_loses_its_journal_and_nothing_else():
    entry = JournalEntry("0", "a", "step", b"\x01")
    message = TaskMessage(
        1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(b"\xc0"), {0: Raw(b"\x01")}, journal=(entry,)
    )
    parts = [*msgspec.msgpack.decode(encode(message)), "of a newer manager"]
    data = encode(parts)
    assignment = Assignment(
        1, decode_header(data), SimpleNamespace(data=data, attempts=1), redelivered=True
    )
    passed = assignment.encode_without_journal()
    assert decode_task(passed) == msgspec.structs.replace(message, journal=None)
    assert msgspec.msgpack.decode(passed)[-1] == "of a newer manager"


def test_each_delivery_numbers_its_output_apart():
    header = decode_header(
        encode(TaskMessage(1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(b"\xc0")))
    )

    def sequences(attempts, *, redelivered):
        delivery = SimpleNamespace(attempts=attempts)
        assignment = Assignment(1, header, delivery, redelivered=redelivered)
        return [decode_log(assignment.encode_log()).sequence for _ in range(3)]

    first, suspect = sequences(1, redelivered=False), sequences(1, redelivered=True)
    assert first == [0, 1, 2]
    later = [sequences(attempts, redelivered=True) for attempts in (2, 3, 1024, 5000)]
    assert suspect == later[0]
    assert first[-1] < later[0][0] < later[0][-1] < later[1][0] < later[2][0] == later[3][0]
    assert later[-1][-1] < 1 << 31, "Postgres' integer"
