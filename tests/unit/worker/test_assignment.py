"""Assignments: what of a task message a worker passes on to its runner."""

from itertools import pairwise
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
from pubsubflow.worker import assignment
from pubsubflow.worker.assignment import Assignment, decode_header


def test_a_redelivered_message_loses_its_journal_and_nothing_else():
    entry = JournalEntry("0", "a", "step", b"\x01")
    message = TaskMessage(
        1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(b"\xc0"), {0: Raw(b"\x01")}, journal=(entry,)
    )
    parts = [*msgspec.msgpack.decode(encode(message)), "of a newer manager"]
    data = encode(parts)
    made = Assignment(
        1, decode_header(data), SimpleNamespace(data=data, attempts=1), redelivered=True
    )
    passed = made.encode_without_journal()
    assert decode_task(passed) == msgspec.structs.replace(message, journal=None)
    assert msgspec.msgpack.decode(passed)[-1] == "of a newer manager"


def test_each_execution_numbers_its_output_apart(monkeypatch):
    """An order that was sent twice runs twice as a first delivery."""
    header = decode_header(
        encode(TaskMessage(1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(b"\xc0")))
    )

    def first(seconds, drawn):
        monkeypatch.setattr(assignment.time, "time", lambda: seconds)
        monkeypatch.setattr(assignment.secrets, "randbits", lambda bits: drawn % (1 << bits))
        made = Assignment(1, header, SimpleNamespace(attempts=1), redelivered=False)
        sequences = [decode_log(made.encode_log()).sequence for _ in range(3)]
        assert sequences == [sequences[0] + number for number in range(3)]
        return sequences[0]

    turns = [float(1_800_000_000 + 8 * number) for number in range(255)]
    found = [first(turn, drawn) for turn in turns for drawn in (0, 7, 15)]
    assert len(set(found)) == len(found)
    assert min(later - earlier for earlier, later in pairwise(sorted(found))) >= 1 << 19
    in_order = [first(turn, 7) for turn in turns]
    assert sum(later < earlier for earlier, later in pairwise(in_order)) == 1
    assert max(found) + (1 << 22) < 1 << 31, "Postgres' integer, with some to spare"
