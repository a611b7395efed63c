"""What people and senders are told about webhooks."""

from datetime import datetime

from msgspec import Struct


class HookView(Struct, frozen=True, kw_only=True):
    """A webhook and what came through it since the daemon that answers has started.

    Attributes:
        verifier: Whom it believes, such as `github`.
        path: Where it is served.
        trouble: Why it can take nothing now, or which of its secrets are missing.
        received: All requests.
        accepted: Became events.
        duplicates: Had become events before.
        filtered: Were believed, and `when` was not true for them, or they only checked the address.
        dead: Were believed and could not become events: they are dead letters.
        refused: Were not believed, or could not be read.
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


class HookAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a request to a webhook.

    Attributes:
        status: `accepted`, `duplicate`, `filtered` or `pong`.
        event_id: The event that it became; of a duplicate, the first one's.
        reason: Why it was filtered.
        challenge: What the sender wants to hear.
    """

    status: str
    event_id: str | None = None
    reason: str | None = None
    challenge: str | None = None
