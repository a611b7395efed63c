"""The delivery service: of all daemons that run it, the one that holds the lease delivers.

It reads the log when a message announces a dataset event; the timeout is only the safety net.
Without an active subscription it holds no lease and does not subscribe to events.
"""

from collections.abc import Callable
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
from pubsubflow.deliveries.leader import IDLE_SECONDS, LeaderTerm
from pubsubflow.deliveries.sender import Sender
from pubsubflow.deliveries.settings import DeliverySettings
from pubsubflow.errors import ConfigError, InvalidInput, LeaseLost, NotFound, Unavailable
from pubsubflow.model.cloud_events import SOURCE, CloudEvent
from pubsubflow.model.ids import new_id
from pubsubflow.model.subscriptions import CHANGED, TEST, TestedDelivery, read_key
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import Lease
from pubsubflow.store.subscribers import Subscribers
from pubsubflow.wakeup import Wakeup

log = structlog.get_logger()

QUEUE = "subscriptions"
TEST_EVENT_TYPE = "org.pubsubflow.subscription.test"
_MAX_QUEUED_TESTS, _TEST_TASKS = 16, 2
_RETRY_SECONDS = 0.5
_CLEAN_UP_SECONDS = 2.0


class DeliveryService:
    """Delivers events to subscribers; several daemons may run it, one at a time delivers.

    Args:
        subscribers: The stored subscriptions.
        deliveries: Reads events and records the outcome of each delivery.
        lease: Held by the daemon that delivers.
        bus: Announces new events, changed subscriptions and requests for a test.
        settings: Limits and pauses.
        allow_private: Returns whether URLs may lead to this machine or its networks now.
    """

    def __init__(
        self,
        *,
        subscribers: Subscribers,
        deliveries: Deliveries,
        lease: Lease,
        bus: Bus,
        settings: DeliverySettings,
        allow_private: Callable[[], bool],
    ) -> None:
        self._subscribers = subscribers
        self._deliveries = deliveries
        self._lease = lease
        self._bus = bus
        self._settings = settings
        self._allow_private = allow_private
        self._changed = Wakeup()

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Deliver until `stopping` is set; what is not delivered by then stays in the store."""
        send, receive = anyio.create_memory_object_stream[Message](_MAX_QUEUED_TESTS)
        async with send, receive, AsyncExitStack() as stack:
            changes = await self._bus.subscribe(CHANGED, self._changed.notify)
            await stack.enter_async_context(changes)
            tests = await self._bus.subscribe(TEST, partial(_enqueue, send), queue=QUEUE)
            await stack.enter_async_context(tests)
            # Messages are lost while NATS is away: what changed meanwhile is read again.
            stack.callback(self._bus.on_reconnect(self._changed.notify))
            sender = await stack.enter_async_context(
                Sender.open(self._settings, allow_private=self._allow_private)
            )
            group = await stack.enter_async_context(anyio.create_task_group())
            group.start_soon(self._notify_at_stop, stopping)
            for _ in range(_TEST_TASKS):
                group.start_soon(self._answer_tests, receive.clone(), sender)
            task_status.started()
            await self._serve(sender, stopping)
            group.cancel_scope.cancel()

    async def _notify_at_stop(self, stopping: anyio.Event) -> None:
        await stopping.wait()
        self._changed.notify()

    async def _serve(self, sender: Sender, stopping: anyio.Event) -> None:
        said = ""
        while not stopping.is_set():
            try:
                pause = await self._serve_term(sender, stopping)
                said = ""
            except LeaseLost as error:
                log.warning("deliveries.lease_lost", reason=str(error))
                pause = self._settings.silent_seconds / 3
            except Unavailable as error:
                if str(error) != said:  # an outage is said once, not with each try
                    said = str(error)
                    log.warning("deliveries.postponed", reason=said)
                pause = _RETRY_SECONDS
            await self._changed.wait(pause)

    async def _serve_term(self, sender: Sender, stopping: anyio.Event) -> float:
        """Deliver for one term if the lease can be acquired; return the pause that follows."""
        if not await self._subscribers.list_active():
            return IDLE_SECONDS
        if not await self._lease.acquire(self._settings.silent_seconds):
            return self._settings.silent_seconds / 3
        log.info("deliveries.lease_acquired")
        term = LeaderTerm(
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
            await term.lead()
        finally:
            # A lease that cannot be released is taken over after `silent_seconds`. The message
            # wakes the other daemons, so that one of them acquires a released lease at once.
            with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True), suppress(Unavailable):
                await self._lease.release()
                self._bus.publish(CHANGED, b"")
        return 0.0

    async def _answer_tests(self, tests: ObjectReceiveStream[Message], sender: Sender) -> None:
        async with tests:
            async for message in tests:
                try:
                    answer = await self._test(message.data, sender)
                except (Unavailable, NotFound, ConfigError, InvalidInput, ValueError) as error:
                    answer = TestedDelivery(delivered=False, seconds=0.0, reason=str(error))
                message.respond(msgspec.json.encode(answer))

    async def _test(self, subscription_id: bytes, sender: Sender) -> TestedDelivery:
        subscription = await self._subscribers.read(UUID(subscription_id.decode()))
        event = CloudEvent(str(new_id()), SOURCE, TEST_EVENT_TYPE, datetime.now(UTC), data={})
        key = read_key(await self._subscribers.secret(subscription.id))
        started = anyio.current_time()
        reply = await sender.send(subscription, event, key)
        seconds = round(anyio.current_time() - started, 3)
        reason = "" if reply.accepted else reply.reason
        return TestedDelivery(
            delivered=reply.accepted, seconds=seconds, status=reply.status, reason=reason
        )


def _enqueue(tests: MemoryObjectSendStream[Message], message: Message) -> None:
    """Queue a test; beyond the limit it is dropped, and its sender gets a timeout."""
    with suppress(anyio.WouldBlock, anyio.ClosedResourceError):
        tests.send_nowait(message)
