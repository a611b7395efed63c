"""JSON types of webhooks, and of the responses to their senders."""

from datetime import datetime

from msgspec import Struct


class WebhookView(Struct, frozen=True, kw_only=True):
    """A webhook, and the number of its requests by outcome since the serving daemon started.

    Attributes:
        verifier: Kind of its verifier, such as `github`.
        path: Path of its URL.
        trouble: Why it cannot verify requests now, or which of its secrets are missing.
        received: All requests.
        accepted: Requests that became events.
        duplicates: Requests that repeated an earlier event.
        filtered: Verified requests for which `when` was not true, or that only checked the address.
        dead: Verified requests that could not become events, and are dead letters.
        refused: Requests that were not verified, or could not be read.
        last_refusal: Why the last of these was refused.
    """

    name: str
    dataset: str
    verifier: str
    file: str
    path: str
    when: str | None = None
    trouble: str | None = None
    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    filtered: int = 0
    dead: int = 0
    refused: int = 0
    last_received_at: datetime | None = None
    last_refused_at: datetime | None = None
    last_refusal: str | None = None


class WebhookReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The response to a request to a webhook.

    Attributes:
        status: `accepted`, `duplicate`, `filtered`, or `pong` for a check of the address.
        event_id: The event that it became; of a duplicate, the first one.
        reason: Why it was filtered.
        challenge: The challenge of a check of the address, which the sender expects back.
    """

    status: str
    event_id: str | None = None
    reason: str | None = None
    challenge: str | None = None
