"""Subscriptions deliver dataset events to URLs; a receiver's reply decides what happens next."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID

from msgspec import Struct

from pubsubflow.errors import InvalidInput

CHANGED = "psf.ctl.subscriptions"
"""Subject of the message that subscriptions have changed."""
TEST = "psf.req.subscription"
"""Subject of requests to send a test event: a subscription's id; the reply is a TestedDelivery."""
DEAD_LETTER_KIND = "delivery"
"""Kind of the dead letters that hold an `Undelivered`."""

Mode = Literal["structured", "binary"]
State = Literal["active", "paused", "gone"]

_PREFIX = "whsec_"
_NEW_KEY_BYTES = 32
_KEY_BYTES = range(24, 65)
_MAX_URL_CHARACTERS = 2000
_MAX_WAIT_SECONDS = 24 * 3600.0
_TAKEN = range(200, 300)
_HEED_RETRY_AFTER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_NAT64 = IPv6Network("64:ff9b::/96")


class SubscriptionSpec(Struct, frozen=True):
    """The validated specification of a subscription.

    Attributes:
        url: The URL that events are posted to.
        dataset: URI, or a pattern with `*` and `**`; None for all datasets.
        dags: Only events that tasks of these DAGs emit; empty for all.
        where: CEL over `event`, as in a schedule; None for all.
        mode: How a CloudEvent is encoded: as JSON, or as headers and data.
        ordered: Whether events are delivered one after the other, in the log's order; else several
            side by side.
        description: For people.
    """

    url: str
    dataset: str | None = None
    dags: tuple[str, ...] = ()
    where: str | None = None
    mode: Mode = "structured"
    ordered: bool = True
    description: str = ""


class EventSubscription(Struct, frozen=True):
    """A subscription as deliveries read it.

    Attributes:
        version: Differs after every change.
        spec: Its specification.
        expression: Its dataset as a regular expression.
        cursor: Id of the last event that was delivered or dead-lettered.
    """

    id: UUID
    version: int
    spec: SubscriptionSpec
    expression: str | None
    cursor: int


class SubscriptionView(Struct, frozen=True, kw_only=True):
    """A subscription in the API, without its secret.

    Attributes:
        state: `active`, `paused` by a person, or `gone`: its receiver answered 410.
        reason: Why it is gone.
        revision: Differs after every change by a person; see `If-Match`.
        delivered, dead: Number of events that were delivered, and that became dead letters.
        waiting: Number of events that wait for another attempt.
        last_at, last_status, last_error: Time of the last attempt, its status and its error.
    """

    id: str
    url: str
    dataset: str | None
    dags: list[str]
    where: str | None
    mode: str
    ordered: bool
    description: str
    state: str
    reason: str | None
    revision: str
    created_at: datetime
    delivered: int
    dead: int
    waiting: int
    last_at: datetime | None
    last_status: int | None
    last_error: str | None


class CreatedSubscription(SubscriptionView, frozen=True, kw_only=True):
    """A new subscription; its secret is shown only here."""

    secret: str


class TestedDelivery(Struct, frozen=True):
    """The result of a test delivery.

    Attributes:
        status: HTTP status; None without a response.
        reason: Why it was not delivered.
    """

    delivered: bool
    seconds: float
    status: int | None = None
    reason: str = ""


class Undelivered(Struct, frozen=True):
    """The payload of a dead letter: an event that could not be delivered."""

    subscription: UUID
    event_id: UUID
    dataset: str
    url: str
    attempts: int
    last_status: int | None


class ReceiverReply(Struct, frozen=True):
    """A receiver's reply to a delivery.

    Attributes:
        status: HTTP status; None without a response.
        reason: The beginning of its body, or why there is none, in one line.
        retry_after_seconds: Its Retry-After, if it sent one.
    """

    status: int | None
    reason: str = ""
    retry_after_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver has accepted the event."""
        return self.status in _TAKEN


class Delivered(Struct, frozen=True):
    """The receiver has accepted the event."""


class RetryLater(Struct, frozen=True):
    """The event is sent again after so many seconds."""

    seconds: float


class AttemptsExhausted(Struct, frozen=True):
    """The attempts are used up: the event becomes a dead letter."""

    reason: str


class ReceiverGone(Struct, frozen=True):
    """The receiver answered 410: the subscription ends until a person resumes it."""

    reason: str


DeliveryOutcome = Delivered | RetryLater | AttemptsExhausted | ReceiverGone


def decide_outcome(
    reply: ReceiverReply,
    attempts: int,
    *,
    retry_seconds: Sequence[float],
    jitter: float,
    chance: float,
) -> DeliveryOutcome:
    """Decide the outcome of a delivery attempt.

    Args:
        reply: The receiver's reply.
        attempts: Number of attempts so far, this one included.
        retry_seconds: The pauses before each further attempt.
        jitter: By which part a pause may be longer.
        chance: A random number from 0 to 1.
    """
    if reply.accepted:
        return Delivered()
    if reply.status == HTTPStatus.GONE:
        return ReceiverGone(reply.reason)
    if attempts > len(retry_seconds):
        return AttemptsExhausted(f"not delivered in {attempts} attempts; the last: {reply.reason}")
    pause = retry_seconds[attempts - 1] * (1 + jitter * chance)
    if reply.retry_after_seconds is not None and reply.status in _HEED_RETRY_AFTER:
        # Bounded: a receiver must not be able to hold back its own events for years.
        pause = max(pause, min(reply.retry_after_seconds, _MAX_WAIT_SECONDS))
    return RetryLater(pause)


def new_signing_secret() -> str:
    """Return a new secret in the form of Standard Webhooks."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_KEY_BYTES)).decode()


def read_key(secret: str) -> bytes:
    """Return the key in a secret of Standard Webhooks.

    Raises:
        InvalidInput: The secret is invalid; the text does not repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        raise InvalidInput(
            "a secret is whsec_ and 24 to 64 bytes in base64; leave it out for a new one"
        )
    return key


def sign(key: bytes, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers that sign a request by Standard Webhooks 1.0.0.

    Args:
        key: The key in the secret.
        message_id: Id of the message, the same for every attempt.
        at: Seconds since 1970.
        body: The body as it is sent.
    """
    digest = hmac.digest(key, f"{message_id}.{at}.".encode() + body, "sha256")
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def check_url(url: str) -> tuple[str, int]:
    """Return the host and port of a URL that events can be delivered to.

    Raises:
        InvalidInput: The URL is invalid.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"the URL cannot be read: {error}") from error
    fits = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    if not fits or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("the URL is not an HTTP address: write https://example.com/events")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("the URL has a user or a fragment, which are not sent: leave them out")
    if len(url) > _MAX_URL_CHARACTERS:
        raise InvalidInput(f"the URL is longer than {_MAX_URL_CHARACTERS} characters")
    return parts.hostname or "", port or (443 if parts.scheme == "https" else 80)


def is_public(address: str) -> bool:
    """Whether an IP address is public: not of this machine, its networks or a reserved range."""
    # Addresses that embed an IPv4 one (mapped, 6to4, NAT64, Teredo) are judged by that: otherwise
    # they would be a way around the check.
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if found.teredo is not None:
            inner = found.teredo[1]
        if inner is not None:
            found = inner
    return found.is_global and not found.is_multicast and not found.is_reserved
