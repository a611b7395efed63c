"""Harness of deliveries: a manager, subscribers in the store, and a receiver."""

from pubsubflow.model.subscriptions import CHANGED, SubscriptionSpec, new_signing_secret
from pubsubflow.model.wire.commands import RecordEvents
from pubsubflow.model.wire.messages import NewEvent
from support.harness import Harness
from support.receiver import URI
from support.signals import TIMEOUT_SECONDS

SAFE_POSITION_WAIT = """
SELECT FROM pg_stat_activity
WHERE query LIKE '%l.virtualtransaction%' AND datname = current_database()
  AND pid <> pg_backend_pid()
"""


class DeliveriesHarness(Harness):
    """Posts events by a manager, and reads what became of a subscription."""

    def __init__(self, database, bus, manager, receiver, subscribers):
        super().__init__(database, bus)
        self.manager = manager
        self.receiver = receiver
        self.subscribers = subscribers

    async def subscribe(self, name, **fields):
        secret = new_signing_secret()
        self.receiver.secrets[name] = secret
        spec = SubscriptionSpec(fields.pop("url", f"{self.receiver.url}/{name}"), **fields)
        made = await self.subscribers.create(spec, secret)
        self.bus.publish(CHANGED, b"")
        return made

    async def post(self, *names, uri=URI, **extra):
        events = tuple(NewEvent(uri, {"name": name, **extra}, extra.get("part")) for name in names)
        recorded = await self.manager.execute(RecordEvents(events, (None,) * len(events)))
        return [each.event_id for each in recorded]

    async def until_subscription(self, made, condition):
        """Wait until a subscription is as it should be, and return it."""

        async def found():
            subscription = await self.subscribers.get(made.id)
            return subscription if condition(subscription) else None

        return await self.signal.wait_until(found, poll_seconds=0.02)

    async def until_safe_position_read(self):
        """Wait until the service has looked for transactions that still record events."""
        await self.signal.wait_until(
            lambda: self.rows(SAFE_POSITION_WAIT), seconds=TIMEOUT_SECONDS, poll_seconds=0.001
        )
