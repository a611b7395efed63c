"""Delivers to all subscribers, as long as this daemon has the lease."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from pubsubflow.bus import Bus
from pubsubflow.deliveries.bell import Bell
from pubsubflow.deliveries.settings import SubscriptionsSettings
from pubsubflow.deliveries.subscriber import Horizon, Lane, Send
from pubsubflow.errors import (
    BusUnavailable,
    ConfigError,
    InvalidInput,
    LeaseLost,
    NotFound,
    Unavailable,
)
from pubsubflow.model.subscriptions import Subscription, read_key
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import Lease
from pubsubflow.store.subscribers import Subscribers

log = structlog.get_logger()

NEWS = "psf.evt.dataset.>"
IDLE_SECONDS = 60.0
_SUBSCRIBE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.1


class _Running:
    """A lane that runs."""

    def __init__(self, lane: Lane, version: int) -> None:
        self.lane = lane
        self.version = version
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class Leading:
    """One term of the daemon that delivers; see `lead`.

    Args:
        subscribers: Who subscribes.
        deliveries: Where events are, and where it is written what became of them.
        lease: Ours by now.
        bus: Brings news of events.
        send: Sends one event.
        settings: See there.
        changed: Rung when subscriptions have changed, and when it is time to stop.
        stopping: Set when it is time to stop.
    """

    def __init__(
        self,
        *,
        subscribers: Subscribers,
        deliveries: Deliveries,
        lease: Lease,
        bus: Bus,
        send: Send,
        settings: SubscriptionsSettings,
        changed: Bell,
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
        self._horizon = Horizon()
        self._news = Bell()
        self._lanes: dict[UUID, _Running] = {}
        self._trouble: Unavailable | LeaseLost | None = None

    async def lead(self) -> None:
        """Deliver until nobody subscribes any more, or it is time to stop.

        Raises:
            LeaseLost: Another daemon delivers now.
            Unavailable: Postgres or NATS is away.
        """
        try:
            with anyio.fail_after(_SUBSCRIBE_SECONDS):
                news = await self._bus.subscribe(NEWS, self._news.ring)
        except TimeoutError as error:
            raise BusUnavailable("NATS is out of reach: news cannot be waited for") from error
        async with news, anyio.create_task_group() as group:
            group.start_soon(self._guard, group, self._keep_lease)
            group.start_soon(self._guard, group, self._watch_log)
            group.start_soon(self._guard, group, partial(self._serve, group))
        if self._trouble is not None:
            raise self._trouble

    async def _guard(self, group: TaskGroup, work: Callable[[], Awaitable[None]]) -> None:
        """End the term when some part of it cannot go on; the first reason counts."""
        try:
            await work()
        except (Unavailable, LeaseLost) as error:
            self._trouble = self._trouble or error
            group.cancel_scope.cancel()

    async def _keep_lease(self) -> None:
        """Show that we live, more often than others wait for it."""
        seconds = self._settings.silent_seconds / 3
        while True:
            await anyio.sleep(seconds)
            with anyio.move_on_after(seconds) as scope:
                await self._lease.keep()
            if scope.cancelled_caught:
                raise LeaseLost("the lease could not be kept in time")

    async def _watch_log(self) -> None:
        """Find out up to where the log is complete: ids are taken before transactions end.

        Those that end quickly are waited for; nothing holds them up.
        """
        while True:
            last, writers = await self._deliveries.look()
            if last > self._horizon.number:
                pause = _FIRST_PAUSE_SECONDS
                while writers:
                    await anyio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                    writers &= await self._deliveries.writers()
                self._horizon.number = last
                for running in self._lanes.values():
                    running.lane.bell.ring()
            await self._news.wait(self._settings.sweep_seconds)

    async def _serve(self, group: TaskGroup) -> None:
        """Keep a lane for everybody who is delivered to; end the term when there is nobody."""
        while not self._stopping.is_set():
            active = {each.id: each for each in await self._subscribers.active()}
            for name, running in list(self._lanes.items()):
                if name not in active or active[name].version != running.version:
                    running.scope.cancel()
                    await running.ended.wait()
                    del self._lanes[name]
            for name, subscription in active.items():
                if name in self._lanes:
                    self._lanes[name].lane.bell.ring()  # perhaps a dead letter was sent again
                else:
                    await self._start(subscription, group)
            if not active:
                break
            await self._changed.wait(IDLE_SECONDS)
        await self._end_lanes()
        group.cancel_scope.cancel()

    async def _start(self, subscription: Subscription, group: TaskGroup) -> None:
        try:
            key = read_key(await self._subscribers.secret(subscription.id))
        except (ConfigError, InvalidInput, NotFound) as error:
            name = str(subscription.id)
            log.error("subscription.no_secret", subscription=name, reason=str(error))  # noqa: TRY400
            return  # others are not to suffer; it is looked at again
        lane = Lane(
            subscription,
            key,
            deliveries=self._deliveries,
            send=self._send,
            horizon=self._horizon,
            settings=self._settings,
            stopping=self._stopping,
        )
        self._lanes[subscription.id] = running = _Running(lane, subscription.version)
        group.start_soon(self._guard, group, partial(self._run, running))

    async def _run(self, running: _Running) -> None:
        try:
            with running.scope:
                await running.lane.run()
            if not (running.scope.cancel_called or self._stopping.is_set()):
                self._changed.ring()  # the receiver is gone
        finally:
            running.ended.set()

    async def _end_lanes(self) -> None:
        """Let requests under way end, for a while."""
        with anyio.move_on_after(self._settings.drain_seconds):
            for running in self._lanes.values():
                running.lane.bell.ring()
                await running.ended.wait()
