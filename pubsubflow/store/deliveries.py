"""Outbound deliveries: events due for event subscriptions, and their results.

All writes hold the lease of the deliverer.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.model.api.resources import EventView
from pubsubflow.model.subscriptions import (
    DEAD_LETTER_KIND,
    AttemptsExhausted,
    Delivered,
    DeliveryOutcome,
    EventSubscription,
    ReceiverGone,
    ReceiverReply,
    RetryLater,
    Undelivered,
)
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.leases import Lease
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.datasets import read_events
from pubsubflow.store.specs import SpecReader

_WINDOW = 10_000
"""Positions of the log that one search covers."""


class DueDelivery(Struct, frozen=True):
    """An event that is due for a subscription.

    Attributes:
        position: Of the event in the log.
        attempts: Attempts so far.
        is_retry: Whether it has a row in `event_delivery`.
    """

    position: int
    attempts: int
    event: EventInfo
    is_retry: bool


class WaitingDelivery(Struct, frozen=True):
    """A delivery that waits for a retry, in so many seconds."""

    position: int
    attempts: int
    seconds: float


class DeliveryResult(Struct, frozen=True):
    """The result of a delivery."""

    delivery: DueDelivery
    reply: ReceiverReply
    outcome: DeliveryOutcome


class Deliveries:
    """Deliveries of all event subscriptions.

    Args:
        database: Postgres.
        lease: Of the one daemon that delivers.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease
        self._specs = SpecReader()

    async def position_and_writers(self) -> tuple[int, frozenset[str]]:
        """Return the highest event id allocated, and the transactions that may have allocated ids.

        Once all of these have ended, no further event up to that id can appear.
        """
        async with self._database.connection() as connection:
            last = await connection.fetchval(SQL["read_last_event_id"])
            rows = await connection.fetch(SQL["find_event_writers"])
        return last, frozenset(row["virtualtransaction"] for row in rows)

    async def writers(self) -> frozenset[str]:
        """Return the open transactions that may have allocated event ids."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["find_event_writers"])
        return frozenset(row["virtualtransaction"] for row in rows)

    async def next_events(
        self, subscription: EventSubscription, cursor: int, safe_position: int, limit: int
    ) -> tuple[list[DueDelivery], int]:
        """Return the next events for a subscription, and the position searched up to."""
        async with self._database.connection() as connection:
            until = min(safe_position, cursor + _WINDOW)
            if until < safe_position:
                # Ids jump where a slice begins; the gap is not searched window by window.
                query = SQL["find_event_after"]
                first = await connection.fetchval(query, cursor, safe_position)
                if first is None:
                    return [], safe_position
                until = min(safe_position, max(until, first))
            rows = await connection.fetch(
                SQL["find_events_to_deliver"], cursor, until, subscription.expression,
                list(subscription.spec.dags), limit, subscription.id,
            )  # fmt: skip
            positions = [row["id"] for row in rows]
            found = await self._read(connection, dict.fromkeys(positions, 0), is_retry=False)
        # A full page ends the search at its last event; the rest of the window comes next time.
        return found, positions[-1] if len(positions) == limit else until

    async def list_waiting(
        self, subscription: UUID, cursor: int, limit: int
    ) -> list[WaitingDelivery]:
        """Return deliveries that wait for a retry: those after the cursor, then the next due."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                SQL["list_waiting_deliveries"], subscription, cursor, limit
            )
        return [WaitingDelivery(row["event"], row["attempts"], row["seconds"]) for row in rows]

    async def count_waiting(self, subscription: UUID) -> int:
        """Return the number of deliveries that wait for a retry."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(SQL["count_waiting_deliveries"], subscription)
        return found or 0

    async def load(self, waiting: Sequence[WaitingDelivery]) -> list[DueDelivery]:
        """Return waiting deliveries with their events; those of pruned events are left out."""
        async with self._database.connection() as connection:
            attempts = {each.position: each.attempts for each in waiting}
            return await self._read(connection, attempts, is_retry=True)

    async def delete(self, subscription: UUID, positions: Sequence[int]) -> None:
        """Delete deliveries whose events were pruned.

        Raises:
            LeaseLost: Another daemon delivers now.
        """
        async with self._database.transaction() as connection:
            await self._lease.lock(connection)
            await connection.execute(SQL["delete_deliveries"], subscription, list(positions))

    async def record(
        self, subscription: EventSubscription, results: Sequence[DeliveryResult], cursor: int
    ) -> None:
        """Record results of deliveries, and the new cursor of the subscription.

        Raises:
            LeaseLost: Another daemon delivers now; nothing was recorded.
        """
        ended = [
            each for each in results if isinstance(each.outcome, Delivered | AttemptsExhausted)
        ]
        done = [each.delivery for each in ended]
        retried = [due.position for due in done if due.is_retry]
        again = [each for each in results if isinstance(each.outcome, RetryLater | ReceiverGone)]
        dead = [each for each in results if isinstance(each.outcome, AttemptsExhausted)]
        name = subscription.id
        async with self._database.transaction() as connection:
            # Before any row is written: a daemon that has lost the lease must not move the cursor.
            await self._lease.lock(connection)
            last = results[-1].reply if results else ReceiverReply(None)
            error = None if last.accepted else printable(last.reason)
            there = await connection.fetchval(
                SQL["record_deliveries"], name, cursor, len(done) - len(dead), len(dead),
                bool(results), last.status, error,
            )  # fmt: skip
            if there is None:
                return  # the subscription was deleted in the meantime
            if retried:
                await connection.execute(SQL["delete_deliveries"], name, retried)
            if again:
                rows = [_postponed(each) for each in again]
                columns = map(list, zip(*rows, strict=True))
                await connection.execute(SQL["postpone_deliveries"], name, *columns)
            if dead:
                dead_letters = [_dead_letter(subscription, each) for each in dead]
                columns = map(list, zip(*dead_letters, strict=True))
                await connection.execute(SQL["record_dead_letters"], *columns)
            gone = next((each for each in results if isinstance(each.outcome, ReceiverGone)), None)
            if gone is not None:
                reason = printable(gone.reply.reason)
                await connection.execute(SQL["mark_event_subscription_gone"], name, reason)

    async def _read(
        self, connection: Connection, attempts: dict[int, int], *, is_retry: bool
    ) -> list[DueDelivery]:
        if not attempts:
            return []
        found = await read_events(connection, self._specs, list(attempts))
        return [
            DueDelivery(position, attempts[position], _info(found[position].view), is_retry)
            for position in attempts
            if position in found
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


def _postponed(each: DeliveryResult) -> tuple[int, int, float]:
    seconds = each.outcome.seconds if isinstance(each.outcome, RetryLater) else 0.0
    return each.delivery.position, each.delivery.attempts + 1, seconds


def _dead_letter(
    subscription: EventSubscription, each: DeliveryResult
) -> tuple[str, str, int | None, bytes, str]:
    held = Undelivered(
        subscription.id,
        UUID(each.delivery.event.event_id),
        each.delivery.event.dataset,
        subscription.spec.url,
        each.delivery.attempts + 1,
        each.reply.status,
    )
    reason = (
        each.outcome.reason if isinstance(each.outcome, AttemptsExhausted) else each.reply.reason
    )
    return (
        DEAD_LETTER_KIND,
        str(subscription.id),
        None,
        msgspec.json.encode(held),
        printable(reason),
    )
