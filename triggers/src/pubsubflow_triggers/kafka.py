"""Kafka trigger: waits for messages of a topic."""

from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from aiokafka import ConsumerRecord

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.cel.expressions import compile_expression
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_url
from pubsubflow_triggers.content import content
from pubsubflow_triggers.kafka_reader import (
    ERRORS,
    Places,
    Reader,
    ReadOptions,
    reading,
    wait_or_fail,
)

Form = Literal["auto", "json", "text", "bytes"]

_FORMS = ("auto", "json", "text", "bytes")
_SCHEMES = ("kafka",)
_MOST = 10_000
_MAX_BATCH_BYTES = 200 * 1024
# A message goes through NATS, whose limit is 1 MiB by default; bytes become base64.
_LARGEST_BYTES = 700_000
_FAILS = (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError)


class KafkaMessage(Trigger, frozen=True, kw_only=True):
    """Fires with each message of a topic.

    A watched dataset stores the place of each partition with its events, so each message becomes
    one event, whatever dies meanwhile. With a group, Kafka has the places too: they outlast a
    change of these fields, members of the group share the partitions, and tools show the lag.
    Without either, it fires for messages since the wait began. Messages of aborted transactions are
    left out.

    Attributes:
        url: `kafka://host:9092`; `env:NAME`, or `connection:NAME` for one with credentials.
        topic: Its name.
        group: A consumer group: each message goes to one of the members, and is committed once its
            event is stored.
        deliver: Where reading begins while no place is stored: at `all` messages of the topic, or
            at the `new` ones, since the wait began.
        where: CEL over the names of the payload, such as `value.rows > 0 && key != "test"`: only
            messages for which it is true fire. One that fails, as for a missing field, is false.
        partition: CEL likewise, for the partition of the event: `key`, `value.day`,
            `string(partition)`.
        value: How values are read: `auto` is JSON, or text, or bytes as `{"base64": …}`; `json`,
            `text` and `bytes` demand it.
        key: How keys are read, likewise; `auto` is text, or bytes as `{"base64": …}`.
        invalid: What to do with a message that cannot be read so, or whose `partition` fails:
            `dead-letter` keeps it as one of the watched dataset and goes on (a task that waits goes
            on without), `fail` with an error that names it, `skip` it with a line in the log.
        lost: What to do when messages that were not read are gone, since the topic does not keep
            them so long or was made anew: `continue` with the first ones, or `fail`.
        batch: How many messages of one Kafka partition one event may have.
        linger: How long to wait for a batch to fill, once there is a message.

    The payload is `{"topic", "partition", "offset", "time", "key", "value", "headers"}`; a header
    that stands there several times is a list. Of a batch it is `{"topic", "partition",
    "messages"}`, with the other fields in each. The id is `topic/partition/offset`.
    """

    url: str
    topic: str
    group: str | None = None
    deliver: Literal["all", "new"] = "new"
    where: str | None = None
    partition: str | None = None
    value: Form = "auto"
    key: Form = "auto"
    invalid: Literal["dead-letter", "fail", "skip"] = "dead-letter"
    lost: Literal["continue", "fail"] = "continue"
    batch: int = 1
    linger: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid field."""
        check_url("KafkaMessage", self.url, _SCHEMES)
        check_filled("KafkaMessage", "topic", self.topic)
        if self.group == "":
            raise DefinitionError("KafkaMessage: group is empty: leave it out")
        for name, known in (
            *(("deliver", ("all", "new")), ("invalid", ("dead-letter", "fail", "skip"))),
            *(("lost", ("continue", "fail")), ("value", _FORMS), ("key", _FORMS)),
        ):
            if getattr(self, name) not in known:
                raise DefinitionError(f"KafkaMessage: {name} is one of {', '.join(known)}")
        if isinstance(self.batch, bool) or not 1 <= self.batch <= _MOST:
            raise DefinitionError(f"KafkaMessage: batch is from 1 to {_MOST}, not {self.batch}")
        if not timedelta(0) <= self.linger <= timedelta(minutes=5):
            raise DefinitionError("KafkaMessage: linger is from 0 to 5 minutes")
        for text in (self.where, self.partition):
            if text is not None:
                compile_expression(text)

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Read, again when no broker answers, and yield the messages."""
        places = Places(ctx.position)
        start = ReadOptions(self.topic, self.group, self.deliver, ctx.started_at, self.lost)
        backoff = Backoff(ctx, "kafka")
        while True:
            try:
                async with reading(ctx, self.url, start, places) as reader:
                    ctx.log("kafka.reading", topic=self.topic)
                    backoff.reached()
                    while True:
                        records = await reader.read(self.batch, self.linger.total_seconds())
                        event = self._next(ctx, reader, places, records)
                        if event is not None:
                            yield event
            except ERRORS as error:
                await wait_or_fail(backoff, error)

    def _next(
        self, ctx: TriggerContext, reader: Reader, places: Places, records: list[ConsumerRecord]
    ) -> TriggerEvent | None:
        """Return the event of the first of some messages, and move on to after these."""
        taken: list[tuple[ConsumerRecord, dict[str, Any], str | None]] = []
        size = 0
        for record in records:
            size += len(record.key or b"") + len(record.value or b"")
            if taken and size > _MAX_BATCH_BYTES:
                break
            try:
                found = self._read(ctx, record)
            except (TriggerError, _InvalidMessageError) as error:
                if taken:
                    break  # it comes in front of the next event
                if isinstance(error, TriggerError):
                    raise
                reader.read_to(record)
                return self._rejected(reader, places, record, str(error))
            if found is not None:
                if taken and found[1] != taken[0][2]:
                    break
                taken.append((record, *found))
            reader.read_to(record)
        if not taken:
            return None
        return self._event(reader, places, taken)

    def _event(
        self,
        reader: Reader,
        places: Places,
        taken: list[tuple[ConsumerRecord, dict[str, Any], str | None]],
    ) -> TriggerEvent:
        first, last = taken[0][0], taken[-1][0]
        payload = taken[0][1]
        offsets = str(first.offset)
        if self.batch > 1:
            shared = {"topic": payload["topic"], "partition": payload["partition"]}
            messages = [
                {name: each for name, each in found.items() if name not in shared}
                for _, found, _ in taken
            ]
            payload = {**shared, "messages": messages}
            offsets = f"{first.offset}-{last.offset}"
        again = f"@{places.generation}" if places.generation else ""
        return TriggerEvent(
            payload=payload,
            id=f"{self.topic}/{first.partition}/{offsets}{again}",
            partition=taken[0][2],
            time=_time(last),
            position=places.value,
            acknowledge=reader.commit if self.group is not None else None,
        )

    def _rejected(
        self, reader: Reader, places: Places, record: ConsumerRecord, reason: str
    ) -> TriggerEvent:
        """Return a message that cannot be read, as it came, with its place."""
        name = f"{record.topic}/{record.partition}/{record.offset}"
        small = len(record.key or b"") + len(record.value or b"") <= _LARGEST_BYTES
        time = _time(record)
        return TriggerEvent(
            payload={
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "time": None if time is None else time.isoformat(),
                "key": _raw(record.key) if small else None,
                "value": _raw(record.value) if small else None,
            },
            id=f"{name}@{places.generation}" if places.generation else name,
            time=time,
            position=places.value,
            acknowledge=reader.commit if self.group is not None else None,
            rejected=f"Kafka message {name}: {reason}",
        )

    def _read(
        self, ctx: TriggerContext, record: ConsumerRecord
    ) -> tuple[dict[str, Any], str | None] | None:
        """Return a message's payload and the event's partition; None if it does not fire.

        Raises:
            TriggerError: It is invalid, and fails the wait or the watch.
            _InvalidMessageError: It is invalid, and becomes a dead letter.
        """
        name = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            size = len(record.key or b"") + len(record.value or b"")
            if size > _LARGEST_BYTES:
                raise ValueError(f"it has {size} bytes, more than {_LARGEST_BYTES}")  # noqa: TRY301
            payload = self._payload(record)
            if self.where is not None and not _holds(self.where, payload):
                return None
            return payload, None if self.partition is None else _partition(self.partition, payload)
        except ValueError as error:
            if self.invalid == "dead-letter":
                raise _InvalidMessageError(str(error)) from error
            if self.invalid == "fail":
                raise TriggerError(
                    f'Kafka: message {name}: {error}; write invalid="skip" to go on without it'
                ) from error
            ctx.log("kafka.message_skipped", message=name, error=str(error))
            return None

    def _payload(self, record: ConsumerRecord) -> dict[str, Any]:
        headers: dict[str, Any] = {}
        repeated: set[str] = set()
        for name, data in record.headers:
            found = None if data is None else _text_or_bytes(data)
            if name not in headers:
                headers[name] = found
                continue
            headers[name] = [*(headers[name] if name in repeated else [headers[name]]), found]
            repeated.add(name)
        time = _time(record)
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "time": None if time is None else time.isoformat(),
            "key": _decoded("key", self.key, record.key),
            "value": _decoded("value", self.value, record.value),
            "headers": headers,
        }


class _InvalidMessageError(Exception):
    """A message cannot be read."""


def _raw(data: bytes | None) -> Any:
    return None if data is None else _text_or_bytes(data)


def _time(record: ConsumerRecord) -> datetime | None:
    return None if record.timestamp < 0 else datetime.fromtimestamp(record.timestamp / 1000, UTC)


def _decoded(field: str, form: Form, data: bytes | None) -> Any:
    """Return a key or value.

    Raises:
        ValueError: It is not of the form; the text does not repeat it.
    """
    if data is None:
        return None
    match form:
        case "auto":
            return _text_or_bytes(data) if field == "key" else content(data)
        case "bytes":
            return b64encode(data).decode()
        case "text":
            try:
                return data.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"its {field} is not UTF-8, at byte {error.start}") from None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"its {field} is not JSON") from None


def _text_or_bytes(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _holds(text: str, payload: dict[str, Any]) -> bool:
    try:
        return compile_expression(text).execute(payload) is True
    except _FAILS:
        return False


def _partition(text: str, payload: dict[str, Any]) -> str | None:
    """Return the partition of a message's event.

    Raises:
        ValueError: The expression fails, or is not a text or a number.
    """
    try:
        found = compile_expression(text).execute(payload)
    except _FAILS as error:
        raise ValueError(f"partition {text!r} fails: {type(error).__name__}: {error}") from None
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise ValueError(f"partition {text!r} is neither a text nor a number")  # noqa: TRY004
    return str(found)
