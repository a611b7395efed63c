"""Who wants dataset events at a URL, and what follows from how a receiver answers."""

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
"""Rung when there is something new about subscriptions."""
TEST = "psf.req.subscription"
"""Asked to send a subscriber a test: the id; answered with a TestedDelivery in JSON."""
LETTER = "delivery"
"""The kind of a dead letter that holds an Undelivered."""

Mode = Literal["structured", "binary"]
State = Literal["active", "paused", "gone"]

_MARK = "whsec_"
_NEW_KEY_BYTES = 32
_KEY_BYTES = range(24, 65)
_MAX_URL_CHARACTERS = 2000
_MAX_WAIT_SECONDS = 24 * 3600.0
_TAKEN = range(200, 300)
_HEED_RETRY_AFTER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_NAT64 = IPv6Network("64:ff9b::/96")


class Wanted(Struct, frozen=True):
    """What a subscriber wants, checked.

    Attributes:
        url: Where to.
        dataset: URI, or a pattern with `*` and `**`; None for all datasets.
        dags: Only events that tasks of these DAGs emit; empty for all.
        where: CEL over `event`, as in a schedule; None for all.
        mode: How a CloudEvent is written: as JSON, or as headers and data.
        ordered: One after the other in the log's order; else several side by side.
        description: For people.
    """

    url: str
    dataset: str | None = None
    dags: tuple[str, ...] = ()
    where: str | None = None
    mode: Mode = "structured"
    ordered: bool = True
    description: str = ""


class Subscription(Struct, frozen=True):
    """A subscription that is delivered to.

    Attributes:
        expression: Its dataset as a regular expression.
        cursor: Id of the last event that is settled.
    """

    id: UUID
    version: int
    wanted: Wanted
    expression: str | None
    cursor: int


class SubscriptionView(Struct, frozen=True, kw_only=True):
    """A subscription as people see it, without its secret.

    Attributes:
        state: `active`, `paused` by a person, or `gone`: its receiver answered 410.
        reason: Why it is gone.
        revision: Another one after every change by a person; what `If-Match` counts on.
        delivered, dead: How many events its receiver took, and how many became dead letters.
        waiting: How many wait for another try.
        last_at, last_status, last_error: When something was sent last, and what came back.
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
    """A new subscription; this is the only time that its secret is shown."""

    secret: str


class TestedDelivery(Struct, frozen=True):
    """What a receiver said to a test.

    Attributes:
        status: HTTP status; None if none came.
        reason: Why it was not taken.
    """

    delivered: bool
    seconds: float
    status: int | None = None
    reason: str = ""


class Undelivered(Struct, frozen=True):
    """An event that a subscriber did not take, as a dead letter holds it."""

    subscription: UUID
    event_id: UUID
    dataset: str
    url: str
    attempts: int
    last_status: int | None


class Reply(Struct, frozen=True):
    """What came back from a receiver.

    Attributes:
        status: HTTP status; None if none came.
        reason: What it said, or what went wrong, in one line.
        retry_after_seconds: What it asked for, if it did.
    """

    status: int | None
    reason: str = ""
    retry_after_seconds: float | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has the event."""
        return self.status in _TAKEN


class Delivered(Struct, frozen=True):
    """The receiver has it."""


class Again(Struct, frozen=True):
    """It is tried again after so many seconds."""

    seconds: float


class Dead(Struct, frozen=True):
    """Nobody tries again by himself."""

    reason: str


class Gone(Struct, frozen=True):
    """The receiver wants nothing any more."""

    reason: str


Verdict = Delivered | Again | Dead | Gone


def after_reply(
    reply: Reply, attempts: int, *, retry_seconds: Sequence[float], jitter: float, chance: float
) -> Verdict:
    """Decide what follows from how a receiver answered.

    Args:
        reply: Its answer.
        attempts: How often the event has been sent by now.
        retry_seconds: The pauses before each further attempt.
        jitter: By which part a pause may be longer.
        chance: Random, from 0 to 1.
    """
    if reply.taken:
        return Delivered()
    if reply.status == HTTPStatus.GONE:
        return Gone(reply.reason)
    if attempts > len(retry_seconds):
        return Dead(f"not taken in {attempts} attempts; the last one: {reply.reason}")
    pause = retry_seconds[attempts - 1] * (1 + jitter * chance)
    if reply.retry_after_seconds is not None and reply.status in _HEED_RETRY_AFTER:
        pause = max(pause, min(reply.retry_after_seconds, _MAX_WAIT_SECONDS))
    return Again(pause)


def new_secret() -> str:
    """Return a new secret of Standard Webhooks."""
    return _MARK + base64.b64encode(secrets.token_bytes(_NEW_KEY_BYTES)).decode()


def read_key(secret: str) -> bytes:
    """Return the key that a secret of Standard Webhooks stands for.

    Raises:
        InvalidInput: It is none; the text does not hold it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_MARK), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_MARK) or len(key) not in _KEY_BYTES:
        raise InvalidInput("a secret is whsec_ and 24 to 64 bytes in base64; leave it out for one")
    return key


def sign(key: bytes, name: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers that sign a request by Standard Webhooks 1.0.0.

    Args:
        key: Of the secret.
        name: What makes the message known when it comes again.
        at: Seconds since 1970.
        body: As it is sent.
    """
    digest = hmac.digest(key, f"{name}.{at}.".encode() + body, "sha256")
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": signature}


def check_url(url: str) -> tuple[str, int]:
    """Return the host and port of a URL that can be delivered to.

    Raises:
        InvalidInput: It is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"the URL cannot be read: {error}") from error
    fits = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    if not fits or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("the URL is no HTTP address: write it like https://example.com/events")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("the URL holds a user or a fragment, which are not sent: leave them out")
    if len(url) > _MAX_URL_CHARACTERS:
        raise InvalidInput(f"the URL is longer than {_MAX_URL_CHARACTERS} characters")
    return parts.hostname or "", port or (443 if parts.scheme == "https" else 80)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet, and not to this machine or its networks.

    Addresses that stand for IPv4 ones (mapped, 6to4, NAT64, Teredo) are as public as those.
    """
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
