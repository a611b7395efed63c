"""Settings of the live stream: the configuration's section `live`."""

from msgspec import Struct

from pubsubflow.model.ranges import Bytes, Hours, Seconds


class StreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the live stream is served.

    Attributes:
        history_hours: How far back a client may resume.
        heartbeat_seconds: Interval of heartbeats while there is nothing to send.
        stall_seconds: A client that does not read for so long is disconnected.
        retry_seconds: After how long a disconnected client should connect again.
        recent_bytes: Size of the changes kept in memory for all clients; clients that are further
            behind are served from Postgres.
    """

    history_hours: Hours = 24.0
    heartbeat_seconds: Seconds = 15.0
    stall_seconds: Seconds = 20.0
    retry_seconds: Seconds = 1.0
    recent_bytes: Bytes = 4 * 1024 * 1024
