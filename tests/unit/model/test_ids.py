"""Identifiers grow with time."""

import time
import uuid

from pubsubflow.model.ids import UUID7, new_id


def test_ids_are_uuids_of_version_7_that_say_when():
    before = time.time_ns() // 1_000_000
    made = new_id()
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_grow_also_within_one_millisecond():
    made = [new_id() for _ in range(50_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_grow_when_the_clock_goes_back(monkeypatch):
    make = UUID7()
    first = make()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert make() > first


def test_an_overflow_of_the_fraction_carries_into_the_milliseconds(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    make = UUID7()
    made = [make() for _ in range(5000)]
    assert made == sorted(made)
    assert all(each.version == 7 for each in made)


def test_texts_of_ids_grow_with_the_ids():
    make = UUID7()
    first, text, last = make(), make.text(), make()
    assert str(first) < text < str(last)
    assert str(uuid.UUID(text)) == text
