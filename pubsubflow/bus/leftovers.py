"""Leftovers: messages of a work queue that are acknowledged and still in it.

A server whose disk is full takes an acknowledgement and cannot remove the message. No consumer gets
it again, until one is made anew: that would get an order that was carried out long ago.
Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

import msgspec
import structlog

from pubsubflow.bus.streams import (
    STREAM_IN,
    STREAM_TASK,
    ApiError,
    ApiResponse,
    Requester,
    call_api,
)

log = structlog.get_logger(__name__)

WORK_QUEUES = (STREAM_IN, STREAM_TASK)


class _State(msgspec.Struct):
    messages: int = 0


class _Stream(ApiResponse):
    state: _State = msgspec.field(default_factory=_State)


class _Config(msgspec.Struct):
    filter_subject: str = ">"


class _Floor(msgspec.Struct):
    stream_seq: int = 0


class _Consumer(msgspec.Struct):
    config: _Config = msgspec.field(default_factory=_Config)
    ack_floor: _Floor = msgspec.field(default_factory=_Floor)
    num_pending: int = 0
    num_ack_pending: int = 0


class _Consumers(ApiResponse):
    total: int = 0
    consumers: list[_Consumer] | None = None


class _Purged(ApiResponse):
    purged: int = 0


async def remove_leftovers(bus: Requester) -> int:
    """Remove what is acknowledged from the work queues; return the number of messages removed.

    Raises:
        BusUnavailable: JetStream does not answer.
        ConfigError: JetStream refuses.
    """
    removed = 0
    for stream in WORK_QUEUES:
        try:
            removed += await _remove(bus, stream)
        except ApiError as error:
            raise error.translate(f"stream {stream}") from error
    if removed:
        log.warning("bus.leftovers_removed", messages=removed)
    return removed


async def _remove(bus: Requester, stream: str) -> int:
    found = (await call_api(bus, f"STREAM.INFO.{stream}", None, _Stream)).state.messages
    if not found:
        return 0
    listed = await call_api(bus, f"CONSUMER.LIST.{stream}", {"offset": 0}, _Consumers)
    consumers = listed.consumers or []
    waiting = sum(each.num_pending + each.num_ack_pending for each in consumers)
    if found <= waiting or listed.total > len(consumers):
        return 0
    removed = 0
    for consumer in consumers:
        # Consumers of a work queue share no message, and up to its floor all are acknowledged.
        purge = {
            "filter": consumer.config.filter_subject or ">",
            "seq": consumer.ack_floor.stream_seq + 1,
        }
        removed += (await call_api(bus, f"STREAM.PURGE.{stream}", purge, _Purged)).purged
    return removed
