"""Filters and params in CEL."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.cel.expressions import (
    MAX_CHARACTERS,
    compile_expression,
    evaluate,
    filter_mismatch,
)
from pubsubflow.model.cel.process import ExpressionProcess
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


MANY = list(range(30_000))  # `map` over them takes 40 s


@pytest.mark.parametrize(
    "text",
    [
        "event.extra.rows.map(row, row + 1).size() > 3",
        "event.extra.rows.all(a, event.extra.rows.all(b, event.extra.rows.all(c, c >= 0)))",
        "event.extra.rows.map(a, event.extra.rows.map(b, event.extra.rows)).size() > 3",
    ],
)
def test_an_expression_that_takes_too_long_is_stopped(text):
    refusal = filter_mismatch(text, event(rows=MANY))
    assert refusal is not None
    assert "takes more than 0.5 s" in refusal
    assert filter_mismatch(text, event(rows=MANY)) == refusal  # at once, without a second try
    assert filter_mismatch("event.extra.rows.exists(row, row == 7)", event(rows=MANY)) is None


def test_a_param_that_takes_too_long_names_itself():
    with pytest.raises(InvalidInput, match=r"param 'p'.*takes more than"):
        evaluate({"p": "event.extra.rows.map(row, [row])"}, [event(rows=MANY)], None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("event.extra.rows.filter(row, row > 29997)", [29_998, 29_999]),
        ("event.extra.rows.exists(row, row == 5) ? event.time : null", "2026-11-20T00:00:00Z"),
        ("event.extra.rows.exists_one(row, row == 5) ? {1: b'x'} : {}", {"1": "eA=="}),
    ],
)
def test_values_of_long_lists_are_those_of_short_ones(text, value):
    assert evaluate({"p": text}, [event(rows=MANY)], None) == {"p": value}


@pytest.mark.parametrize(
    "text", ["event.extra.rows.map(r, r.nothing)", "event.extra.rows.exists(r, r / 0 > 1)"]
)
def test_errors_over_long_lists_are_those_over_short_ones(text):
    long = filter_mismatch(text, event(rows=MANY))
    assert long == filter_mismatch(text, event(rows=[1]))
    assert long is not None


def test_the_process_of_an_expression_is_replaced_when_it_was_killed():
    process = ExpressionProcess()
    try:
        assert process.evaluate("1 + a", {"a": 1}) == 2
        assert process._process is not None
        process._process.kill()
        process._process.wait()
        assert process.evaluate("2 + a", {"a": 1}) == 3
    finally:
        process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_process_of_an_expression_has_no_secret_of_the_daemon_and_no_right_of_root(monkeypatch):
    monkeypatch.setenv("PUBSUBFLOW__POSTGRES__URL", "postgres://u:hush@h/d")
    process = ExpressionProcess()
    try:
        assert process.evaluate("1 + a", {"a": 1}) == 2
        assert process._process is not None
        proc = Path(f"/proc/{process._process.pid}")
        assert b"hush" not in (proc / "environ").read_bytes()
        assert "\nUid:\t0" not in (proc / "status").read_text()
    finally:
        process.close()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1" + "+1" * MAX_CHARACTERS, "at most 4000"),
        ("a" + ".b" * 20_000, "at most 4000"),
        ("a.map(b, b.map(c, c.map(d, d.all(e, e > 1))))", "nests 4 of map"),
    ],
)
def test_an_expression_has_limits(text, reason):
    with pytest.raises(DefinitionError, match=reason):
        compile_expression(text)


def test_macros_in_texts_and_side_by_side_do_not_nest():
    expression = compile_expression("""'.map(.map(.map(.map(' + "a\\".all(" == a.map(b, b)[0]""")
    assert (expression.macros, expression.nested) == (1, 1)
    assert compile_expression("a.map(b, b).map(c, c).filter(d, (d).exists(e, e))").nested == 2
