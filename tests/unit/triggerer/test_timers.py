import asyncio
import heapq

import pytest

from pubsubflow.triggerer.host.timers import TimerHeap

pytestmark = pytest.mark.anyio


class Loop:
    """The running loop, with a clock that is moved by hand and timers that are counted."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.timers = []
        self.create_future = asyncio.get_running_loop().create_future

    def call_later(self, seconds, act):
        timer = Timer(self.time + seconds, act)
        heapq.heappush(self.timers, timer)
        return timer

    async def turn(self, seconds):
        self.time += seconds
        while self.timers and self.timers[0].at <= self.time:
            timer = heapq.heappop(self.timers)
            if not timer.cancelled:
                timer.act()
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def armed(self):
        return sum(not timer.cancelled for timer in self.timers)


class Timer:
    def __init__(self, at, act) -> None:
        self.at = at
        self.act = act
        self.cancelled = False

    def __lt__(self, other):
        return self.at < other.at

    def cancel(self):
        self.cancelled = True


@pytest.fixture
async def loop(anyio_backend):
    return Loop()


@pytest.fixture
async def timers(loop):
    return TimerHeap(loop, lambda: loop.time)


async def sleep(timers, moment, woken):
    await timers.sleep_until(moment)
    woken.append(moment)


async def test_sleepers_wake_in_the_order_of_their_moments_with_one_timer(timers, loop):
    woken = []
    async with asyncio.TaskGroup() as group:
        for moment in (1030.0, 1010.0, 1020.0, 1010.0):
            group.create_task(sleep(timers, moment, woken))
        await loop.turn(0)
        assert loop.armed == 1
        await loop.turn(9.9)
        assert woken == []
        await loop.turn(0.1)
        assert woken == [1010.0, 1010.0]
        assert loop.armed == 1
        await loop.turn(20)
    assert woken == [1010.0, 1010.0, 1020.0, 1030.0]
    assert (len(timers), loop.armed) == (0, 0)


async def test_a_moment_that_is_over_comes_at_once(timers, loop):
    woken = []
    async with asyncio.TaskGroup() as group:
        group.create_task(sleep(timers, 5.0, woken))
        await loop.turn(0)
        await loop.turn(0)
    assert woken == [5.0]


async def test_a_clock_that_is_set_forward_is_noticed_within_a_minute(timers, loop):
    woken = []
    async with asyncio.TaskGroup() as group:
        group.create_task(sleep(timers, 9000.0, woken))
        await loop.turn(0)
        offset = 8000.0
        timers._now = lambda: loop.time + offset
        await loop.turn(60)
    assert woken == [9000.0]


async def test_cancelled_sleepers_are_forgotten(timers, loop):
    woken = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sleep(timers, 2000.0 + place, woken)) for place in range(2000)]
        await loop.turn(0)
        for task in tasks[:-10]:
            task.cancel()
        await loop.turn(0)
        assert len(timers) < 600
        await loop.turn(3000)
    assert len(woken) == 10
    assert len(timers) == 0
