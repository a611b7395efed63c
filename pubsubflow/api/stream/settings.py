"""What can be set about the live stream."""

from typing import Annotated

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0)]


class LiveSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the live stream is served.

    Attributes:
        history_hours: How far back one may resume.
        heartbeat_seconds: Pause after which a line is sent when there is no news.
        stall_seconds: A client that takes nothing for so long is cut off.
        retry_seconds: After how long a client that was cut off should come back.
        recent_bytes: News kept in memory for all clients; those who lag behind more are served
            from Postgres.
    """

    history_hours: Positive = 24.0
    heartbeat_seconds: Positive = 15.0
    stall_seconds: Positive = 20.0
    retry_seconds: Positive = 1.0
    recent_bytes: Annotated[int, Meta(ge=1)] = 4 * 1024 * 1024
