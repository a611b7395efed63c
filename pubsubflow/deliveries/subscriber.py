"""Delivery to one subscriber: its events in the order of the log, or several side by side.

The cursor is kept in Postgres, and beside it the deliveries that wait for another attempt. For an
ordered subscriber a waiting delivery holds back all that follow; for an unordered one it does not.
"""

import random
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog
from msgspec import Struct

from pubsubflow.deliveries.settings import DeliverySettings
from pubsubflow.model.cel.expressions import filter_mismatch
from pubsubflow.model.cloud_events import CloudEvent, cloud_event_of
from pubsubflow.model.subscriptions import (
    EventSubscription,
    ReceiverGone,
    ReceiverReply,
    RetryLater,
    decide_outcome,
)
from pubsubflow.store.deliveries import Deliveries, DeliveryResult, DueDelivery, WaitingDelivery
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger()

BATCH = 32
_MAX_WAITING_READ = 100
_WRITE_CURSOR_EVENTS = 5_000
"""After so many events of no interest to the subscriber its cursor is written all the same."""

Send = Callable[[EventSubscription, CloudEvent, bytes], Awaitable[ReceiverReply]]


class SafePosition(Struct):
    """The position in the log up to which no further event can appear.

    Attributes:
        number: Id of an event; all ids up to it are committed or never will be.
    """

    number: int = 0


class SubscriberDelivery:
    """Delivers to one subscriber.

    Args:
        subscription: The subscription.
        key: Signs what is sent.
        deliveries: Reads events and records the outcome of each delivery.
        send: Sends one event.
        safe: The position up to which the log may be read; shared by all subscribers.
        settings: Limits and pauses.
        stopping: Set when nothing new is to be sent.
        chance: Returns a random number from 0 to 1.

    Attributes:
        wakeup: Notified when there may be something to send.
    """

    def __init__(
        self,
        subscription: EventSubscription,
        key: bytes,
        *,
        deliveries: Deliveries,
        send: Send,
        safe: SafePosition,
        settings: DeliverySettings,
        stopping: anyio.Event,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.wakeup = Wakeup()
        self._subscription = subscription
        self._key = key
        self._deliveries = deliveries
        self._send = send
        self._safe = safe
        self._settings = settings
        self._stopping = stopping
        self._chance = chance
        self._cursor = self._written_cursor = subscription.cursor
        self._gone = False

    async def run(self) -> None:
        """Deliver until the daemon stops, or the receiver answers that it is gone.

        Raises:
            LeaseLost: Another daemon has taken the lease.
            StoreUnavailable: Postgres is out of reach.
        """
        while not (self._stopping.is_set() or self._gone):
            pause = await self._deliver_next()
            if pause is not None:
                await self.wakeup.wait(pause)

    async def _deliver_next(self) -> float | None:
        """Send what is due; return the seconds until more may be due, None for at once."""
        name = self._subscription.id
        waiting = await self._deliveries.list_waiting(name, self._cursor, _MAX_WAITING_READ)
        due = [each for each in waiting if each.seconds <= 0]
        if due:
            await self._retry(due)
            return None
        pause = min((each.seconds for each in waiting), default=self._settings.sweep_seconds)
        if await self._is_held_back(waiting):
            return pause
        if await self._read_on():
            return None
        return min(pause, self._settings.sweep_seconds)

    async def _is_held_back(self, waiting: Sequence[WaitingDelivery]) -> bool:
        """Whether no further event may be sent before those that wait."""
        if self._subscription.spec.ordered:
            return bool(waiting) and waiting[0].position > self._cursor
        if len(waiting) < min(_MAX_WAITING_READ, self._settings.max_waiting):
            return False
        # The list is bounded, so its length alone does not say whether the limit is reached.
        count = await self._deliveries.count_waiting(self._subscription.id)
        return count >= self._settings.max_waiting

    async def _retry(self, waiting: Sequence[WaitingDelivery]) -> None:
        found = await self._deliveries.load(waiting)
        lost = {each.position for each in waiting} - {due.position for due in found}
        if lost:
            log.warning("subscription.events_pruned", subscription=self._name, events=len(lost))
            await self._deliveries.delete(self._subscription.id, sorted(lost))
        found.sort(key=lambda due: due.position)
        if self._subscription.spec.ordered:
            await self._deliver_in_order(found)
        else:
            await self._deliver_side_by_side(found, self._cursor)

    async def _read_on(self) -> bool:
        """Send the next events of the log; return whether any were read."""
        if self._safe.number <= self._cursor:
            return False
        found, until = await self._deliveries.next_events(
            self._subscription, self._cursor, self._safe.number, BATCH
        )
        matching = [due for due in found if self._matches(due)]
        if not self._subscription.spec.ordered:
            await self._deliver_side_by_side(matching, until)
        elif await self._deliver_in_order(matching):
            self._cursor = until
        # Events that do not match move the cursor in memory alone. Without this write a restart
        # would read through all of them again.
        if self._cursor - self._written_cursor >= _WRITE_CURSOR_EVENTS:
            await self._record([])
        return True

    def _matches(self, due: DueDelivery) -> bool:
        where = self._subscription.spec.where
        return where is None or filter_mismatch(where, due.event) is None

    async def _deliver_in_order(self, dues: Sequence[DueDelivery]) -> bool:
        """Send events one after the other; return whether each was delivered or dead-lettered."""
        for due in dues:
            if self._stopping.is_set():
                return False
            settled = await self._attempt(due)
            final = not isinstance(settled.outcome, RetryLater | ReceiverGone)
            if final:
                self._cursor = max(self._cursor, due.position)
            await self._record([settled])
            if not final:
                return False
        return True

    async def _deliver_side_by_side(self, dues: Sequence[DueDelivery], until: int) -> None:
        """Send events; once each was attempted, the cursor moves to `until`."""
        settled: list[DeliveryResult] = []
        limiter = anyio.CapacityLimiter(self._settings.parallel)

        async def attempt(due: DueDelivery) -> None:
            async with limiter:
                if not self._stopping.is_set():
                    settled.append(await self._attempt(due))

        async with anyio.create_task_group() as group:
            for due in dues:
                group.start_soon(attempt, due)
        # When the daemon stops in between, the cursor stays: what was sent comes a second time.
        if len(settled) == len(dues):
            self._cursor = until
        if settled:
            await self._record(settled)

    async def _attempt(self, due: DueDelivery) -> DeliveryResult:
        reply = await self._send(self._subscription, cloud_event_of(due.event), self._key)
        settings = self._settings
        verdict = decide_outcome(
            reply,
            due.attempts + 1,
            retry_seconds=settings.retry_seconds,
            jitter=settings.jitter,
            chance=self._chance(),
        )
        if not reply.accepted:
            log.info(
                "delivery.failed",
                subscription=self._name,
                event_id=due.event.event_id,
                attempts=due.attempts + 1,
                reason=reply.reason,
                outcome=type(verdict).__name__,
            )
        return DeliveryResult(due, reply, verdict)

    async def _record(self, settled: Sequence[DeliveryResult]) -> None:
        await self._deliveries.record(self._subscription, settled, self._cursor)
        self._written_cursor = self._cursor
        self._gone = self._gone or any(isinstance(each.outcome, ReceiverGone) for each in settled)

    @property
    def _name(self) -> str:
        return str(self._subscription.id)
