"""Trace contexts as the W3C has them."""

from datetime import UTC, datetime

import pytest

from pubsubflow.model.traces import (
    is_sampled,
    parse_trace,
    span_id_of,
    task_context,
    trace_headers,
    trace_id_of,
)
from pubsubflow.model.wire.messages import RunInfo, RunTrace

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LATER = GOOD.replace("00-", "cc-", 1)
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("parent", "state", "read"),
    [
        (GOOD, None, GOOD),
        (f" {GOOD} ", "", GOOD),
        (GOOD, "congo=t61rcWkgMzE, rojo=1", f"{GOOD} congo=t61rcWkgMzE, rojo=1"),
        (GOOD, "x" * 513, GOOD),
        (GOOD, "a=\nb", GOOD),
        (GOOD, "a=ä", GOOD),
        (LATER, None, GOOD),
        (f"{LATER}-what-the-future-will-be-like", None, GOOD),
        (f"{GOOD}-more", None, None),
        (GOOD.upper(), None, None),
        (GOOD.replace("00-", "ff-", 1), None, None),
        (GOOD.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32), None, None),
        (GOOD.replace("b7ad6b7169203331", "0" * 16), None, None),
        (GOOD[:-1], None, None),
        ("", "a=1", None),
        (None, "a=1", None),
        ("٣" * 55, None, None),
    ],
)
def test_what_is_malformed_is_not_passed_on(parent, state, read):
    assert parse_trace(parent, state) == read


def test_a_context_is_taken_apart_and_carried():
    context = f"{GOOD} a=1"
    assert trace_id_of(context) == "0af7651916cd43dd8448eb211c80319c"
    assert span_id_of(context) == "b7ad6b7169203331"
    assert is_sampled(context)
    assert not is_sampled(GOOD[:-1] + "0")
    assert trace_headers(context) == {"traceparent": GOOD, "tracestate": "a=1"}
    assert trace_headers(GOOD) == {"traceparent": GOOD}
    assert trace_headers(None) == {}
    assert parse_trace(*trace_headers(context).values()) == context


def info(trace):
    return RunInfo(1, "r", "d", "manual", {}, None, None, "why", NOW, (), (), trace)


def test_every_delivery_of_a_task_has_a_span_of_its_own_in_the_trace_of_its_run():
    run = info(RunTrace(f"{GOOD} a=1", (), recorded=True))
    places = [(0, -1, 1, 1), (1, -1, 1, 1), (0, 0, 1, 1), (0, -1, 2, 1), (0, -1, 1, 2)]
    contexts = [task_context(run, *place) for place in places]
    assert contexts == [task_context(run, *place) for place in places]
    assert len({span_id_of(context) for context in contexts} | {span_id_of(GOOD)}) == 6
    for context in contexts:
        assert parse_trace(*trace_headers(context).values()) == context
        assert trace_id_of(context) == trace_id_of(GOOD)
        assert context.endswith("-01 a=1")


def test_with_tracing_off_a_task_has_the_context_that_came():
    assert task_context(info(RunTrace(GOOD, (GOOD,))), 0, -1, 1, 1) == GOOD
    assert task_context(info(None), 0, -1, 1, 1) is None
