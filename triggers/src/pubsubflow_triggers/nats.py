"""Waiting for NATS: for messages, for a stream's messages, for a key."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal

import msgspec
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from pubsubflow.errors import DefinitionError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_url
from pubsubflow_triggers.content import content, says
from pubsubflow_triggers.nats_link import ERRORS, connected, later

_SCHEMES = ("nats", "tls", "ws", "wss")
_NO_NAME = frozenset(" .*>/\\\t\r\n")
_FORGET_SECONDS = 60.0
_ACK_SECONDS = 5.0


class NatsMessage(Trigger, frozen=True, kw_only=True):
    """Fires with each message of a subject.

    Core NATS keeps nothing: what is published while the trigger is not connected is lost. Where
    that matters, use JetStreamMessage.

    Attributes:
        url: `nats://host:4222`, with `user:password@` or `token@`; `env:NAME` or
            `connection:NAME`.
        subject: With `*` and `>` if you like.
        queue: Name of a queue group: each message then goes to one of its members.

    The payload is `{"subject", "data", "headers"}`: `data` is decoded if it is JSON.
    """

    url: str
    subject: str
    queue: str = ""

    def __post_init__(self) -> None:
        """Raise DefinitionError for what cannot be subscribed to."""
        check_url("NatsMessage", self.url, _SCHEMES)
        _check_subject("NatsMessage", self.subject)

    def share_key(self) -> str | None:
        """Let one connection listen for all; members of a queue group stay apart."""
        return None if self.queue else msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Subscribe, again when the connection is lost, and yield each message."""
        backoff = Backoff(ctx, "nats")
        while True:
            try:
                async with (
                    connected(ctx, self.url) as link,
                    link.subscribed(self.subject, self.queue) as ears,
                ):
                    ctx.log("nats.listening", subject=self.subject)
                    backoff.reached()
                    while True:
                        yield TriggerEvent(payload=_payload(await link.receive(ears)))
            except ERRORS as error:
                await later(backoff, error)


class JetStreamMessage(Trigger, frozen=True, kw_only=True):
    """Fires with each message of a JetStream stream.

    With a durable consumer, NATS keeps the place: each message goes to one of those who name the
    same durable, and is acknowledged once its event is stored. The consumer is made if it is not
    there. Without one, the trigger fires for messages since the wait began, or after the last
    event of the watched dataset.

    Attributes:
        url: `nats://host:4222`, with `user:password@` or `token@`; `env:NAME` or
            `connection:NAME`.
        stream: Its name.
        subject: Only these messages; all of the stream if left out.
        durable: Name of a durable pull consumer.
        deliver: Where a durable consumer that has to be made begins: with all that the stream
            holds, or with new messages.

    The payload is `{"subject", "data", "headers", "sequence", "time"}`: `data` is decoded if it is
    JSON. The id is the stream's name and the sequence.
    """

    url: str
    stream: str
    subject: str | None = None
    durable: str | None = None
    deliver: Literal["all", "new"] = "all"

    def __post_init__(self) -> None:
        """Raise DefinitionError for what cannot be consumed."""
        check_url("JetStreamMessage", self.url, _SCHEMES)
        _check_name("JetStreamMessage", "stream", self.stream)
        if self.subject is not None:
            _check_subject("JetStreamMessage", self.subject)
        if self.durable is not None:
            _check_name("JetStreamMessage", "durable", self.durable)
        if self.deliver not in {"all", "new"}:
            raise DefinitionError('JetStreamMessage: deliver must be "all" or "new"')

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Consume, again when the connection is lost, and yield each message."""
        position = ctx.position
        backoff = Backoff(ctx, "nats")
        while True:
            try:
                async with connected(ctx, self.url) as link:
                    consumer = await link.consumer(self.stream, self._config(ctx, position))
                    ctx.log("nats.consuming", stream=self.stream)
                    backoff.reached()
                    while True:
                        message = await link.pull(consumer)
                        position = message.metadata.sequence.stream
                        yield self._event(ctx, message, position)
            except ERRORS as error:
                await later(backoff, error)

    def _config(self, ctx: TriggerContext, position: int | None) -> ConsumerConfig:
        if self.durable is None:
            return _since(ctx, position, self.subject)
        return ConsumerConfig(
            durable_name=self.durable,
            filter_subject=self.subject,
            deliver_policy=DeliverPolicy(self.deliver),
            ack_policy=AckPolicy.EXPLICIT,
        )

    def _event(self, ctx: TriggerContext, message: Msg, sequence: int) -> TriggerEvent:
        time = message.metadata.timestamp
        return TriggerEvent(
            payload={**_payload(message), "sequence": sequence, "time": time.isoformat()},
            id=f"{self.stream}:{sequence}",
            time=time,
            position=sequence,
            acknowledge=partial(_acknowledge, ctx, message) if self.durable else None,
        )


class KvKey(Trigger, frozen=True, kw_only=True):
    """Fires when a key of a JetStream key-value bucket has a value, or with each change of it.

    Attributes:
        url: `nats://host:4222`, with `user:password@` or `token@`; `env:NAME` or
            `connection:NAME`.
        bucket: Its name.
        key: The key; `*` and `>` stand for parts of it.
        value: What it must be, as a JSON value: fires also if it is so already. None for any
            change since the wait began, deletion included.

    The payload is `{"bucket", "key", "value", "revision", "operation"}`: `value` is decoded if it
    is JSON, `operation` is `PUT`, `DEL` or `PURGE`. The id holds bucket, key and revision.
    """

    url: str
    bucket: str
    key: str
    value: Any = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for what is no bucket or key."""
        check_url("KvKey", self.url, _SCHEMES)
        _check_name("KvKey", "bucket", self.bucket)
        _check_subject("KvKey", self.key)

    def share_key(self) -> str:
        """Let one consumer watch for all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Watch, again when the connection is lost, and yield what the key becomes."""
        position = ctx.position
        backoff = Backoff(ctx, "nats")
        while True:
            try:
                async with connected(ctx, self.url) as link:
                    config = self._config(ctx, position)
                    consumer = await link.consumer(f"KV_{self.bucket}", config)
                    ctx.log("nats.consuming", bucket=self.bucket, key=self.key)
                    backoff.reached()
                    while True:
                        message = await link.pull(consumer)
                        position = message.metadata.sequence.stream
                        if self.value is None or _put(message, self.value):
                            yield self._event(message, position)
            except ERRORS as error:
                await later(backoff, error)

    def _config(self, ctx: TriggerContext, position: int | None) -> ConsumerConfig:
        config = _since(ctx, position, f"$KV.{self.bucket}.{self.key}")
        if self.value is None or position is not None:
            return config
        return config.evolve(
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, opt_start_time=None, opt_start_seq=None
        )

    def _event(self, message: Msg, revision: int) -> TriggerEvent:
        key = message.subject.removeprefix(f"$KV.{self.bucket}.")
        operation = _operation(message)
        value = content(message.data) if operation == "PUT" else None
        return TriggerEvent(
            payload={
                "bucket": self.bucket,
                "key": key,
                "value": value,
                "revision": revision,
                "operation": operation,
            },
            id=f"{self.bucket}/{key}:{revision}",
            time=message.metadata.timestamp,
            position=revision,
        )


def _check_name(trigger: str, field: str, name: str) -> None:
    if not name or not _NO_NAME.isdisjoint(name):
        raise DefinitionError(f"{trigger}: {field} {name!r} is no name that NATS takes")


def _check_subject(trigger: str, subject: str) -> None:
    check_filled(trigger, "subject", subject)
    if any(character.isspace() for character in subject) or not all(subject.split(".")):
        raise DefinitionError(f"{trigger}: {subject!r} is no subject that NATS takes")


def _since(ctx: TriggerContext, position: int | None, subject: str | None) -> ConsumerConfig:
    """Return a consumer that NATS forgets, for what came after a sequence, or since the start."""
    config = ConsumerConfig(
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_FORGET_SECONDS,
        mem_storage=True,
    )
    if position is None:
        return config.evolve(
            deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=ctx.started_at
        )
    return config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=position + 1)


def _payload(message: Msg) -> dict[str, Any]:
    return {
        "subject": message.subject,
        "data": content(message.data),
        "headers": dict(message.headers or {}),
    }


def _operation(message: Msg) -> str:
    headers = message.headers or {}
    operation = headers.get("KV-Operation")
    if operation is None and headers.get("Nats-Marker-Reason"):
        return "DEL" if headers["Nats-Marker-Reason"] == "Remove" else "PURGE"
    return operation or "PUT"


def _put(message: Msg, value: Any) -> bool:
    return _operation(message) == "PUT" and says(message.data, value)


async def _acknowledge(ctx: TriggerContext, message: Msg) -> None:
    try:
        await message.ack_sync(timeout=_ACK_SECONDS)
    except ERRORS as error:  # it comes again, under the same id
        ctx.log("nats.not_acknowledged", subject=message.subject, error=str(error))
