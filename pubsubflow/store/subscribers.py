"""Who wants events at a URL: made, listed, changed, removed."""

from contextlib import suppress
from uuid import UUID

import asyncpg
from msgspec.structs import asdict

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.resources import Page
from pubsubflow.model.connections import Connection as Stored
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.ids import new_id
from pubsubflow.model.revisions import Revisions, check_revision
from pubsubflow.model.subscriptions import (
    CreatedSubscription,
    State,
    Subscription,
    SubscriptionView,
    Wanted,
)
from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.connections import Connections

KIND = "webhook"
MOST = 1000
_FIRST = UUID(int=0)


class Subscribers:
    """The stored subscriptions; the secret of each is a connection's, and so encrypted.

    Args:
        database: Postgres.
        connections: Where the secrets are.

    All methods raise StoreUnavailable when Postgres is away, and NotFound for an id that none has.
    """

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connections = connections

    async def add(self, wanted: Wanted, secret: str) -> CreatedSubscription:
        """Subscribe to what is recorded from now on.

        Raises:
            InvalidInput: There are too many already.
            ConfigError: The secret cannot be encrypted.
        """
        name = new_id()
        await self._connections.save(
            Stored(name=connection_of(name), kind=KIND, uri=wanted.url, secrets={"secret": secret})
        )
        expression = None if wanted.dataset is None else pattern_expression(wanted.dataset)
        filter_ = None if wanted.where is None else printable(wanted.where)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                SQL["add_http_subscription"], name, wanted.url, wanted.dataset, expression,
                [printable(dag) for dag in wanted.dags], filter_, wanted.mode, wanted.ordered,
                printable(wanted.description), MOST,
            )  # fmt: skip
        if row is None:
            await self._forget(name)
            raise InvalidInput(f"there are {MOST} subscriptions already: delete some first")
        return CreatedSubscription(**asdict(_view(row, 0)), secret=secret)

    async def page(self, *, limit: int, after: UUID | None = None) -> Page[SubscriptionView]:
        """Return subscriptions, the oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_http_subscriptions"], after or _FIRST, limit)
        items = [_view(row, row["waiting"]) for row in rows]
        return Page(items, items[-1].id if len(items) == limit else None)

    async def get(self, name: UUID) -> SubscriptionView:
        """Return a subscription."""
        async with self._database.connection() as connection:
            row = await _row(connection, name)
        return _view(row, row["waiting"])

    async def read(self, name: UUID) -> Subscription:
        """Return a subscription, whatever its state."""
        async with self._database.connection() as connection:
            return _subscription(await _row(connection, name))

    async def secret(self, name: UUID) -> str:
        """Return the secret that signs what a subscriber is sent.

        Raises:
            ConfigError: It cannot be decrypted.
            NotFound: Somebody has deleted its connection.
        """
        return (await self._connections.read(connection_of(name))).secrets["secret"]

    async def active(self) -> list[Subscription]:
        """Return who is delivered to."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_active_http_subscriptions"])
        return [_subscription(row) for row in rows]

    async def change(self, name: UUID, state: State, wanted: Revisions) -> SubscriptionView:
        """Pause or resume a subscription; return it as it is then.

        Args:
            name: Its id.
            state: `paused` or `active`.
            wanted: The revisions that may be changed.

        Raises:
            StaleRevision: It has another one.
        """
        async with self._database.transaction() as connection:
            await _check(connection, name, wanted)
            await connection.execute(SQL["change_http_subscription"], name, state)
        return await self.get(name)

    async def remove(self, name: UUID, wanted: Revisions) -> None:
        """End a subscription.

        Args:
            name: Its id.
            wanted: The revisions that may be deleted.

        Raises:
            StaleRevision: It has another one.
        """
        async with self._database.transaction() as connection:
            await _check(connection, name, wanted)
            await connection.execute(SQL["remove_http_subscription"], name)
        await self._forget(name)

    async def _forget(self, name: UUID) -> None:
        with suppress(NotFound):  # a person was faster
            await self._connections.delete(connection_of(name))


def connection_of(name: UUID) -> str:
    """Return the name of the connection that holds a subscription's secret."""
    return f"subscription-{name}"


async def _check(connection: Connection, name: UUID, wanted: Revisions) -> None:
    """Lock a subscription that has one of the revisions."""
    version = await connection.fetchval(SQL["lock_http_subscription"], name)
    if version is None:
        raise NotFound("subscription", str(name))
    check_revision(f"subscription {name}", str(version), wanted)


async def _row(connection: Connection, name: UUID) -> asyncpg.Record:
    row = await connection.fetchrow(SQL["read_http_subscription"], name)
    if row is None:
        raise NotFound("subscription", str(name))
    return row


def _wanted(row: asyncpg.Record) -> Wanted:
    return Wanted(
        row["url"],
        row["dataset"],
        tuple(row["dags"]),
        row["filter"],
        row["mode"],
        row["ordered"],
        row["description"],
    )


def _subscription(row: asyncpg.Record) -> Subscription:
    return Subscription(
        UUID(str(row["id"])),
        row["version"],
        _wanted(row),
        row["expression"],
        row["cursor"],
    )


def _view(row: asyncpg.Record, waiting: int) -> SubscriptionView:
    return SubscriptionView(
        id=str(row["id"]),
        url=row["url"],
        dataset=row["dataset"],
        dags=list(row["dags"]),
        where=row["filter"],
        mode=row["mode"],
        ordered=row["ordered"],
        description=row["description"],
        state=row["state"],
        reason=row["reason"],
        revision=str(row["version"]),
        created_at=row["created_at"],
        delivered=row["delivered"],
        dead=row["dead"],
        waiting=waiting,
        last_at=row["last_at"],
        last_status=row["last_status"],
        last_error=row["last_error"],
    )
