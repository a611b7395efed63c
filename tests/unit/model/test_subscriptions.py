"""What follows from a receiver's answer; addresses; signatures."""

from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from pubsubflow.errors import InvalidInput
from pubsubflow.model.subscriptions import (
    AttemptsExhausted,
    Delivered,
    ReceiverGone,
    ReceiverReply,
    RetryLater,
    check_url,
    decide_outcome,
    is_public,
    new_signing_secret,
    read_key,
    sign,
)

NOW = 1_700_000_000


def verdict(status, attempts=1, chance=0.0, **more):
    return decide_outcome(
        ReceiverReply(status, "why", **more),
        attempts,
        retry_seconds=(5, 60),
        jitter=0.2,
        chance=chance,
    )


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_success_is_a_delivery(status):
    assert verdict(status, attempts=99) == Delivered()


@pytest.mark.parametrize("status", [None, 100, 301, 307, 400, 404, 429, 500, 503])
def test_anything_else_is_tried_again_until_the_schedule_ends(status):
    assert verdict(status) == RetryLater(5)
    assert verdict(status, attempts=2, chance=1.0) == RetryLater(72)
    assert isinstance(verdict(status, attempts=3), AttemptsExhausted)


def test_gone_is_the_end():
    assert verdict(410) == ReceiverGone("why")


def test_a_receiver_may_ask_for_more_time_within_reason():
    assert verdict(429, retry_after_seconds=100.0) == RetryLater(100)
    assert verdict(503, retry_after_seconds=1.0) == RetryLater(5)
    assert verdict(500, retry_after_seconds=100.0) == RetryLater(5)
    assert verdict(429, retry_after_seconds=1e9) == RetryLater(86400)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "::", "::1",
        "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_of_networks_nearby_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


def test_what_is_signed_is_verified_by_the_standards_package():
    secret = new_signing_secret()
    hook = Webhook(secret)
    body = b'{"n": 1}'
    headers = sign(read_key(secret), "id_1", NOW, body)
    given = hook.sign("id_1", datetime.fromtimestamp(NOW, UTC), body.decode())
    assert headers["webhook-signature"] == given


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "c2hvcnQ=", "whsec_!"])
def test_a_bad_secret_is_refused_without_showing_it(secret):
    with pytest.raises(InvalidInput) as refused:
        read_key(secret)
    assert not secret.removeprefix("whsec_") or secret not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://example.com/x?y=1", ("example.com", 443)),
        ("http://[::1]:8080", ("::1", 8080)),
        ("http://example.com", ("example.com", 80)),
    ],
)
def test_a_url_has_a_host_and_a_port(url, found):
    assert check_url(url) == found


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a", "http://", "http://a:b@c", "http://a#b", "http://ą", "http://a\n",
     "http://a:0", "http://[::1", "https://a/" + "x" * 2000],
)  # fmt: skip
def test_a_bad_url_is_refused(url):
    with pytest.raises(InvalidInput):
        check_url(url)
