"""Pull consumers that hand every message of a subject to a test."""

from pubsubflow.bus import PullConsumer

CREDIT = 1_000_000


async def start_consumer(group, bus, stopping, **options):
    """Start a pull consumer in a task group, with credit for more messages than any test has."""
    consumer = PullConsumer(bus, **options)
    consumer.credit(CREDIT)
    await group.start(consumer.run, stopping)
