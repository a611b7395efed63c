"""One subscriber: gets its events in the order of the log, or several at a time.

The cursor stands in Postgres; what was not taken and is tried again later stands beside it. In
order, such an event holds back all that follow; without order, it does not.
"""

import random
from collections.abc import Awaitable, Callable, Sequence

import anyio
import structlog
from msgspec import Struct

from pubsubflow.deliveries.bell import Bell
from pubsubflow.deliveries.settings import SubscriptionsSettings
from pubsubflow.model.cloud_events import Told, told_event
from pubsubflow.model.expressions import holds
from pubsubflow.model.subscriptions import Again, Gone, Reply, Subscription, after_reply
from pubsubflow.store.deliveries import Deliveries, Due, Settled, Waiting

log = structlog.get_logger()

BATCH = 32
_LOOK = 100
_MANY_SKIPPED = 5_000
"""From so many events of others on, the cursor is written although nothing was sent."""

Send = Callable[[Subscription, Told, bytes], Awaitable[Reply]]


class Horizon(Struct):
    """Up to which event the log is complete."""

    number: int = 0


class Lane:
    """Delivers to one subscriber.

    Args:
        subscription: Who.
        key: Signs what is sent.
        deliveries: Where events are, and where it is written what became of them.
        send: Sends one event.
        horizon: Up to where the log may be read.
        settings: See there.
        stopping: Set when nothing new is to be sent.
        chance: Random, from 0 to 1.

    Attributes:
        bell: Rung when there may be something to do.
    """

    def __init__(
        self,
        subscription: Subscription,
        key: bytes,
        *,
        deliveries: Deliveries,
        send: Send,
        horizon: Horizon,
        settings: SubscriptionsSettings,
        stopping: anyio.Event,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.bell = Bell()
        self._subscription = subscription
        self._key = key
        self._deliveries = deliveries
        self._send = send
        self._horizon = horizon
        self._settings = settings
        self._stopping = stopping
        self._chance = chance
        self._cursor = self._written = subscription.cursor
        self._gone = False

    async def run(self) -> None:
        """Deliver until it is time to stop, or the receiver wants nothing any more.

        Raises:
            LeaseLost: Another daemon delivers now.
            StoreUnavailable: Postgres is away.
        """
        while not (self._stopping.is_set() or self._gone):
            pause = await self._turn()
            if pause is not None:
                await self.bell.wait(pause)

    async def _turn(self) -> float | None:
        """Do what can be done; return the seconds until there may be more, None for at once."""
        name = self._subscription.id
        waiting = await self._deliveries.waiting(name, self._cursor, _LOOK)
        due = [each for each in waiting if each.seconds <= 0]
        if due:
            await self._try_again(due)
            return None
        pause = min((each.seconds for each in waiting), default=self._settings.sweep_seconds)
        if await self._held_back(waiting):
            return pause
        return None if await self._go_on() else min(pause, self._settings.sweep_seconds)

    async def _held_back(self, waiting: Sequence[Waiting]) -> bool:
        """Whether no further event may be sent before those that wait."""
        if self._subscription.wanted.ordered:
            return bool(waiting) and waiting[0].number > self._cursor
        if len(waiting) < min(_LOOK, self._settings.max_waiting):
            return False
        count = await self._deliveries.count_waiting(self._subscription.id)
        return count >= self._settings.max_waiting

    async def _try_again(self, waiting: Sequence[Waiting]) -> None:
        found = await self._deliveries.load(waiting)
        lost = {each.number for each in waiting} - {due.number for due in found}
        if lost:
            log.warning("subscription.events_gone", subscription=self._name, events=len(lost))
            await self._deliveries.forget(self._subscription.id, sorted(lost))
        found.sort(key=lambda due: due.number)
        if self._subscription.wanted.ordered:
            await self._deliver_in_order(found)
        else:
            await self._deliver_side_by_side(found, self._cursor)

    async def _go_on(self) -> bool:
        """Send the next events of the log; return whether there were any to look at."""
        if self._horizon.number <= self._cursor:
            return False
        found, until = await self._deliveries.after(
            self._subscription, self._cursor, self._horizon.number, BATCH
        )
        wanted = [due for due in found if self._wants(due)]
        if not self._subscription.wanted.ordered:
            await self._deliver_side_by_side(wanted, until)
        elif await self._deliver_in_order(wanted):
            self._cursor = until
        if self._cursor - self._written >= _MANY_SKIPPED:
            await self._settle([])
        return True

    def _wants(self, due: Due) -> bool:
        where = self._subscription.wanted.where
        return where is None or holds(where, due.event) is None

    async def _deliver_in_order(self, dues: Sequence[Due]) -> bool:
        """Send events; return whether all are settled."""
        for due in dues:
            if self._stopping.is_set():
                return False
            settled = await self._attempt(due)
            final = not isinstance(settled.verdict, Again | Gone)
            if final:
                self._cursor = max(self._cursor, due.number)
            await self._settle([settled])
            if not final:
                return False
        return True

    async def _deliver_side_by_side(self, dues: Sequence[Due], until: int) -> None:
        """Send events; when each was tried, the log is done with until there."""
        settled: list[Settled] = []
        limiter = anyio.CapacityLimiter(self._settings.parallel)

        async def attempt(due: Due) -> None:
            async with limiter:
                if not self._stopping.is_set():
                    settled.append(await self._attempt(due))

        async with anyio.create_task_group() as group:
            for due in dues:
                group.start_soon(attempt, due)
        if len(settled) == len(dues):
            self._cursor = until
        if settled:
            await self._settle(settled)

    async def _attempt(self, due: Due) -> Settled:
        reply = await self._send(self._subscription, told_event(due.event), self._key)
        settings = self._settings
        verdict = after_reply(
            reply,
            due.attempts + 1,
            retry_seconds=settings.retry_seconds,
            jitter=settings.jitter,
            chance=self._chance(),
        )
        if not reply.taken:
            log.info(
                "subscription.not_taken",
                subscription=self._name,
                event_id=due.event.event_id,
                attempts=due.attempts + 1,
                reason=reply.reason,
                then=type(verdict).__name__.lower(),
            )
        return Settled(due, reply, verdict)

    async def _settle(self, settled: Sequence[Settled]) -> None:
        await self._deliveries.settle(self._subscription, settled, self._cursor)
        self._written = self._cursor
        self._gone = self._gone or any(isinstance(each.verdict, Gone) for each in settled)

    @property
    def _name(self) -> str:
        return str(self._subscription.id)
