"""Timer service: what it fires from memory, and when it reads timers anew."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.wire.commands import Timer
from pubsubflow.timers import TimerService
from support.harness import running

pytestmark = pytest.mark.anyio


class Subscription:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None


class Servers:
    """Timers in memory, the manager that fires them, and a bus that wakes."""

    def __init__(self, count):
        soon = datetime.now(UTC) + timedelta(milliseconds=30)
        self.stored = [
            Timer(soon + timedelta(milliseconds=number), "deadline", number=number)
            for number in range(1, count + 1)
        ]
        self.fired, self.reads, self.fails = [], 0, 1
        self.done = anyio.Event()

    async def subscribe(self, _subject, wake):
        self.wake = wake
        return Subscription()

    async def mend(self):
        return 0

    async def ticks(self):
        return []

    async def upcoming(self, limit):
        self.reads += 1
        return sorted(self.stored, key=lambda timer: (timer.due_at, timer.number))[:limit]

    async def execute(self, command):
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        assert all(timer.due_at <= datetime.now(UTC) for timer in command.timers)
        self.fired += [timer.number for timer in command.timers]
        self.stored = [timer for timer in self.stored if timer not in command.timers]
        if command.timers[0].number == 1:
            # Set meanwhile, and due before those that are in memory.
            self.stored.append(Timer(datetime.now(UTC), "retry", number=1000))
            self.wake(None)
        if not self.stored:
            self.done.set()


async def test_timers_that_follow_closely_are_read_once_and_each_fires_once():
    servers = Servers(600)
    async with running(TimerService(timers=servers, bus=servers, commands=servers)):
        with anyio.fail_after(60):
            await servers.done.wait()
    numbers = [number for number in servers.fired if number != 1000]
    assert numbers == list(range(1, 601))
    assert servers.fired.count(1000) == 1
    assert servers.reads < 60
