"""Settings of the deliveries to subscribers: the configuration's section `subscriptions`."""

from typing import Annotated

from msgspec import Meta, Struct

from pubsubflow.model.ranges import BytesOrNone, Count, Seconds, SecondsOrNone

_MINUTE = 60.0
_HOUR = 3600.0


class DeliverySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How events are delivered to subscribers.

    Attributes:
        allow_private: Whether a URL may lead to this machine or its networks. When left out, only
            if this daemon itself serves the API, on loopback alone, and no token was ever made.
        retry_seconds: The pauses before each further attempt; as Standard Webhooks proposes.
        jitter: By which part a pause may be longer.
        timeout_seconds: How long a receiver may take to answer.
        parallel: How many events an unordered subscriber gets side by side.
        max_waiting: How many deliveries of an unordered subscriber may wait for another attempt
            before it gets no further events.
        max_connections: How many requests may be under way in all.
        max_answer_bytes: How much of an answer is read.
        sweep_seconds: How often the log is read although no message announced an event.
        silent_seconds: After how long without a renewal of the lease another daemon takes over.
        drain_seconds: How long requests may take to end when the daemon stops.
    """

    allow_private: bool | None = None
    retry_seconds: tuple[SecondsOrNone, ...] = (
        5.0,
        5 * _MINUTE,
        30 * _MINUTE,
        2 * _HOUR,
        5 * _HOUR,
        10 * _HOUR,
        14 * _HOUR,
        20 * _HOUR,
        24 * _HOUR,
    )
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.2
    timeout_seconds: Seconds = 15.0
    parallel: Count = 8
    max_waiting: Count = 1000
    max_connections: Count = 256
    max_answer_bytes: BytesOrNone = 4096
    sweep_seconds: Seconds = 5.0
    silent_seconds: Annotated[float, Meta(ge=1, le=3600)] = 6.0
    drain_seconds: Seconds = 3.0
