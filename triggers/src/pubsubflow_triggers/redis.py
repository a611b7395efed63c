"""Redis triggers: wait for a key, for elements of a list, or for entries of a stream."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import anyio
import msgspec
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_interval, check_url
from pubsubflow_triggers.content import content, content_equals
from pubsubflow_triggers.credentials import resolve_url

_SCHEMES = ("redis", "rediss", "unix")
_CONNECT_SECONDS = 10.0
_BLOCK_SECONDS = 20.0
_CLOSE_SECONDS = 2.0
_BATCH_SIZE = 100
_ERRORS = (exceptions.RedisError, OSError)
# Processing lists are a sorted set by the end of their leases, so that the elements of an expired
# one go back to the list's head: KEYS list, set of processing lists; ARGV this one, seconds.
_LEASE = """
local now = tonumber(redis.call('TIME')[1])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
    while redis.call('LMOVE', dead, KEYS[1], 'RIGHT', 'LEFT') do end
    redis.call('ZREM', KEYS[2], dead)
end
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
"""


class RedisKey(Trigger, frozen=True, kw_only=True):
    """Fires when a key exists, or has a value.

    It fires once for one value: again when it has changed, or the key was deleted in between.

    Attributes:
        url: `redis://user:password@host:6379/0`, `rediss://…` or `unix://…`; `env:NAME` or
            `connection:NAME`.
        key: The key.
        value: The string or JSON value that it must hold. None for any value of any type.
        interval: Time between two polls; at least 0.1 s.

    The payload is `{"key", "value"}`: `value` is decoded if it is JSON, and None if the key does
    not hold a string.
    """

    url: str
    key: str
    value: Any = None
    interval: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid URL, key or interval."""
        _check("RedisKey", self.url, self.key)
        check_interval("RedisKey", self.interval)

    def share_key(self) -> str:
        """Share one poll among all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Poll without end, and yield the value when it is as wanted."""
        backoff = Backoff(ctx, "redis")
        reported = ctx.position
        while True:
            try:
                async with _connected(await resolve_url(ctx, self.url)) as client:
                    found = await self._read_value(client)
            except _ERRORS as error:
                await _wait_or_fail(backoff, error)
                continue
            backoff.reached()
            if found is not None and found != reported:
                yield TriggerEvent(payload=found, position=found)
            reported = found
            await ctx.sleep(self.interval.total_seconds())

    async def _read_value(self, client: Redis) -> dict[str, Any] | None:
        kind = await client.type(self.key)
        if kind == b"string":
            data: Any = await client.get(self.key)
            wanted = data is not None and (self.value is None or content_equals(data, self.value))
            return {"key": self.key, "value": content(data)} if wanted else None
        exists = kind != b"none" and self.value is None
        return {"key": self.key, "value": None} if exists else None


class RedisList(Trigger, frozen=True, kw_only=True):
    """Takes elements from a list's head, one after the other.

    Each element goes to one of the consumers of the list. Until its event is stored it is in a
    processing list of the trigger's own, `<key>:pubsubflow:<id>`; when the trigger dies before, it
    goes back to the list's head after `lease`, and so may be delivered twice.

    Attributes:
        url: `redis://user:password@host:6379/0`, `rediss://…` or `unix://…`; `env:NAME` or
            `connection:NAME`.
        key: The list.
        lease: Time limit for the storage of an element's event; at least 1 s.

    The payload is `{"key", "data"}`: `data` is decoded if it is JSON.
    """

    url: str
    key: str
    lease: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid URL, key or lease."""
        _check("RedisList", self.url, self.key)
        if self.lease < timedelta(seconds=1):
            raise DefinitionError(f"RedisList: lease must be at least 1 s, not {self.lease}")

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Take elements as they arrive, and yield them."""
        backoff = Backoff(ctx, "redis")
        processing = f"{self.key}:pubsubflow:{uuid.uuid4()}"
        while True:
            try:
                async with _connected(await resolve_url(ctx, self.url)) as client:
                    backoff.reached()
                    while True:
                        data = await self._take(ctx, client, processing)
                        if data is not None:
                            yield TriggerEvent(
                                payload={"key": self.key, "data": content(data)},
                                acknowledge=partial(self._done, ctx, client, processing),
                            )
            except _ERRORS as error:
                await _wait_or_fail(backoff, error)

    @property
    def _processing_lists(self) -> str:
        return f"{self.key}:pubsubflow"

    async def _take(self, ctx: TriggerContext, client: Redis, processing: str) -> bytes | None:
        block = min(_BLOCK_SECONDS, self.lease.total_seconds() / 2)
        seconds = self.lease.total_seconds() + block
        await client.eval(_LEASE, 2, self.key, self._processing_lists, processing, str(seconds))
        ctx.log("redis.taking", key=self.key)
        data: Any = await client.blmove(self.key, processing, int(block) or 1, "LEFT", "RIGHT")
        return bytes(data) if data is not None else None

    async def _done(self, ctx: TriggerContext, client: Redis, processing: str) -> None:
        try:
            async with client.pipeline(transaction=True) as pipe:
                pipe.delete(processing)
                pipe.zrem(self._processing_lists, processing)
                await pipe.execute()
        except _ERRORS as error:
            # The element is delivered again after its lease.
            ctx.log("redis.not_acknowledged", key=self.key, error=str(error))


class RedisStream(Trigger, frozen=True, kw_only=True):
    """Fires with each entry of a stream.

    With a group, Redis stores the position: each entry goes to one of the triggers with the same
    group, and is acknowledged once its event is stored. Entries unacknowledged for `idle` are
    claimed first. The group is created if it does not exist. Without one, the trigger fires for
    entries since the start of the wait, or after the last event of the watched dataset.

    Attributes:
        url: `redis://user:password@host:6379/0`, `rediss://…` or `unix://…`; `env:NAME` or
            `connection:NAME`.
        key: The stream.
        group: A consumer group.
        consumer: Its name in the group. A unique name gets its own pending entries at once after a
            restart; None for a name that all triggers share.
        idle: Time without an acknowledgement after which an entry is claimed.
        deliver: The start of a group that is created: `all` entries, or only `new` ones.

    The payload is `{"key", "id", "data"}`: `data` holds the entry's fields, each decoded if it is
    JSON. The id is the entry's.
    """

    url: str
    key: str
    group: str | None = None
    consumer: str | None = None
    idle: timedelta = timedelta(seconds=60)
    deliver: Literal["all", "new"] = "all"

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid URL, key, group or consumer."""
        _check("RedisStream", self.url, self.key)
        if self.group == "" or self.consumer == "":
            raise DefinitionError("RedisStream: group or consumer is empty: leave it out")
        if self.consumer is not None and self.group is None:
            raise DefinitionError("RedisStream: consumer needs a group")
        if self.deliver not in {"all", "new"}:
            raise DefinitionError('RedisStream: deliver must be "all" or "new"')

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Read, again when the connection is lost, and yield each entry."""
        backoff = Backoff(ctx, "redis")
        after = ctx.position or f"{int(ctx.started_at.timestamp() * 1000) - 1}-{2**64 - 1}"
        while True:
            try:
                async with _connected(await resolve_url(ctx, self.url)) as client:
                    await self._join(client)
                    ctx.log("redis.reading", key=self.key)
                    backoff.reached()
                    own = self.consumer is not None
                    while True:
                        entries = await self._read(client, after, own=own)
                        own = own and bool(entries)
                        for number, fields in entries:
                            after = number.decode()
                            yield self._event(ctx, client, after, fields)
            except _ERRORS as error:
                await _wait_or_fail(backoff, error)

    async def _join(self, client: Redis) -> None:
        if self.group is None:
            return
        begin = "0" if self.deliver == "all" else "$"
        try:
            await client.xgroup_create(self.key, self.group, begin, mkstream=True)
        except exceptions.RedisError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _read(self, client: Redis, after: str, *, own: bool) -> list[Any]:
        """Return entries: own pending ones, then unacknowledged ones of others, then new ones."""
        block = int(_BLOCK_SECONDS * 1000)
        if self.group is None:
            return _entries(await client.xread({self.key: after}, count=_BATCH_SIZE, block=block))
        name = self.consumer or "pubsubflow"
        if own:
            pending = await client.xreadgroup(self.group, name, {self.key: "0"}, count=1)
            if found := _entries(pending):
                return found
        idle = int(self.idle.total_seconds() * 1000)
        claimed = await client.xautoclaim(self.key, self.group, name, idle, count=1)
        if claimed[1]:
            return list(claimed[1])
        return _entries(
            await client.xreadgroup(self.group, name, {self.key: ">"}, count=1, block=block)
        )

    def _event(
        self, ctx: TriggerContext, client: Redis, number: str, fields: dict[bytes, bytes]
    ) -> TriggerEvent:
        data = {name.decode(errors="replace"): content(value) for name, value in fields.items()}
        return TriggerEvent(
            payload={"key": self.key, "id": number, "data": data},
            id=number,
            time=datetime.fromtimestamp(int(number.partition("-")[0]) / 1000, UTC),
            position=number if self.group is None else None,
            acknowledge=partial(self._done, ctx, client, number) if self.group else None,
        )

    async def _done(self, ctx: TriggerContext, client: Redis, number: str) -> None:
        try:
            await client.xack(self.key, self.group or "", number)
        except _ERRORS as error:
            # The entry is delivered again, under the same id.
            ctx.log("redis.not_acknowledged", key=self.key, id=number, error=str(error))


def _check(trigger: str, url: str, key: str) -> None:
    check_url(trigger, url, _SCHEMES)
    check_filled(trigger, "key", key)


def _entries(answer: Any) -> list[Any]:
    """Return the entries of the one stream of the request, in either protocol's form."""
    if not answer:
        return []
    return list(answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0])


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Redis]:
    try:
        client: Redis = Redis.from_url(
            url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_BLOCK_SECONDS + _CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise TriggerError(f"url is not a Redis address: {error}") from error
    try:
        yield client
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await client.aclose()


async def _wait_or_fail(backoff: Backoff, error: Exception) -> None:
    """Wait before the next attempt after a temporary error.

    Raises:
        TriggerError: The error is final.
    """
    away = isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError)
    causes = (error, error.__cause__, error.__context__)
    if not away or any(isinstance(cause, exceptions.AuthenticationError) for cause in causes):
        raise TriggerError(f"Redis refuses: {error}") from error
    await backoff.failed(error)
