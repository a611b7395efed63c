"""What requests say, and what becomes of them."""

import base64
import json
from codecs import BOM_UTF8
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.webhooks import (
    Bearer,
    GitHub,
    GitLab,
    Slack,
    StandardWebhooks,
    Stripe,
    Unverified,
    WebhookSpec,
)
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.webhooks.mapping import ChallengeReply, Filtered, challenge_reply, decide
from pubsubflow.webhooks.parse import (
    KeptRequest,
    ParsedRequest,
    Unmappable,
    decode_kept,
    encode_kept,
    parse_request,
)
from pubsubflow.webhooks.request import WebhookRequest

JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"


def request(body, kind=JSON, query=(), **headers):
    named = [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]
    return WebhookRequest((("content-type", kind), *named), body, query)


def parsed_request(body=None, **headers):
    return ParsedRequest(
        body, {name.replace("_", "-"): value for name, value in headers.items()}, {}
    )


def hook(verify=None, **more):
    return WebhookSpec("h", "s3://lake/h", verify or Unverified(), **more)


def event(spec, said):
    decided = decide(spec, said)
    assert isinstance(decided, RecordEvents)
    return decided.events[0]


def mark(verify, said, **more):
    (key,) = decide(hook(verify, **more), said).keys
    return key


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'{"a": [1]}', JSON, {"a": [1]}),
        (b"[1]", b"application/vnd.x+json; charset=utf-8", [1]),
        (b"", JSON, None),
        (b"1", b"", 1),
        (b'{"a": 1}', b"text/plain", {"a": 1}),
        (b"<a/>", b"application/xml", "<a/>"),
        (b"a=1&b=&a=2&c=%C5%BC", FORM, {"a": "1", "b": "", "c": "ż"}),
        (urlencode({"payload": '{"a": 1}'}).encode(), FORM, {"a": 1}),
        (b"payload=text", FORM, {"payload": "text"}),
        (b'{"a": 1}', FORM, {"a": 1}),
        (b'payload={"a": 1}&b=2', FORM, {"payload": '{"a": 1}', "b": "2"}),
        (BOM_UTF8 + b'{"a": 1}', JSON, {"a": 1}),
        (BOM_UTF8 + b'{"a": 1}', FORM, {"a": 1}),
        (BOM_UTF8 + b"a=1", FORM, {"a": "1"}),
        (BOM_UTF8 + b"<a/>", b"application/xml", "<a/>"),
        (BOM_UTF8, JSON, None),
    ],
)
def test_bodies_are_read_as_their_type_says(body, kind, value):
    assert parse_request(request(body, kind)).body == value


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"{", JSON, "not JSON"),
        (b'{"a": "\xff"}', JSON, "not JSON"),
        (b"\xff", b"text/plain", "not UTF-8 text"),
        (b"\xff", FORM, "not UTF-8 text"),
        (b"&".join(b"a%d=1" % n for n in range(1001)), FORM, "form cannot be parsed"),
        (b"payload={", FORM, "not JSON"),
        (b"[" * 200 + b"]" * 200, JSON, "levels deep"),
        (b"[" * 100_000 + b"]" * 100_000, JSON, "not JSON"),
        (b'{"id": 36893488147419103233}', JSON, "the body.id is an integer of more than 64 bits"),
        (b'{"id": [-9223372036854775809]}', JSON, "more than 64 bits"),
    ],
)
def test_a_body_that_cannot_be_read_says_why_and_is_kept_whole(body, kind, says):
    delivery = request(body, kind)
    with pytest.raises(Unmappable, match=says):
        parse_request(delivery)
    kept = msgspec.json.decode(encode_kept("h", delivery, parsed=None), type=KeptRequest)
    assert base64.b64decode(kept.unread) == body


def test_of_headers_and_query_the_first_value_counts():
    said = parse_request(
        WebhookRequest(
            (("x-a", b"1"), ("x-a", b"2"), ("x-b", b"\xff")), b"", (("q", "1"), ("q", "2"))
        )
    )
    assert (said.headers, said.query) == ({"x-a": "1", "x-b": "\ufffd"}, {"q": "1"})


def test_a_dead_letter_holds_no_credentials_and_can_be_read_again():
    delivery = request(b'{"a": 1}', authorization="Bearer x", x_gitlab_token="y", x_more="z")
    payload = encode_kept("h", delivery, parsed=parse_request(delivery))
    assert b"Bearer" not in payload
    name, said = decode_kept(payload)
    assert (name, said.body, said.headers["x-more"]) == ("h", {"a": 1}, "z")
    assert "authorization" not in said.headers
    assert "x-gitlab-token" not in said.headers
    for edited in (b"[]", b'{"hook": "h", "unread": "?"}'):
        with pytest.raises(Unmappable, match="form of a webhook"):
            decode_kept(edited)


def test_without_expressions_the_body_is_what_the_event_holds():
    assert event(hook(), parsed_request({"a": 1})).extra == {"a": 1}
    assert event(hook(), parsed_request([1])).extra == {"body": [1]}
    assert event(hook(), parsed_request()).extra == {"body": None}


def test_expressions_say_what_the_event_holds():
    spec = hook(
        extra={"n": "body.n + 1", "from": 'headers["x-from"]', "at": "timestamp(body.at)"},
        partition="body.day",
    )
    said = parsed_request({"n": 1, "day": 7, "at": "2026-11-20T00:00:00Z"}, x_from="y")
    made = event(spec, said)
    assert made.extra == {"n": 2, "from": "y", "at": "2026-11-20T00:00:00Z"}
    assert (made.dataset, made.partition) == ("s3://lake/h", "7")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"extra": {"n": "body.missing"}}, r"extra\['n'\]: body.missing failed: KeyError"),
        ({"extra": {"n": "1 / 0"}}, "ZeroDivisionError"),
        ({"extra": {"n": "unheard(body)"}}, "RuntimeError"),
        ({"extra": {"n": "1.0 / 0.0"}}, r"extra\['n'\] is inf, which JSON cannot hold"),
        ({"partition": "body"}, "that is not a text"),
        ({"partition": "true"}, "that is not a text"),
        ({"partition": "''"}, "0 characters"),
        ({"partition": "body.long"}, "600 characters"),
        ({"id": "[1]"}, "that is not a text"),
    ],
)
def test_an_expression_that_fails_says_so(more, says):
    with pytest.raises(Unmappable, match=says):
        decide(hook(**more), parsed_request({"long": "x" * 600}))


def test_integers_beyond_64_bits_are_refused():
    for n in (1 << 70, -(1 << 64)):
        with pytest.raises(Unmappable, match="64 bits"):
            parse_request(request(b'{"n": %d}' % n))


@pytest.mark.parametrize("when", ["body.ok == 'yes'", "body.missing", "body.ok", "1 / 0 == 1"])
def test_a_request_for_which_when_is_not_true_makes_nothing(when):
    decided = decide(hook(when=when), parsed_request({"ok": "no"}))
    assert isinstance(decided, Filtered)
    assert when in decided.reason
    assert isinstance(
        decide(hook(when="body.ok == 'no'"), parsed_request({"ok": "no"})), RecordEvents
    )


@pytest.mark.parametrize(
    ("verify", "said", "expected"),
    [
        (StandardWebhooks("whsec_AAAA"), parsed_request(webhook_id="m1"), "hook:h:m1"),
        (GitHub("x"), parsed_request(x_github_delivery="d1"), "hook:h:d1"),
        (Stripe("x"), parsed_request({"id": "evt_1"}), "hook:h:evt_1"),
        (Slack("x"), parsed_request({"event_id": "Ev1"}), "hook:h:Ev1"),
        (GitLab("x"), parsed_request(x_gitlab_event_uuid="u", idempotency_key="k"), "hook:h:k"),
        (GitLab("x"), parsed_request(x_gitlab_event_uuid="u"), "hook:h:u"),
        (Bearer("x"), parsed_request(idempotency_key="k"), "hook:h:k"),
        (Bearer("x"), parsed_request(ce_source="/s", ce_id="1"), "hook:h:/s 1"),
        (
            Bearer("x"),
            parsed_request(
                {"source": "/s", "id": "1"}, content_type="application/cloudevents+json"
            ),
            "hook:h:/s 1",
        ),
        (Bearer("x"), parsed_request({"id": "1"}), None),
        (Stripe("x"), parsed_request({"id": 1}), None),
        (GitHub("x"), parsed_request(x_github_delivery=""), None),
    ],
)
def test_senders_mark_their_deliveries(verify, said, expected):
    assert mark(verify, said) == expected


def test_an_expression_for_the_mark_goes_before_the_senders():
    said = parsed_request({"no": 7, "none": None}, webhook_id="m1")
    assert mark(None, said, id="body.no") == "hook:h:7"
    assert mark(None, said, id="body.none") == "hook:h:m1"
    long = mark(None, parsed_request({"no": "x" * 5000}), id="body.no")
    assert len(long) < 100
    assert long != mark(None, parsed_request({"no": "x" * 5001}), id="body.no")


def test_checks_of_the_address_are_recognised():
    assert (
        challenge_reply(GitHub("x"), parsed_request({}, x_github_event="ping")) == ChallengeReply()
    )
    challenge = parsed_request({"type": "url_verification", "challenge": "abc"})
    assert challenge_reply(Slack("x"), challenge) == ChallengeReply("abc")
    assert challenge_reply(GitHub("x"), challenge) is None
    assert (
        challenge_reply(Slack("x"), parsed_request({"type": "url_verification", "challenge": 1}))
        is None
    )
    assert challenge_reply(Unverified(), parsed_request({}, x_github_event="ping")) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
EXPRESSIONS = (
    "body",
    "body.a",
    "body.a.b[0]",
    "string(body)",
    "int(body.a)",
    "headers",
    "size(body)",
)


@given(body=values, when=st.sampled_from((None, *EXPRESSIONS)), each=st.sampled_from(EXPRESSIONS))
def test_whatever_is_sent_is_mapped_filtered_or_unmappable(body, when, each):
    spec = hook(when=when, extra={"x": each}, partition=each, id=each)
    for spec_ in (spec, hook()):
        try:
            decided = decide(spec_, parsed_request(body))
        except Unmappable:
            continue
        if isinstance(decided, RecordEvents):
            json.loads(msgspec.json.encode(decided.events[0].extra))


@given(body=st.binary(max_size=300), kind=st.sampled_from((JSON, FORM, b"text/plain", b"\xff")))
def test_whatever_bytes_come_they_are_read_or_unmappable(body, kind):
    delivery = request(body, kind)
    try:
        said = parse_request(delivery)
    except Unmappable:
        said = None
    encode_kept("h", delivery, parsed=said)
