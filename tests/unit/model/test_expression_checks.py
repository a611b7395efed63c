"""CEL expressions that can never be evaluated are refused where they are written."""

import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.errors import DefinitionError
from pubsubflow.model.cel.checks import check_expression
from pubsubflow.webhooks import Unverified, Webhook

EVENT = ("event",)
PARAMS = ("events", "event", "partition")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("event.time.getHour() >= 6", "uses 'getHour', .* did you mean 'getHours'"),
        ("event.extras.rows > 0", "uses 'extras', which is not a field of events; .* 'extra'"),
        ("event['extras'].rows > 0", "uses 'extras'"),
        ("has(event.extras)", "uses 'extras'"),
        ("foo(event.extra.n)", "uses 'foo', which is not a function: bytes, "),
        ("event.uri.lower() == 'x'", "uses 'lower'"),
        ("bool(event.extra.ok)", "uses 'bool'"),
        ("evnt.extra.rows > 0", "uses 'evnt'; the variables here are event"),
        ("event.uri.getHours() > 6", "can never be evaluated: .*getHours"),
        ("size(event.time) > 0", "can never be evaluated: .*size"),
        ("event.uri > 5", "can never be evaluated: "),
        ("event.extra.startsWith('a')", "can never be evaluated"),
        ("event.uri.matches('[')", "can never be evaluated: .* not a valid regex"),
        ("event.uri", "is never true: it is 's3://lake/x'"),
        ("event.time.getHours()", "is never true"),
        ("'true'", "is never true"),
    ],
)
def test_a_condition_that_can_never_hold_says_why(text, says):
    with pytest.raises(DefinitionError, match=says):
        check_expression(text, EVENT, condition=True)
    with pytest.raises(DefinitionError, match="where: "):
        Dataset("x://a").where(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo(event.extra.n)", "uses 'foo'"),
        ("events.map(e, e.extras.n)", "uses 'extras'"),
        ("events[0].urn", "uses 'urn'"),
        ("partition + 1", "can never be evaluated"),
        ("max(event.extra.a, 2)", "uses 'max'"),
    ],
)
def test_a_param_that_can_never_be_computed_says_why(text, says):
    with pytest.raises(DefinitionError, match=says):
        check_expression(text, PARAMS)
    with pytest.raises(DefinitionError, match="params_from: n: "):
        DAG("d", schedule=Dataset("x://a"), params={"n": 0}, params_from={"n": text})


@pytest.mark.parametrize(
    "text",
    [
        "event.time.getHours('Europe/Warsaw') >= 6 && size(event.extra.rows) > 0",
        "event.extra.ok",
        "event['extra']['extras'].n > 1",
        "event.extra.event.extras == 1",
        "event.partition == null || event.partition.startsWith('eu')",
        "int(event.partition) > 5",
        "event.partition.matches('^2026-[0-9]+$')",
        "event.uri == 'event.extras' && event.id != \"x.getHour()\"",
        "!(event.extra.kind in ['a', 'b'])",
        "has(event.extra.a) && event.extra.a.exists(x, x.urn > 1)",
        "event.extra.items.filter(event, event.foo > 1).size() > 0",
        "timestamp(event.extra.at) > event.time - duration('1h')",
        "event.extra.a > 9223372036854775807u",
        "type(event.extra.n) == int",
        "1 / size(event.extra.a) > 0",
        "optional.of(event.extra.a).hasValue()",
        "true",
        "dyn(event.extra) == {}",
    ],
)
def test_what_may_hold_for_some_event_is_taken(text):
    check_expression(text, EVENT, condition=True)


@pytest.mark.parametrize(
    "text",
    ["event.uri", "events.map(e, e.extra.rows)", "events[events.size() - 1].id", "partition"],
)
def test_a_param_may_have_any_value(text):
    check_expression(text, PARAMS)


def test_of_a_request_only_the_functions_are_known():
    for text in ("body.startsWith('a')", "headers['x-kind'] == 'a'", "body.size() > query.n"):
        Webhook("w", dataset="x://a", verify=Unverified(), when=text)
    for text in ("body.lower() == 'a'", "jsn(body)"):
        with pytest.raises(DefinitionError, match="which is not a function"):
            Webhook("w", dataset="x://a", verify=Unverified(), when=text)
