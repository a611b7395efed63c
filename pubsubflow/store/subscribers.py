"""Subscriptions that deliver events to URLs, with their secrets in connections."""

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
    EventSubscription,
    State,
    SubscriptionSpec,
    SubscriptionView,
)
from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.connections import Connections

CONNECTION_KIND = "webhook"
MAX_SUBSCRIPTIONS = 1000
_FIRST = UUID(int=0)


class Subscribers:
    """The stored subscriptions; the secret of each is kept, encrypted, in a connection of its own.

    Args:
        database: Postgres.
        connections: The store of the secrets.

    All methods raise StoreUnavailable when Postgres is away, and NotFound for an unknown id.
    """

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._connections = connections

    async def create(self, wanted: SubscriptionSpec, secret: str) -> CreatedSubscription:
        """Subscribe to the events recorded from now on.

        Raises:
            InvalidInput: The limit of subscriptions is reached.
            ConfigError: The secret cannot be encrypted.
        """
        name = new_id()
        # The secret comes first: a subscription is delivered to from its commit on.
        await self._connections.save(
            Stored(
                name=connection_of(name),
                kind=CONNECTION_KIND,
                uri=wanted.url,
                secrets={"secret": secret},
            )
        )
        expression = None if wanted.dataset is None else pattern_expression(wanted.dataset)
        filter_ = None if wanted.where is None else printable(wanted.where)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                SQL["create_event_subscription"], name, wanted.url, wanted.dataset, expression,
                [printable(dag) for dag in wanted.dags], filter_, wanted.mode, wanted.ordered,
                printable(wanted.description), MAX_SUBSCRIPTIONS,
            )  # fmt: skip
        if row is None:
            # The limit is checked by the insert itself; the secret was saved in vain.
            await self._forget(name)
            raise InvalidInput(
                f"the limit of {MAX_SUBSCRIPTIONS} subscriptions is reached: delete some"
            )
        return CreatedSubscription(**asdict(_view(row, 0)), secret=secret)

    async def page(self, *, limit: int, after: UUID | None = None) -> Page[SubscriptionView]:
        """Return subscriptions, oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_event_subscriptions"], after or _FIRST, limit)
        items = [_view(row, row["waiting"]) for row in rows]
        return Page(items, items[-1].id if len(items) == limit else None)

    async def get(self, name: UUID) -> SubscriptionView:
        """Return a subscription."""
        async with self._database.connection() as connection:
            row = await _row(connection, name)
        return _view(row, row["waiting"])

    async def read(self, name: UUID) -> EventSubscription:
        """Return what delivering to a subscription needs, in any state."""
        async with self._database.connection() as connection:
            return _subscription(await _row(connection, name))

    async def secret(self, name: UUID) -> str:
        """Return the secret that signs deliveries.

        Raises:
            ConfigError: It cannot be decrypted.
            NotFound: Its connection was deleted.
        """
        return (await self._connections.read(connection_of(name))).secrets["secret"]

    async def list_active(self) -> list[EventSubscription]:
        """Return the active subscriptions."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_active_event_subscriptions"])
        return [_subscription(row) for row in rows]

    async def set_state(self, name: UUID, state: State, wanted: Revisions) -> SubscriptionView:
        """Pause or resume a subscription and return it.

        Args:
            name: Its id.
            state: `paused` or `active`.
            wanted: The revisions that may be changed.

        Raises:
            StaleRevision: It has another revision.
        """
        async with self._database.transaction() as connection:
            await _check(connection, name, wanted)
            await connection.execute(SQL["set_event_subscription_state"], name, state)
        return await self.get(name)

    async def delete(self, name: UUID, wanted: Revisions) -> None:
        """Delete a subscription.

        Args:
            name: Its id.
            wanted: The revisions that may be deleted.

        Raises:
            StaleRevision: It has another revision.
        """
        async with self._database.transaction() as connection:
            await _check(connection, name, wanted)
            await connection.execute(SQL["delete_event_subscription"], name)
        await self._forget(name)

    async def _forget(self, name: UUID) -> None:
        with suppress(NotFound):  # a person has deleted it in the connections
            await self._connections.delete(connection_of(name))


def connection_of(name: UUID) -> str:
    """Return the name of the connection that holds a subscription's secret."""
    return f"subscription-{name}"


async def _check(connection: Connection, name: UUID, wanted: Revisions) -> None:
    """Lock a subscription and check its revision."""
    version = await connection.fetchval(SQL["lock_event_subscription"], name)
    if version is None:
        raise NotFound("subscription", str(name))
    check_revision(f"subscription {name}", str(version), wanted)


async def _row(connection: Connection, name: UUID) -> asyncpg.Record:
    row = await connection.fetchrow(SQL["read_event_subscription"], name)
    if row is None:
        raise NotFound("subscription", str(name))
    return row


def _wanted(row: asyncpg.Record) -> SubscriptionSpec:
    return SubscriptionSpec(
        row["url"],
        row["dataset"],
        tuple(row["dags"]),
        row["filter"],
        row["mode"],
        row["ordered"],
        row["description"],
    )


def _subscription(row: asyncpg.Record) -> EventSubscription:
    return EventSubscription(
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
