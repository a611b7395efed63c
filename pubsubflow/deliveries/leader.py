"""The leader's term: the daemon that holds the lease delivers to all active subscribers."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from pubsubflow.bus import Bus
from pubsubflow.deliveries.settings import DeliverySettings
from pubsubflow.deliveries.subscriber import SafePosition, Send, SubscriberDelivery
from pubsubflow.errors import (
    BusUnavailable,
    ConfigError,
    InvalidInput,
    LeaseLost,
    NotFound,
    Unavailable,
)
from pubsubflow.model.subscriptions import EventSubscription, read_key
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import Lease
from pubsubflow.store.subscribers import Subscribers
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger()

EVENT_SUBJECTS = "psf.evt.dataset.>"
IDLE_SECONDS = 60.0
_SUBSCRIBE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.002
_MAX_PAUSE_SECONDS = 0.1


class _Running:
    """A subscriber's delivery loop under way, for one version of its subscription."""

    def __init__(self, delivery: SubscriberDelivery, version: int) -> None:
        self.delivery = delivery
        self.version = version
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class LeaderTerm:
    """One term as leader; see `lead`.

    Args:
        subscribers: The stored subscriptions.
        deliveries: Reads events and records the outcome of each delivery.
        lease: Held by this daemon when the term begins.
        bus: Announces new events.
        send: Sends one event.
        settings: Limits and pauses.
        changed: Notified when subscriptions have changed, and when the daemon stops.
        stopping: Set when the daemon stops.
    """

    def __init__(
        self,
        *,
        subscribers: Subscribers,
        deliveries: Deliveries,
        lease: Lease,
        bus: Bus,
        send: Send,
        settings: DeliverySettings,
        changed: Wakeup,
        stopping: anyio.Event,
    ) -> None:
        self._subscribers = subscribers
        self._deliveries = deliveries
        self._lease = lease
        self._bus = bus
        self._send = send
        self._settings = settings
        self._changed = changed
        self._stopping = stopping
        self._safe = SafePosition()
        self._recorded = Wakeup()
        self._running: dict[UUID, _Running] = {}
        self._error: Unavailable | LeaseLost | None = None

    async def lead(self) -> None:
        """Deliver until no active subscription is left, or the daemon stops.

        Raises:
            LeaseLost: Another daemon has taken the lease.
            Unavailable: Postgres or NATS is out of reach.
        """
        try:
            with anyio.fail_after(_SUBSCRIBE_SECONDS):
                events = await self._bus.subscribe(EVENT_SUBJECTS, self._recorded.notify)
        except TimeoutError as error:
            raise BusUnavailable(
                f"cannot subscribe to {EVENT_SUBJECTS}: NATS is out of reach"
            ) from error
        async with events, anyio.create_task_group() as group:
            group.start_soon(self._guard, group, self._keep_lease)
            group.start_soon(self._guard, group, self._advance_safe_position)
            group.start_soon(self._guard, group, partial(self._supervise, group))
        if self._error is not None:
            raise self._error

    async def _guard(self, group: TaskGroup, work: Callable[[], Awaitable[None]]) -> None:
        """End the term when one of its tasks fails; the first error is the term's."""
        try:
            await work()
        except (Unavailable, LeaseLost) as error:
            self._error = self._error or error
            group.cancel_scope.cancel()

    async def _keep_lease(self) -> None:
        """Renew the lease three times in the interval after which others take it over."""
        seconds = self._settings.silent_seconds / 3
        while True:
            await anyio.sleep(seconds)
            with anyio.move_on_after(seconds) as scope:
                await self._lease.renew()
            if scope.cancelled_caught:
                raise LeaseLost("the lease could not be renewed in time")

    async def _advance_safe_position(self) -> None:
        """Advance the position up to which no further event can appear in the log."""
        while True:
            # An event's id is drawn before its transaction commits, so a lower id may commit after
            # a higher one. The writers that were open when `last` was read are waited for; new
            # ones draw ids above `last` and hold nothing up.
            last, writers = await self._deliveries.position_and_writers()
            if last > self._safe.number:
                pause = _FIRST_PAUSE_SECONDS
                while writers:
                    await anyio.sleep(pause)
                    pause = min(pause * 2, _MAX_PAUSE_SECONDS)
                    writers &= await self._deliveries.writers()
                self._safe.number = last
                for running in self._running.values():
                    running.delivery.wakeup.notify()
            await self._recorded.wait(self._settings.sweep_seconds)

    async def _supervise(self, group: TaskGroup) -> None:
        """Keep a delivery loop running for each active subscription; return when none is left."""
        while not self._stopping.is_set():
            active = {each.id: each for each in await self._subscribers.list_active()}
            for name, running in list(self._running.items()):
                if name not in active or active[name].version != running.version:
                    running.scope.cancel()
                    # Two loops of one subscription would both move its cursor.
                    await running.ended.wait()
                    del self._running[name]
            for name, subscription in active.items():
                if name in self._running:
                    # A dead letter of this subscription may have been sent again.
                    self._running[name].delivery.wakeup.notify()
                else:
                    await self._start(subscription, group)
            if not active:
                break
            await self._changed.wait(IDLE_SECONDS)
        await self._drain()
        group.cancel_scope.cancel()

    async def _start(self, subscription: EventSubscription, group: TaskGroup) -> None:
        try:
            key = read_key(await self._subscribers.secret(subscription.id))
        except (ConfigError, InvalidInput, NotFound) as error:
            # One unreadable secret must not stop the other subscribers; the next round retries.
            name = str(subscription.id)
            log.error("subscription.secret_unreadable", subscription=name, reason=str(error))  # noqa: TRY400
            return
        delivery = SubscriberDelivery(
            subscription,
            key,
            deliveries=self._deliveries,
            send=self._send,
            safe=self._safe,
            settings=self._settings,
            stopping=self._stopping,
        )
        self._running[subscription.id] = running = _Running(delivery, subscription.version)
        group.start_soon(self._guard, group, partial(self._run, running))

    async def _run(self, running: _Running) -> None:
        try:
            with running.scope:
                await running.delivery.run()
            if not (running.scope.cancel_called or self._stopping.is_set()):
                self._changed.notify()  # the receiver answered 410: it is active no longer
        finally:
            running.ended.set()

    async def _drain(self) -> None:
        """Wait for requests under way, `drain_seconds` at most."""
        with anyio.move_on_after(self._settings.drain_seconds):
            for running in self._running.values():
                running.delivery.wakeup.notify()
                await running.ended.wait()
