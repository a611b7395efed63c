"""What is to be sent to subscribers, and what became of it; written under the lease alone."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.model.api.resources import EventView
from pubsubflow.model.subscriptions import (
    LETTER,
    Again,
    Dead,
    Delivered,
    Gone,
    Reply,
    Subscription,
    Undelivered,
    Verdict,
)
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.leases import Lease
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.datasets import read_events
from pubsubflow.store.specs import Specs

_WINDOW = 10_000
"""How many numbers of the log one look goes through."""


class Due(Struct, frozen=True):
    """An event that a subscriber is to be sent.

    Attributes:
        number: The event's.
        attempts: How often it was sent so far.
        waited: Whether it waited for another try.
    """

    number: int
    attempts: int
    event: EventInfo
    waited: bool


class Waiting(Struct, frozen=True):
    """A delivery that waits for another try."""

    number: int
    attempts: int
    seconds: float


class Settled(Struct, frozen=True):
    """What became of a delivery."""

    due: Due
    reply: Reply
    verdict: Verdict


class Deliveries:
    """Reads the log for subscribers and writes how far each has got.

    Args:
        database: Postgres.
        lease: Whoever has it delivers.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease
        self._specs = Specs()

    async def look(self) -> tuple[int, frozenset[str]]:
        """Return the last event id that anybody has taken, then who may still record one up to it.

        When none of these is under way any more, no event up to that id appears any more.
        """
        async with self._database.connection() as connection:
            last = await connection.fetchval(SQL["read_last_event"])
            rows = await connection.fetch(SQL["find_event_writers"])
        return last, frozenset(row["virtualtransaction"] for row in rows)

    async def writers(self) -> frozenset[str]:
        """Return who may be recording events."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["find_event_writers"])
        return frozenset(row["virtualtransaction"] for row in rows)

    async def after(
        self, subscription: Subscription, cursor: int, horizon: int, limit: int
    ) -> tuple[list[Due], int]:
        """Return the next events for a subscriber, and how far the log was searched for them."""
        until = min(horizon, cursor + _WINDOW)
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                SQL["find_subscribed_events"], cursor, until, subscription.expression,
                list(subscription.wanted.dags), limit, subscription.id,
            )  # fmt: skip
            numbers = [row["id"] for row in rows]
            found = await self._read(connection, dict.fromkeys(numbers, 0), waited=False)
        return found, numbers[-1] if len(numbers) == limit else until

    async def waiting(self, subscription: UUID, cursor: int, limit: int) -> list[Waiting]:
        """Return what waits for another try: events after the cursor, then what is due first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_http_deliveries"], subscription, cursor, limit)
        return [Waiting(row["event"], row["attempts"], row["seconds"]) for row in rows]

    async def count_waiting(self, subscription: UUID) -> int:
        """Return how many deliveries wait for another try."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(SQL["count_http_deliveries"], subscription)
        return found or 0

    async def load(self, waiting: Sequence[Waiting]) -> list[Due]:
        """Return the events of deliveries; those that were pruned are missing."""
        async with self._database.connection() as connection:
            attempts = {each.number: each.attempts for each in waiting}
            return await self._read(connection, attempts, waited=True)

    async def forget(self, subscription: UUID, numbers: Sequence[int]) -> None:
        """Forget deliveries whose events are no more.

        Raises:
            LeaseLost: Somebody else delivers now.
        """
        async with self._database.transaction() as connection:
            await self._lease.hold(connection)
            await connection.execute(SQL["settle_deliveries"], subscription, list(numbers))

    async def settle(
        self, subscription: Subscription, settled: Sequence[Settled], cursor: int
    ) -> None:
        """Record what became of deliveries, and how far the subscriber has got.

        Raises:
            LeaseLost: Somebody else delivers now; nothing was recorded.
        """
        done = [each.due for each in settled if isinstance(each.verdict, Delivered | Dead)]
        waited = [due.number for due in done if due.waited]
        again = [each for each in settled if isinstance(each.verdict, Again | Gone)]
        dead = [each for each in settled if isinstance(each.verdict, Dead)]
        name = subscription.id
        async with self._database.transaction() as connection:
            await self._lease.hold(connection)
            last = settled[-1].reply if settled else Reply(None)
            error = None if last.taken else printable(last.reason)
            there = await connection.fetchval(
                SQL["note_deliveries"], name, cursor, len(done) - len(dead), len(dead),
                bool(settled), last.status, error,
            )  # fmt: skip
            if there is None:
                return  # it was deleted meanwhile
            if waited:
                await connection.execute(SQL["settle_deliveries"], name, waited)
            if again:
                rows = [_postponed(each) for each in again]
                columns = map(list, zip(*rows, strict=True))
                await connection.execute(SQL["postpone_deliveries"], name, *columns)
            if dead:
                letters = [_letter(subscription, each) for each in dead]
                columns = map(list, zip(*letters, strict=True))
                await connection.execute(SQL["record_dead_letters"], *columns)
            gone = next((each for each in settled if isinstance(each.verdict, Gone)), None)
            if gone is not None:
                reason = printable(gone.reply.reason)
                await connection.execute(SQL["end_http_subscription"], name, reason)

    async def _read(
        self, connection: Connection, attempts: dict[int, int], *, waited: bool
    ) -> list[Due]:
        if not attempts:
            return []
        found = await read_events(connection, self._specs, list(attempts))
        return [
            Due(number, attempts[number], _info(found[number].view), waited)
            for number in attempts
            if number in found
        ]


def _info(view: EventView) -> EventInfo:
    return EventInfo(
        view.event_id,
        view.dataset,
        view.extra,
        view.partition,
        view.time,
        view.source,
        view.run_id,
        view.dag_id,
        view.task_id,
    )


def _postponed(each: Settled) -> tuple[int, int, float]:
    seconds = each.verdict.seconds if isinstance(each.verdict, Again) else 0.0
    return each.due.number, each.due.attempts + 1, seconds


def _letter(subscription: Subscription, each: Settled) -> tuple[str, str, int | None, bytes, str]:
    held = Undelivered(
        subscription.id,
        UUID(each.due.event.event_id),
        each.due.event.dataset,
        subscription.wanted.url,
        each.due.attempts + 1,
        each.reply.status,
    )
    reason = each.verdict.reason if isinstance(each.verdict, Dead) else each.reply.reason
    return LETTER, str(subscription.id), None, msgspec.json.encode(held), printable(reason)
