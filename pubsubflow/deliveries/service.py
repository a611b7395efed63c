"""The service: of all daemons that play the role, the one that has the lease delivers.

It looks into the log when news of dataset events comes; time is only the safety net. Where nobody
subscribes, it holds no lease and listens to no events.
"""

from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import anyio
import msgspec
import structlog
from anyio.abc import ObjectReceiveStream, TaskStatus
from anyio.streams.memory import MemoryObjectSendStream

from pubsubflow.bus import Bus, Message
from pubsubflow.deliveries.bell import Bell
from pubsubflow.deliveries.leader import IDLE_SECONDS, Leading
from pubsubflow.deliveries.sender import Sender
from pubsubflow.deliveries.settings import SubscriptionsSettings
from pubsubflow.errors import ConfigError, InvalidInput, LeaseLost, NotFound, Unavailable
from pubsubflow.model.cloud_events import SOURCE, Told
from pubsubflow.model.ids import new_id
from pubsubflow.model.subscriptions import CHANGED, TEST, TestedDelivery, read_key
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import Lease
from pubsubflow.store.subscribers import Subscribers

log = structlog.get_logger()

QUEUE = "subscriptions"
TESTED = "org.pubsubflow.subscription.test"
_TESTS, _TESTERS = 16, 2
_AWAY_SECONDS = 0.5
_CLEAN_UP_SECONDS = 2.0


class Subscriptions:
    """Delivers events to subscribers; several may run, one at a time delivers.

    Args:
        subscribers: Who subscribes.
        deliveries: Where events are, and where it is written what became of them.
        lease: Of which only one daemon has it.
        bus: Brings news.
        settings: See there.
        allow_private: Whether URLs may lead to this machine or its networks.
    """

    def __init__(
        self,
        *,
        subscribers: Subscribers,
        deliveries: Deliveries,
        lease: Lease,
        bus: Bus,
        settings: SubscriptionsSettings,
        allow_private: bool,
    ) -> None:
        self._subscribers = subscribers
        self._deliveries = deliveries
        self._lease = lease
        self._bus = bus
        self._settings = settings
        self._allow_private = allow_private
        self._changed = Bell()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver until `stopping` is set; what is not delivered by then stays in the store."""
        ask, asked = anyio.create_memory_object_stream[Message](_TESTS)
        async with ask, asked, AsyncExitStack() as stack:
            await stack.enter_async_context(await self._bus.subscribe(CHANGED, self._changed.ring))
            await stack.enter_async_context(
                await self._bus.subscribe(TEST, partial(_take, ask), queue=QUEUE)
            )
            stack.callback(self._bus.on_reconnect(self._changed.ring))
            sender = await stack.enter_async_context(
                Sender.open(self._settings, allow_private=self._allow_private)
            )
            group = await stack.enter_async_context(anyio.create_task_group())
            group.start_soon(self._ring_at_end, stopping)
            for _ in range(_TESTERS):
                group.start_soon(self._answer_tests, asked.clone(), sender)
            task_status.started()
            await self._serve(sender, stopping)
            group.cancel_scope.cancel()

    async def _ring_at_end(self, stopping: anyio.Event) -> None:
        await stopping.wait()
        self._changed.ring()

    async def _serve(self, sender: Sender, stopping: anyio.Event) -> None:
        while not stopping.is_set():
            try:
                pause = await self._turn(sender, stopping)
            except LeaseLost as error:
                log.warning("subscriptions.lease_lost", reason=str(error))
                pause = self._settings.silent_seconds / 3
            except Unavailable as error:
                log.warning("subscriptions.postponed", reason=str(error))
                pause = _AWAY_SECONDS
            await self._changed.wait(pause)

    async def _turn(self, sender: Sender, stopping: anyio.Event) -> float:
        """Deliver if there is somebody and it is ours to do; return how long to wait then."""
        if not await self._subscribers.active():
            return IDLE_SECONDS
        if not await self._lease.take(self._settings.silent_seconds):
            return self._settings.silent_seconds / 3
        log.info("subscriptions.delivering")
        leading = Leading(
            subscribers=self._subscribers,
            deliveries=self._deliveries,
            lease=self._lease,
            bus=self._bus,
            send=sender.send,
            settings=self._settings,
            changed=self._changed,
            stopping=stopping,
        )
        try:
            await leading.lead()
        finally:
            # A lease that cannot be given back is taken over when its owner is silent for long.
            with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True), suppress(Unavailable):
                await self._lease.leave()
                self._bus.publish(CHANGED, b"")
        return 0.0

    async def _answer_tests(self, asked: ObjectReceiveStream[Message], sender: Sender) -> None:
        async with asked:
            async for message in asked:
                try:
                    answer = await self._test(message.data, sender)
                except (Unavailable, NotFound, ConfigError, InvalidInput, ValueError) as error:
                    answer = TestedDelivery(delivered=False, seconds=0.0, reason=str(error))
                message.respond(msgspec.json.encode(answer))

    async def _test(self, name: bytes, sender: Sender) -> TestedDelivery:
        subscription = await self._subscribers.read(UUID(name.decode()))
        told = Told(str(new_id()), SOURCE, TESTED, datetime.now(UTC), data={})
        key = read_key(await self._subscribers.secret(subscription.id))
        started = anyio.current_time()
        reply = await sender.send(subscription, told, key)
        seconds = round(anyio.current_time() - started, 3)
        reason = "" if reply.taken else reply.reason
        return TestedDelivery(
            delivered=reply.taken, seconds=seconds, status=reply.status, reason=reason
        )


def _take(ask: MemoryObjectSendStream[Message], message: Message) -> None:
    """Take a test; whoever asks when there are too many is told that nobody answers."""
    with suppress(anyio.WouldBlock, anyio.ClosedResourceError):
        ask.send_nowait(message)
