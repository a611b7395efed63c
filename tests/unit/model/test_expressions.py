"""Filters and params in CEL."""

from datetime import UTC, datetime

import pytest

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.expressions import compile_expression, evaluate, filter_mismatch
from pubsubflow.model.wire.messages import EventInfo


def event(partition=None, source="api", **extra) -> EventInfo:
    moment = datetime(2026, 11, 20, tzinfo=UTC)
    return EventInfo("id-1", "x://a", extra, partition, moment, source)


@pytest.mark.parametrize(
    "text",
    [
        "event.extra.rows > 0",
        "event.uri == 'x://a' && event.source == 'api'",
        "event.partition == null",
        "event.extra.tags.exists(t, t == 'eu')",
        "event.time < timestamp('2027-01-01T00:00:00Z')",
        "has(event.extra.rows) && event.extra.rows in [1, 5]",
        "event.extra.name.startsWith('or')",
    ],
)
def test_an_event_that_meets_a_filter(text):
    assert filter_mismatch(text, event(rows=5, tags=["eu"], name="orders")) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("event.extra.rows > 9", "is False"),
        ("event.extra.missing > 0", "failed: "),
        ("event.extra.rows", "is 5"),
        ("event.extra.name > 3", "failed: "),
        ("event.extra.rows / 0 > 1", "failed: "),
        ("event.extra.tags[7] == 'eu'", "failed: "),
        ("event.extra.rows == 'five'", ""),
    ],
)
def test_an_event_that_does_not_meet_a_filter(text, reason):
    refusal = filter_mismatch(text, event(rows=5, tags=["eu"], name="orders"))
    assert refusal is not None
    assert text in refusal
    assert reason in refusal


def test_a_reason_is_one_short_line():
    refusal = filter_mismatch("event.extra.text", event(text="x\n" * 5000))
    assert refusal is not None
    assert len(refusal) <= 500


@pytest.mark.parametrize("text", ["event.extra.rows >", "", "1 +", "for x in y"])
def test_what_is_no_cel_is_a_mistake(text):
    with pytest.raises(DefinitionError, match="is not a CEL expression"):
        compile_expression(text)


def test_params_from_events():
    events = [event(rows=5), event("eu", rows=7)]
    given = {
        "rows": "event.extra.rows",
        "all": "events.map(e, e.extra.rows)",
        "many": "size(events)",
        "where": "partition",
        "doubled": "events[0].extra.rows * 2",
    }
    assert evaluate(given, events, "eu") == {
        "rows": 7, "all": [5, 7], "many": 2, "where": "eu", "doubled": 10,
    }  # fmt: skip


def test_params_without_events():
    assert evaluate({"many": "size(events)", "none": "event == null"}, [], None) == {
        "many": 0,
        "none": True,
    }


def test_a_param_that_fails_is_named():
    with pytest.raises(InvalidInput, match="param 'rows': events"):
        evaluate({"rows": "events[0].extra.rows"}, [event()], None)


def test_params_are_what_json_can_say():
    given = {"when": "event.time", "raw": "b'a'", "numbered": "{1: event.time}"}
    assert evaluate(given, [event()], None) == {
        "when": "2026-11-20T00:00:00Z", "raw": "YQ==", "numbered": {"1": "2026-11-20T00:00:00Z"},
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{true: 1}", "optional.of(1)"])
def test_a_param_that_json_cannot_say_is_named(text):
    with pytest.raises(InvalidInput, match="param 'p': "):
        evaluate({"p": text}, [event()], None)
