"""What the streams' consumers have not finished, counted for those who watch over it.

Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from pubsubflow.bus.streams import STREAMS, Requester
from pubsubflow.errors import BusUnavailable

MOST_CONSUMERS = 256
"""So many consumers of a stream are looked at: one page of JetStream's list."""

_ASK_SECONDS = 2.0
_Answer = TypeVar("_Answer")


class Backlog(msgspec.Struct, frozen=True):
    """What a consumer has not finished.

    Attributes:
        waiting: Messages that nobody has got yet.
        delivered: Messages that somebody has got and not acknowledged.
        oldest_seconds: Age of the oldest message that nobody has got yet; 0 for none.
    """

    stream: str
    consumer: str
    waiting: int
    delivered: int
    oldest_seconds: float


class _Place(msgspec.Struct):
    stream_seq: int = 0


class _Config(msgspec.Struct):
    filter_subject: str = ">"


class _Consumer(msgspec.Struct):
    name: str
    config: _Config
    delivered: _Place
    num_pending: int = 0
    num_ack_pending: int = 0


class _Consumers(msgspec.Struct):
    consumers: list[_Consumer] | None = None


class _Stored(msgspec.Struct):
    time: datetime | None = None


class _Found(msgspec.Struct):
    message: _Stored = msgspec.field(default_factory=_Stored)


async def read_backlogs(bus: Requester) -> list[Backlog]:
    """Return what every consumer of our streams has not finished.

    Raises:
        BusUnavailable: JetStream does not answer.
    """
    found = []
    for stream in STREAMS:
        listed = await _ask(bus, f"CONSUMER.LIST.{stream}", {"offset": 0}, _Consumers)
        for consumer in (listed.consumers or [])[:MOST_CONSUMERS]:
            seconds = await _oldest_seconds(bus, stream, consumer) if consumer.num_pending else 0.0
            found.append(
                Backlog(
                    stream, consumer.name, consumer.num_pending, consumer.num_ack_pending, seconds
                )
            )
    return found


async def _oldest_seconds(bus: Requester, stream: str, consumer: _Consumer) -> float:
    """Return the age of the first message after all that were delivered; 0 if it has just left."""
    body = {
        "seq": consumer.delivered.stream_seq + 1,
        "next_by_subj": consumer.config.filter_subject or ">",
    }
    found = await _ask(bus, f"STREAM.MSG.GET.{stream}", body, _Found)
    if found.message.time is None:
        return 0.0
    return max((datetime.now(UTC) - found.message.time).total_seconds(), 0.0)


async def _ask(bus: Requester, call: str, body: object, kind: type[_Answer]) -> _Answer:
    data = await bus.request(f"$JS.API.{call}", msgspec.json.encode(body), _ASK_SECONDS)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise BusUnavailable(f"JetStream answers {call} in a form of its own: {error}") from error
