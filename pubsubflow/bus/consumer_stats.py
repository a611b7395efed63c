"""Consumer statistics: how far the consumers of the streams are behind, as JetStream counts it.

A work queue deletes acknowledged messages, so its last sequence less its size is the number of
messages acknowledged so far. All ages are by the server's clock.
Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from datetime import datetime

import msgspec

from pubsubflow.bus.streams import (
    CONSUMER_NOT_FOUND,
    STREAM_NOT_FOUND,
    STREAMS,
    ApiError,
    ApiResponse,
    Requester,
    call_api,
)

_MAX_CONSUMERS = 256
"""Consumers of a stream that are read: one page of JetStream's list."""


class ConsumerStats(msgspec.Struct, frozen=True):
    """The statistics of one consumer.

    Attributes:
        waiting: Messages that are not delivered yet.
        unacknowledged: Messages that are delivered and not acknowledged.
        acknowledged: Of a work queue: messages acknowledged since the stream was created.
        oldest_seconds: Age of the oldest waiting message; 0 if none waits.
    """

    stream: str
    consumer: str
    waiting: int = 0
    unacknowledged: int = 0
    acknowledged: int = 0
    oldest_seconds: float = 0.0

    @property
    def pending(self) -> int:
        """The number of messages that are not acknowledged, delivered or not."""
        return self.waiting + self.unacknowledged


class _State(msgspec.Struct):
    messages: int = 0
    last_seq: int = 0


class _Stream(ApiResponse):
    ts: datetime | None = None
    state: _State = msgspec.field(default_factory=_State)


class _Config(msgspec.Struct):
    filter_subject: str = ">"


class _Delivered(msgspec.Struct):
    stream_seq: int = 0


class _Consumer(ApiResponse):
    name: str = ""
    config: _Config = msgspec.field(default_factory=_Config)
    delivered: _Delivered = msgspec.field(default_factory=_Delivered)
    num_pending: int = 0
    num_ack_pending: int = 0


class _Consumers(ApiResponse):
    consumers: list[_Consumer] | None = None


class _Stored(msgspec.Struct):
    time: datetime


class _Message(ApiResponse):
    message: _Stored | None = None


async def read_consumer_stats(bus: Requester, stream: str, durable: str) -> ConsumerStats:
    """Return the statistics of a consumer.

    Without the stream all numbers are 0. Without the consumer every message of the stream waits.

    Raises:
        BusUnavailable: JetStream does not answer.
        ConfigError: JetStream refuses.
    """
    try:
        info = await call_api(bus, f"STREAM.INFO.{stream}", None, _Stream)
        if not info.state.messages:
            return ConsumerStats(stream, durable, acknowledged=info.state.last_seq)
        try:
            call = f"CONSUMER.INFO.{stream}.{durable}"
            consumer = await call_api(bus, call, None, _Consumer)
        except ApiError as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                raise
            consumer = _Consumer(name=durable, num_pending=info.state.messages)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return ConsumerStats(stream, durable)
        raise error.translate(f"the state of consumer {durable} of {stream}") from error
    return await _stats(bus, stream, info, consumer)


async def list_consumer_stats(bus: Requester) -> list[ConsumerStats]:
    """Return the statistics of all consumers of the streams.

    Raises:
        BusUnavailable: JetStream does not answer.
        ConfigError: JetStream refuses.
    """
    found = []
    for stream in STREAMS:
        try:
            info = await call_api(bus, f"STREAM.INFO.{stream}", None, _Stream)
            listed = await call_api(bus, f"CONSUMER.LIST.{stream}", {"offset": 0}, _Consumers)
        except ApiError as error:
            raise error.translate(f"the state of stream {stream}") from error
        consumers = (listed.consumers or [])[:_MAX_CONSUMERS]
        found += [await _stats(bus, stream, info, consumer) for consumer in consumers]
    return found


async def _stats(bus: Requester, stream: str, info: _Stream, consumer: _Consumer) -> ConsumerStats:
    return ConsumerStats(
        stream,
        consumer.name,
        waiting=consumer.num_pending,
        unacknowledged=consumer.num_ack_pending,
        acknowledged=info.state.last_seq - info.state.messages,
        oldest_seconds=await _oldest_seconds(bus, stream, info, consumer),
    )


async def _oldest_seconds(bus: Requester, stream: str, info: _Stream, consumer: _Consumer) -> float:
    """Return the age of the first message after all that were delivered."""
    if not consumer.num_pending or info.ts is None:
        return 0.0
    body = {
        "seq": consumer.delivered.stream_seq + 1,
        "next_by_subj": consumer.config.filter_subject or ">",
    }
    try:
        found = await call_api(bus, f"STREAM.MSG.GET.{stream}", body, _Message)
    except ApiError:
        return 0.0  # it was delivered and acknowledged in the meantime
    if found.message is None:
        return 0.0
    return max(0.0, (info.ts - found.message.time).total_seconds())
