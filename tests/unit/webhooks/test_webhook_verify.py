"""Who is believed: senders' own signers, published examples, and everything else refused."""

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pubsubflow.errors import DefinitionError
from pubsubflow.model.webhooks import (
    Basic,
    Bearer,
    GitHub,
    GitLab,
    Hmac,
    Slack,
    StandardWebhooks,
    Stripe,
    Unverified,
)
from pubsubflow.webhooks.request import NotVerified, WebhookRequest
from pubsubflow.webhooks.verify import verification
from support.signers import (
    NOW,
    SCHEMES,
    SECRET,
    SHARED,
    TIMED,
    delivery,
    github,
    standard,
    stripe_signed,
)

BODY = b'{"id": 1, "name": "an order"}'
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
    b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
every_scheme = pytest.mark.parametrize("name", SCHEMES)


def verify(name, request, *, at=NOW):
    verifier, secret, _, _ = SCHEMES[name]
    verification(verifier, [secret])(request, at)


def refusal(verifier, secrets, request, *, at=NOW):
    with pytest.raises(NotVerified) as caught:
        verification(verifier, secrets)(request, at)
    return str(caught.value)


@every_scheme
def test_what_a_sender_signs_is_believed(name):
    verify(name, SCHEMES[name][2](BODY))


@every_scheme
def test_any_of_several_secrets_will_do_and_another_one_will_not(name):
    verifier, secret, sign, _ = SCHEMES[name]
    other = SHARED[:-8] + "AAAAAAA=" if secret.startswith("wh") else "another one"
    verification(verifier, [other, secret])(sign(BODY), NOW)
    refusal(verifier, [other], sign(BODY))
    refusal(verifier, [], sign(BODY))


def test_the_example_that_github_publishes_is_believed():
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = "It's a Secret to Everybody"
    request = delivery(b"Hello, World!", x_hub_signature_256=f"sha256={digest}")
    verification(GitHub(secret), [secret])(request, NOW)


def test_the_example_that_slack_publishes_is_believed_in_its_time():
    secret = "8f742231b10e8888abcd99yyyzzz85a5"
    digest = "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    request = delivery(
        SLACK_BODY, x_slack_request_timestamp="1531420618", x_slack_signature=f"v0={digest}"
    )
    verification(Slack(secret), [secret])(request, 1531420618 + 299)
    assert "behind this server's clock" in refusal(Slack(secret), [secret], request)


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize(("skew", "fits"), [(300, True), (301, False), (-300, True), (-301, False)])
def test_times_are_believed_within_the_tolerance_in_both_directions(name, skew, fits):
    request = SCHEMES[name][2](BODY, at=NOW - skew)
    if fits:
        verify(name, request)
    else:
        with pytest.raises(NotVerified, match=r"301 s (behind|ahead of) this server's clock"):
            verify(name, request)


def test_the_tolerance_can_be_set():
    verifier = Stripe(SECRET, tolerance=timedelta(hours=1))
    verification(verifier, [SECRET])(stripe_signed(BODY, at=NOW - 3600), NOW)


def test_stripe_sends_several_signatures_while_a_secret_is_rotated():
    header = dict(stripe_signed(BODY).headers)["stripe-signature"]
    both = header.replace(b",v1=", b",v1=" + b"0" * 64 + b",v0=00,v1=")
    verify("stripe", WebhookRequest((("stripe-signature", both),), BODY))
    twice = WebhookRequest((("stripe-signature", b"t=1," + header),), BODY)
    assert "once" in refusal(Stripe(SECRET), [SECRET], twice)


def test_standard_webhooks_sends_several_signatures_of_both_kinds():
    request = standard(BODY)
    headers = dict(request.headers)
    headers["webhook-signature"] = b"v1a,AAAA v1,AAAA nonsense " + headers["webhook-signature"]
    verify("standard", WebhookRequest(tuple(headers.items()), BODY))
    headers["webhook-signature"] = b"v1,AAAA " * 16 + headers["webhook-signature"]
    refusal(StandardWebhooks(SHARED), [SHARED], WebhookRequest(tuple(headers.items()), BODY))


def test_an_id_that_could_pass_for_a_time_is_refused():
    request = standard(b"1795000000." + BODY, name="msg.1")
    assert "webhook-id" in refusal(StandardWebhooks(SHARED), [SHARED], request)


@pytest.mark.parametrize("written", ["sha256={}", "sha256={}=", "{}", "SHA256={}", " sha256={}"])
def test_a_signature_is_written_in_one_way_only(written):
    digest = dict(github(BODY).headers)["x-hub-signature-256"].decode().removeprefix("sha256=")
    request = delivery(BODY, x_hub_signature_256=written.format(digest.upper()))
    assert "does not match" in refusal(GitHub(SECRET), [SECRET], request)


def test_hexadecimal_of_unknown_senders_may_be_in_capitals():
    header = dict(github(BODY).headers)["x-hub-signature-256"].decode()
    request = delivery(BODY, signed=header.removeprefix("sha256=").upper())
    verification(Hmac(SECRET, header="Signed"), [SECRET])(request, NOW)


@every_scheme
def test_every_header_that_counts_is_there_once(name):
    verifier, secret, sign, _ = SCHEMES[name]
    request = sign(BODY)
    for position, (header, _) in enumerate(request.headers):
        left = request.headers[:position] + request.headers[position + 1 :]
        missing = refusal(verifier, [secret], replace(request, headers=left))
        assert missing == f"the header {header} is missing"
        twice = replace(request, headers=(*request.headers, request.headers[position]))
        assert refusal(verifier, [secret], twice) == f"the header {header} was sent 2 times"


@every_scheme
@given(data=st.data())
def test_any_bit_that_flips_is_noticed(name, data):
    verifier, secret, sign, body_counts = SCHEMES[name]
    request = sign(BODY)
    places = [(index, len(value)) for index, (_, value) in enumerate(request.headers)]
    if body_counts:
        places.append((None, len(BODY)))
    index, length = data.draw(st.sampled_from(places))
    place, bit = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, 7))

    def flip(value):
        return value[:place] + bytes([value[place] ^ (1 << bit)]) + value[place + 1 :]

    if index is None:
        changed = replace(request, body=flip(BODY))
    else:
        header, value = request.headers[index]
        if header == "authorization" and flip(value).lower() == value.lower():
            return  # the scheme's name is written in any case (RFC 9110 §11.1)
        headers = list(request.headers)
        headers[index] = (header, flip(value))
        changed = replace(request, headers=tuple(headers))
    refusal(verifier, [secret], changed)


@every_scheme
@given(values=st.lists(st.binary(max_size=200), min_size=3, max_size=3), body=st.binary())
def test_nothing_but_a_refusal_comes_of_nonsense(name, values, body):
    verifier, secret, sign, _ = SCHEMES[name]
    headers = tuple(
        (header, value) for (header, _), value in zip(sign(b"{}").headers, values, strict=False)
    )
    refusal(verifier, [secret], WebhookRequest(headers, body))


@every_scheme
@given(data=st.data())
def test_nothing_but_a_refusal_comes_of_what_looks_right(name, data):
    verifier, secret, sign, _ = SCHEMES[name]
    words = st.sampled_from(
        [
            *(b"v1,", b"v1a,", b"v0=", b"t=", b",", b" ", b"=", b"sha256=", b"Basic ", b"Bearer "),
            *(str(NOW).encode(), "٣".encode(), b"\xff", b"QUJD", b"-1", b"1e9", b"9" * 30),
        ]
    )
    value = st.lists(words, max_size=6).map(b"".join)
    headers = tuple((header, data.draw(value)) for header, _ in sign(b"{}").headers)
    refusal(verifier, [secret], WebhookRequest(headers, b"{}"))


def test_an_unverified_webhook_accepts_every_request():
    verification(Unverified(), [])(WebhookRequest((), b""), NOW)


def test_names_and_passwords_beyond_ascii_are_utf_8():
    given_header = "Basic " + base64.b64encode("żaba:złoto".encode()).decode()
    request = delivery(b"", authorization=given_header)
    verification(Basic("żaba", "złoto"), ["złoto"])(request, NOW)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: GitHub(""), "GitHub: a secret is empty"),
        (lambda: GitHub([]), "GitHub: a secret is a text"),
        (lambda: GitLab(["good", 3]), "GitLab: a secret is a text"),
        (lambda: Bearer(" token\n"), "white space"),
        (lambda: StandardWebhooks("whsec_ä"), "base64"),
        (lambda: StandardWebhooks("whsk_AAAA"), "sender's private key"),
        (lambda: StandardWebhooks("whpk_AAAA"), "32 bytes"),
        (lambda: StandardWebhooks("whsec_"), "empty"),
        (lambda: Slack("x", tolerance=300), "tolerance is a timedelta"),
        (lambda: Hmac("x", header="two words"), "cannot be the name of a header"),
        (lambda: Hmac("x", header="X", algorithm="md5"), "known: sha256"),
        (lambda: Hmac("x", header="X", encoding="hexadecimal"), "known: hex"),
        (lambda: Basic("a:b", "x"), "without ':'"),
    ],
)
def test_what_cannot_verify_is_refused_at_definition(make, says):
    with pytest.raises(DefinitionError, match=says):
        make()


def test_a_looked_up_secret_is_checked_too_and_not_repeated():
    with pytest.raises(DefinitionError) as caught:
        verification(StandardWebhooks(SHARED), ["hunter2!"])
    assert "hunter2" not in str(caught.value)


def test_printing_a_verifier_shows_no_secret():
    for verifier, secret, _, _ in SCHEMES.values():
        assert secret not in repr(verifier) + str(verifier)
