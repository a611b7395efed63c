"""NATS triggers: wait for messages of a subject or a stream, or for a key."""

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
from pubsubflow_triggers.content import content, content_equals
from pubsubflow_triggers.nats_connection import ERRORS, connected, wait_or_fail

_SCHEMES = ("nats", "tls", "ws", "wss")
_FORBIDDEN_IN_NAMES = frozenset(" .*>/\\\t\r\n")
_INACTIVE_SECONDS = 60.0
_ACK_SECONDS = 5.0


class NatsMessage(Trigger, frozen=True, kw_only=True):
    """Fires with each message of a subject.

    Core NATS stores nothing: messages published while the trigger is not connected are lost. Use
    JetStreamMessage where that matters.

    Attributes:
        url: `nats://host:4222`, with `user:password@` or `token@`; `env:NAME` or
            `connection:NAME`.
        subject: The subject; `*` and `>` are wildcards.
        queue: Name of a queue group: each message then goes to one of its members.

    The payload is `{"subject", "data", "headers"}`: `data` is decoded if it is JSON.
    """

    url: str
    subject: str
    queue: str = ""

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid URL or subject."""
        check_url("NatsMessage", self.url, _SCHEMES)
        _check_subject("NatsMessage", self.subject)

    def share_key(self) -> str | None:
        """Share one connection among all; members of a queue group stay apart."""
        return None if self.queue else msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Subscribe, again when the connection is lost, and yield each message."""
        backoff = Backoff(ctx, "nats")
        while True:
            try:
                async with (
                    connected(ctx, self.url) as connection,
                    connection.subscribed(self.subject, self.queue) as messages,
                ):
                    ctx.log("nats.listening", subject=self.subject)
                    backoff.reached()
                    while True:
                        yield TriggerEvent(payload=_payload(await connection.receive(messages)))
            except ERRORS as error:
                await wait_or_fail(backoff, error)


class JetStreamMessage(Trigger, frozen=True, kw_only=True):
    """Fires with each message of a JetStream stream.

    With a durable consumer, NATS stores the position: each message goes to one of the triggers with
    the same durable, and is acknowledged once its event is stored. The consumer is created if it
    does not exist. Without one, the trigger fires for messages since the start of the wait, or
    after the last event of the watched dataset.

    Attributes:
        url: `nats://host:4222`, with `user:password@` or `token@`; `env:NAME` or
            `connection:NAME`.
        stream: Its name.
        subject: A filter; all messages of the stream if left out.
        durable: Name of a durable pull consumer.
        deliver: The start of a durable consumer that is created: `all` messages of the stream, or
            only `new` ones.

    The payload is `{"subject", "data", "headers", "sequence", "time"}`: `data` is decoded if it is
    JSON. The id is the stream's name and the sequence.
    """

    url: str
    stream: str
    subject: str | None = None
    durable: str | None = None
    deliver: Literal["all", "new"] = "all"

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid stream, subject or durable."""
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
                async with connected(ctx, self.url) as connection:
                    consumer = await connection.consumer(self.stream, self._config(ctx, position))
                    ctx.log("nats.consuming", stream=self.stream)
                    backoff.reached()
                    while True:
                        message = await connection.pull(consumer)
                        position = message.metadata.sequence.stream
                        yield self._event(ctx, message, position)
            except ERRORS as error:
                await wait_or_fail(backoff, error)

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
        key: The key; `*` and `>` are wildcards.
        value: The JSON value that it must have: fires also if it has that already. None for any
            change since the start of the wait, including deletion.

    The payload is `{"bucket", "key", "value", "revision", "operation"}`: `value` is decoded if it
    is JSON, `operation` is `PUT`, `DEL` or `PURGE`. The id holds bucket, key and revision.
    """

    url: str
    bucket: str
    key: str
    value: Any = None

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid bucket or key."""
        check_url("KvKey", self.url, _SCHEMES)
        _check_name("KvKey", "bucket", self.bucket)
        _check_subject("KvKey", self.key)

    def share_key(self) -> str:
        """Share one consumer among all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Watch, again when the connection is lost, and yield the changes of the key."""
        position = ctx.position
        backoff = Backoff(ctx, "nats")
        while True:
            try:
                async with connected(ctx, self.url) as connection:
                    config = self._config(ctx, position)
                    consumer = await connection.consumer(f"KV_{self.bucket}", config)
                    ctx.log("nats.consuming", bucket=self.bucket, key=self.key)
                    backoff.reached()
                    while True:
                        message = await connection.pull(consumer)
                        position = message.metadata.sequence.stream
                        if self.value is None or _put(message, self.value):
                            yield self._event(message, position)
            except ERRORS as error:
                await wait_or_fail(backoff, error)

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
    if not name or not _FORBIDDEN_IN_NAMES.isdisjoint(name):
        raise DefinitionError(f"{trigger}: {field} {name!r} is not a valid NATS name")


def _check_subject(trigger: str, subject: str) -> None:
    check_filled(trigger, "subject", subject)
    if any(character.isspace() for character in subject) or not all(subject.split(".")):
        raise DefinitionError(f"{trigger}: {subject!r} is not a valid NATS subject")


def _since(ctx: TriggerContext, position: int | None, subject: str | None) -> ConsumerConfig:
    """Return an ephemeral consumer, from after a sequence or from the start of the wait."""
    config = ConsumerConfig(
        filter_subject=subject,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_INACTIVE_SECONDS,
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
    return _operation(message) == "PUT" and content_equals(message.data, value)


async def _acknowledge(ctx: TriggerContext, message: Msg) -> None:
    try:
        await message.ack_sync(timeout=_ACK_SECONDS)
    except ERRORS as error:
        # The message is delivered again, under the same id.
        ctx.log("nats.not_acknowledged", subject=message.subject, error=str(error))
