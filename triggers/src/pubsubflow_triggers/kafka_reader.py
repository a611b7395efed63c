"""Kafka consumers of triggers: where each partition is read on, and what is read next."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from time import monotonic
from typing import Any, Literal

import anyio
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka import errors as kafka
from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput, TriggerError
from pubsubflow.hooks.kafka import kafka_options, why_unreachable
from pubsubflow.model.connections import Connection, make_connection, read_reference
from pubsubflow.model.triggers import TriggerContext
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.credentials import resolve_url

ERRORS = (kafka.KafkaError, OSError, TimeoutError)
_FINAL = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.GroupAuthorizationFailedError,
    kafka.InvalidGroupIdError,
    kafka.InvalidTopicError,
    kafka.RecordTooLargeError,
    kafka.SaslAuthenticationFailed,
    kafka.TopicAuthorizationFailedError,
    kafka.UnsupportedCodecError,
    kafka.UnsupportedSaslMechanismError,
    ssl.SSLCertVerificationError,
)
_IDLE_SECONDS = 20.0
_REQUEST_MILLISECONDS = 10_000
_METADATA_MILLISECONDS = 60_000
_FETCH_BYTES = 4 * 2**20
_CLOSE_SECONDS = 5.0
_JOIN_SECONDS = 60.0
# A new leader may not know at once how far its partition goes.
_CONFIRMATIONS = 3
_CONFIRM_SECONDS = 1.0


class Places:
    """The next offset of each partition, as it is stored with the events of a watch.

    Args:
        stored: `value` of an earlier one; None at the first start.

    Attributes:
        offsets: Partition → the offset of the message after the last one that was read.
        generation: How often offsets began anew, since the topic was made anew or lost its end.
    """

    def __init__(self, stored: Any) -> None:
        found = stored or {}
        self.offsets = {int(key): int(offset) for key, offset in found.get("offsets", {}).items()}
        self.generation = int(found.get("generation", 0))

    @property
    def value(self) -> dict[str, Any]:
        """It as a JSON value."""
        found: dict[str, Any] = {"offsets": {str(key): each for key, each in self.offsets.items()}}
        return found | ({"generation": self.generation} if self.generation else {})


class ReadOptions(Struct, frozen=True):
    """Where a topic is read from, as far as no place is known.

    Attributes:
        topic: Its name.
        group: The consumer group, if any.
        deliver: All messages of the topic, or those since the wait began.
        since: When the wait began.
        lost: What follows when messages that were not read are gone.
    """

    topic: str
    group: str | None
    deliver: Literal["all", "new"]
    since: datetime
    lost: Literal["continue", "fail"]


class Reader:
    """Reads a topic from the places on, partition by partition.

    Args:
        ctx: The context of the trigger.
        consumer: Started, and subscribed to the topic.
        start: Where to begin.
        places: What was read; it moves on with `read_to`.
    """

    def __init__(
        self, ctx: TriggerContext, consumer: AIOKafkaConsumer, start: ReadOptions, places: Places
    ) -> None:
        self._ctx = ctx
        self._consumer = consumer
        self._start = start
        self._places = places
        self._placed: frozenset[TopicPartition] = frozenset()
        self._pending: deque[ConsumerRecord] = deque()
        self._committed: dict[int, int] = {}

    async def place(self) -> None:
        """Seek each assigned partition to its place."""
        assigned = frozenset(self._consumer.assignment())
        self._pending.clear()
        starts = await self._starts(assigned) if assigned else {}
        for partition, offset in starts.items():
            if partition in self._consumer.assignment():
                self._consumer.seek(partition, offset)
        self._places.offsets |= {each.partition: offset for each, offset in starts.items()}
        self._placed = assigned

    async def _starts(self, assigned: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        first = await self._consumer.beginning_offsets(list(assigned))
        last = await self._consumer.end_offsets(list(assigned))
        known = await self._known(assigned)
        unknown = [each for each in assigned if each not in known]
        found = dict(known)
        if unknown and (self._start.deliver == "all" or (known and self._start.group is None)):
            # Partitions that were added since have nothing from before the wait.
            found |= {each: first[each] for each in unknown}
        elif unknown:
            since = int(self._start.since.timestamp() * 1000)
            times = await self._consumer.offsets_for_times(dict.fromkeys(unknown, since))
            for each in unknown:
                at = times[each]
                # Some brokers give an offset without a time where there is no such message.
                found[each] = last[each] if at is None or at.timestamp < 0 else at.offset
        if unknown and self._start.group is not None:
            # The group begins here, whichever of its members comes to read it.
            await self._consumer.commit({each: found[each] for each in unknown})
        for each, offset in known.items():
            found[each] = await self._checked(each, offset, first[each], last[each])
        begun_anew = {each: at for each, at in found.items() if at < known.get(each, 0)}
        if begun_anew and self._start.group is not None:
            # Or the next one would take the group's old place for one that is gone once more.
            await self._consumer.commit(begun_anew)
        return found

    async def _known(self, assigned: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        found = {}
        for each in assigned:
            offset = self._places.offsets.get(each.partition)
            if self._start.group is not None:
                # What the group has committed may be older than what is recorded here, and newer
                # where another member has read on.
                committed = await self._consumer.committed(each)
                offset = max((x for x in (offset, committed) if x is not None), default=None)
            if offset is not None:
                found[each] = offset
        return found

    async def _checked(self, where: TopicPartition, offset: int, first: int, last: int) -> int:
        """Return the offset, or the first one if messages are gone.

        Raises:
            TriggerError: They are, and it is to fail then.
        """
        name = f"{where.topic}/{where.partition}"
        for _ in range(_CONFIRMATIONS):
            if offset <= last:
                break
            await self._ctx.sleep(_CONFIRM_SECONDS)
            last = (await self._consumer.end_offsets([where]))[where]
        if offset > last:
            self._lost(f"{name} ends at {last}, before {offset}: was the topic made anew?")
            self._places.generation += 1
            self._ctx.log("kafka.topic_made_anew", partition=name, read_to=offset, end=last)
            return first
        if offset < first:
            self._lost(f"{first - offset} messages of {name} are gone that were not read")
            self._ctx.log("kafka.messages_lost", partition=name, offset=offset, first=first)
            return first
        return offset

    def _lost(self, text: str) -> None:
        if self._start.lost == "fail":
            raise TriggerError(f'Kafka: {text} Write lost="continue" to go on')

    async def read(self, most: int, linger_seconds: float) -> list[ConsumerRecord]:
        """Return the next messages, all of one partition; none if it was idle.

        Args:
            most: How many at most.
            linger_seconds: How long to wait for more than one.
        """
        while True:
            try:
                if self._consumer.assignment() != self._placed:
                    await self.place()
                await self._fill(most, linger_seconds)
            except (kafka.NoOffsetForPartitionError, kafka.OffsetOutOfRangeError):
                await self.place()
                continue
            if not self._pending:
                await self._on_idle()
                return []
            where = self._pending[0].partition
            if TopicPartition(self._start.topic, where) in self._consumer.assignment():
                return [each for each in self._pending if each.partition == where][:most]

    async def _fill(self, most: int, linger_seconds: float) -> None:
        if not self._pending:
            self._take(await self._fetched(_IDLE_SECONDS, most))
        last = monotonic() + linger_seconds
        while self._pending and (left := last - monotonic()) > 0:
            # The others wait at the broker meanwhile.
            where = TopicPartition(self._start.topic, self._pending[0].partition)
            lacking = most - sum(each.partition == where.partition for each in self._pending)
            if lacking <= 0 or where not in self._consumer.assignment():
                break
            self._take(await self._fetched(left, lacking, where))

    async def _fetched(
        self, seconds: float, most: int, *where: TopicPartition
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        # The client itself waits without an end while its group is rebalanced.
        with anyio.move_on_after(seconds + _CLOSE_SECONDS):
            wait = max(1, int(1000 * seconds))
            found: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(
                *where, timeout_ms=wait, max_records=most
            )
            return found
        return {}

    def _take(self, records: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        for found in records.values():
            self._pending.extend(
                each for each in found if each.offset >= self._places.offsets.get(each.partition, 0)
            )

    def read_to(self, record: ConsumerRecord) -> None:
        """Move a partition's place to after a message."""
        self._places.offsets[record.partition] = record.offset + 1
        self._pending = deque(
            each
            for each in self._pending
            if each.partition != record.partition or each.offset > record.offset
        )

    async def commit(self) -> None:
        """Commit the places of the group, if there is one; what fails is read again."""
        if self._start.group is None:
            return
        offsets = {
            each: self._places.offsets[each.partition]
            for each in self._consumer.assignment()
            if self._places.offsets.get(each.partition) != self._committed.get(each.partition)
        }
        if not offsets:
            return
        try:
            with connection_errors():
                await self._consumer.commit(offsets)
        except ERRORS as error:
            self._ctx.log("kafka.not_committed", group=self._start.group, error=str(error))
            return
        self._committed |= {each.partition: offset for each, offset in offsets.items()}

    async def _on_idle(self) -> None:
        """Commit what was left out, and find whether a broker still answers."""
        await self.commit()
        assigned = self._consumer.assignment()
        if assigned:
            await self._consumer.end_offsets(list(assigned))
        else:
            await self._consumer.topics()


async def find_connection(ctx: TriggerContext, url: str) -> Connection:
    """Return the connection that a trigger's url names, or is.

    Raises:
        TriggerError: It is unknown or invalid.
    """
    try:
        reference = read_reference(url)
        if reference is not None and reference.field is None:
            return await ctx.connection(reference.name)
        return make_connection("url", uri=await resolve_url(ctx, url))
    except InvalidInput as error:
        raise TriggerError(f"Kafka: {error}") from error


@asynccontextmanager
async def reading(
    ctx: TriggerContext, url: str, start: ReadOptions, places: Places
) -> AsyncIterator[Reader]:
    """Open a consumer of a topic for the block.

    Raises:
        TriggerError: The connection is invalid.
        KafkaError: No broker answers, or refuses.
    """
    connection = await find_connection(ctx, url)
    try:
        options = kafka_options(connection) | {"request_timeout_ms": _REQUEST_MILLISECONDS}
    except ConfigError as error:
        raise TriggerError(str(error)) from error
    consumer = AIOKafkaConsumer(
        start.topic,
        **options,
        group_id=start.group,
        auto_offset_reset="none",
        enable_auto_commit=False,
        # What a transaction wrote that was aborted is not a message.
        isolation_level="read_committed",
        metadata_max_age_ms=_METADATA_MILLISECONDS,
        fetch_max_bytes=_FETCH_BYTES,
    )
    try:
        with connection_errors():
            try:
                with anyio.fail_after(_JOIN_SECONDS):
                    await consumer.start()
            except kafka.KafkaConnectionError as error:
                raise await why_unreachable(options) or error from error
            except kafka.UnknownTopicOrPartitionError as error:
                raise kafka.UnknownTopicOrPartitionError(
                    f"topic {start.topic!r} does not exist"
                ) from error
            reader = Reader(ctx, consumer, start, places)
            await reader.place()
            yield reader
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await _stop(consumer)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        # It raises this where a fetch waits to be tried again, and leaves its connections open.
        await consumer._client.close()  # noqa: SLF001 - nothing public closes them then
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


@contextmanager
def connection_errors() -> Iterator[None]:
    """Raise an error in place of a cancellation that nothing has requested.

    When a connection breaks, the client cancels the futures that wait for its answers.

    Raises:
        KafkaConnectionError: A connection broke.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise kafka.KafkaConnectionError("the connection broke") from None


async def wait_or_fail(backoff: Backoff, error: Exception) -> None:
    """Wait before the next attempt after a temporary error.

    Raises:
        TriggerError: The error is final.
    """
    if isinstance(error, kafka.UnsupportedCodecError):
        raise TriggerError(
            "messages are compressed: pip install 'pubsubflow-triggers[kafka]' where triggers run"
        ) from error
    if isinstance(error, _FINAL):
        raise TriggerError(f"Kafka refuses: {error}") from error
    await backoff.failed(error)
