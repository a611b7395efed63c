"""Verification of webhook requests checks their signatures and timestamps, without I/O.

Signatures are compared in their encoded form, in constant time, so each has one valid encoding.
Sources: standardwebhooks.com (spec 1.0.0), GitHub "Validating webhook deliveries", Stripe
"Verify webhook signatures manually", Slack "Verifying requests from Slack", GitLab "Webhooks",
RFC 6750, RFC 7617.
"""

import base64
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pubsubflow.errors import DefinitionError
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.webhooks import (
    PUBLIC,
    AnyVerifier,
    Basic,
    Bearer,
    GitHub,
    GitLab,
    Hmac,
    Slack,
    StandardWebhooks,
    Stripe,
    Unverified,
    standard_key,
)
from pubsubflow.webhooks.request import NotVerified, WebhookRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

exceptions = lazy_module("cryptography.exceptions")
ed25519 = lazy_module("cryptography.hazmat.primitives.asymmetric.ed25519")

Verify = Callable[[WebhookRequest, float], None]
"""Checks a request, given the time in seconds since 1970; raises NotVerified."""

MAX_SIGNATURES = 16
_MAX_TIME_DIGITS = 12


def verification(verifier: AnyVerifier, secrets: Sequence[str]) -> Verify:
    """Return the check of a verifier; a request passes with any one of the secrets.

    Args:
        verifier: The verifier of the webhook.
        secrets: Its secrets, looked up.

    Raises:
        DefinitionError: A secret is invalid; the text does not repeat it.
    """
    for secret in secrets:
        reason = verifier.invalid_reason(secret)
        if reason is not None:
            raise DefinitionError(reason)
    return _CHECKS[type(verifier)](verifier, secrets)


def _standard(verifier: StandardWebhooks, secrets: Sequence[str]) -> Verify:
    shared = [standard_key(each) for each in secrets if not each.startswith(PUBLIC)]
    public = [
        ed25519.Ed25519PublicKey.from_public_bytes(standard_key(each))
        for each in secrets
        if each.startswith(PUBLIC)
    ]
    tolerance = verifier.tolerance.total_seconds()

    def verify(request: WebhookRequest, now: float) -> None:
        name = request.one("webhook-id")
        if not name or b"." in name:
            # The id ends at the first '.' of the signed content: with one inside, two different
            # requests could have the same signature.
            raise NotVerified("webhook-id must be present and must not contain '.'")
        time = _time(request, "webhook-timestamp", now, tolerance)
        content = b".".join((name, time, request.body))
        given = request.one("webhook-signature").split(b" ")[:MAX_SIGNATURES]
        wanted = [b"v1," + _base64(key, content) for key in shared]
        if not (_any_equal(given, wanted) or _any_signed(given, public, content)):
            raise NotVerified("none of the signatures in webhook-signature matches")

    return verify


def _any_signed(given: Iterable[bytes], keys: "Sequence[Ed25519PublicKey]", content: bytes) -> bool:
    signatures = [each.removeprefix(b"v1a,") for each in given if each.startswith(b"v1a,")]
    return any(_is_signed(key, each, content) for key in keys for each in signatures)


def _is_signed(key: "Ed25519PublicKey", written: bytes, content: bytes) -> bool:
    try:
        signature = base64.b64decode(written, validate=True)
        if base64.b64encode(signature) != written:
            return False
        key.verify(signature, content)
    except (ValueError, exceptions.InvalidSignature):
        return False
    return True


def _github(_: GitHub, secrets: Sequence[str]) -> Verify:
    def verify(request: WebhookRequest, _: float) -> None:
        given = request.one("x-hub-signature-256")
        _check([given], (b"sha256=" + _hex(key, request.body) for key in _encoded(secrets)))

    return verify


def _stripe(verifier: Stripe, secrets: Sequence[str]) -> Verify:
    tolerance = verifier.tolerance.total_seconds()

    def verify(request: WebhookRequest, now: float) -> None:
        parts = [part.partition(b"=") for part in request.one("stripe-signature").split(b",")]
        times = [value for name, _, value in parts if name == b"t"]
        if len(times) != 1:
            raise NotVerified("stripe-signature must contain the timestamp t= once")
        time = _check_time(times[0], "t= of stripe-signature", now, tolerance)
        given = [value for name, _, value in parts if name == b"v1"][:MAX_SIGNATURES]
        content = time + b"." + request.body
        _check(given, (_hex(key, content) for key in _encoded(secrets)))

    return verify


def _slack(verifier: Slack, secrets: Sequence[str]) -> Verify:
    tolerance = verifier.tolerance.total_seconds()

    def verify(request: WebhookRequest, now: float) -> None:
        time = _time(request, "x-slack-request-timestamp", now, tolerance)
        content = b":".join((b"v0", time, request.body))
        given = request.one("x-slack-signature")
        _check([given], (b"v0=" + _hex(key, content) for key in _encoded(secrets)))

    return verify


def _gitlab(_: GitLab, secrets: Sequence[str]) -> Verify:
    def verify(request: WebhookRequest, _: float) -> None:
        if not _any_equal([request.one("x-gitlab-token")], _encoded(secrets)):
            raise NotVerified("the token in x-gitlab-token does not match")

    return verify


def _hmac(verifier: Hmac, secrets: Sequence[str]) -> Verify:
    header = verifier.header.lower()
    prefix = verifier.prefix.encode()
    write = partial(_WRITERS[verifier.encoding], algorithm=verifier.algorithm)

    def verify(request: WebhookRequest, _: float) -> None:
        given = request.one(header)
        if not given.startswith(prefix):
            raise NotVerified(f"the header {header} does not begin with {verifier.prefix}")
        given = given.removeprefix(prefix)
        if verifier.encoding == "hex":
            given = given.lower()
        elif verifier.encoding == "base64url":
            given = given.rstrip(b"=")
        _check([given], (write(key, request.body) for key in _encoded(secrets)))

    return verify


def _bearer(_: Bearer, secrets: Sequence[str]) -> Verify:
    def verify(request: WebhookRequest, _: float) -> None:
        if not _any_equal([_credentials(request, b"bearer")], _encoded(secrets)):
            raise NotVerified("the bearer token does not match")

    return verify


def _basic(verifier: Basic, secrets: Sequence[str]) -> Verify:
    wanted = [base64.b64encode(f"{verifier.user}:{secret}".encode()) for secret in secrets]

    def verify(request: WebhookRequest, _: float) -> None:
        if not _any_equal([_credentials(request, b"basic")], wanted):
            raise NotVerified("user or password does not match")

    return verify


def _unverified(_: Unverified, __: Sequence[str]) -> Verify:
    return lambda _request, _now: None


_CHECKS: dict[type, Callable[[Any, Sequence[str]], Verify]] = {
    StandardWebhooks: _standard,
    GitHub: _github,
    Stripe: _stripe,
    Slack: _slack,
    GitLab: _gitlab,
    Hmac: _hmac,
    Bearer: _bearer,
    Basic: _basic,
    Unverified: _unverified,
}


def _credentials(request: WebhookRequest, scheme: bytes) -> bytes:
    named, _, given = request.one("authorization").partition(b" ")
    if named.lower() != scheme:
        raise NotVerified(f"the header authorization does not have the scheme {scheme.decode()}")
    return given


def _time(request: WebhookRequest, header: str, now: float, tolerance: float) -> bytes:
    return _check_time(request.one(header), header, now, tolerance)


def _check_time(text: bytes, name: str, now: float, tolerance: float) -> bytes:
    if not text.isdigit() or len(text) > _MAX_TIME_DIGITS:
        raise NotVerified(f"{name} is not a time in seconds since 1970")
    age = now - int(text)
    if abs(age) > tolerance:
        side = "behind" if age > 0 else "ahead of"
        raise NotVerified(
            f"{name} is {abs(age):.0f} s {side} this server's clock; {tolerance:.0f} s are allowed"
        )
    return text


def _check(given: Sequence[bytes], wanted: Iterable[bytes]) -> None:
    if not _any_equal(given, wanted):
        raise NotVerified(
            "the signature does not match: the secret differs, or the body was changed"
        )


def _any_equal(given: Sequence[bytes], wanted: Iterable[bytes]) -> bool:
    """Whether any given value equals any of the wanted ones, in constant time."""
    # A list, not a generator: `any` would stop at the first match, and its time would show which.
    return any([hmac.compare_digest(one, other) for other in wanted for one in given])  # noqa: C419


def _encoded(secrets: Sequence[str]) -> Iterator[bytes]:
    return (secret.encode() for secret in secrets)


def _hex(key: bytes, content: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.digest(key, content, algorithm).hex().encode()


def _base64(key: bytes, content: bytes, algorithm: str = "sha256") -> bytes:
    return base64.b64encode(hmac.digest(key, content, algorithm))


def _base64url(key: bytes, content: bytes, algorithm: str = "sha256") -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(key, content, algorithm)).rstrip(b"=")


_WRITERS = {"hex": _hex, "base64": _base64, "base64url": _base64url}
