"""How far those who consume a work queue are behind, as JetStream counts it.

A work queue deletes what is acknowledged, so what it holds is what nobody has finished, and its
last sequence less what it holds is how many were finished in all. Ages are by the server's clock.
Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from datetime import datetime

import msgspec

from pubsubflow.bus.streams import ApiAnswer, ApiRefusal, Requester, ask


class Lag(msgspec.Struct, frozen=True):
    """What a work queue holds.

    Attributes:
        pending: Messages that nobody has finished.
        finished: Messages that were finished since the stream was made.
        oldest_seconds: How long the first of those that nobody has got yet waits; 0 if all were
            handed out.
    """

    pending: int
    finished: int
    oldest_seconds: float


class _State(msgspec.Struct):
    messages: int = 0
    last_seq: int = 0


class _Stream(ApiAnswer):
    ts: datetime | None = None
    state: _State = msgspec.field(default_factory=_State)


class _Delivered(msgspec.Struct):
    stream_seq: int = 0


class _Consumer(ApiAnswer):
    num_pending: int = 0
    delivered: _Delivered = msgspec.field(default_factory=_Delivered)


class _Stored(msgspec.Struct):
    time: datetime


class _Message(ApiAnswer):
    message: _Stored | None = None


_NOTHING = Lag(0, 0, 0.0)


async def measure_lag(bus: Requester, stream: str, durable: str) -> Lag:
    """Ask JetStream how far behind a work queue's consumer is; nothing, if there is none.

    Raises:
        BusUnavailable: JetStream does not answer.
    """
    try:
        info = await ask(bus, f"STREAM.INFO.{stream}", None, _Stream)
    except ApiRefusal:
        return _NOTHING
    pending, finished = info.state.messages, info.state.last_seq - info.state.messages
    if not pending or info.ts is None:
        return Lag(pending, finished, 0.0)
    try:
        consumer = await ask(bus, f"CONSUMER.INFO.{stream}.{durable}", None, _Consumer)
        after = {"seq": consumer.delivered.stream_seq + 1, "next_by_subj": ">"}
        found = await ask(bus, f"STREAM.MSG.GET.{stream}", after, _Message)
    except ApiRefusal:
        return Lag(pending, finished, 0.0)  # there is no consumer, or somebody has got all by now
    if found.message is None:
        return Lag(pending, finished, 0.0)
    return Lag(pending, finished, max(0.0, (info.ts - found.message.time).total_seconds()))
