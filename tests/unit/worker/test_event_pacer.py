"""The event pacer: events pass at once, or in turn by run while the managers are behind."""

from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from pubsubflow.bus.consumer_stats import ConsumerStats
from pubsubflow.errors import BusUnavailable
from pubsubflow.worker.event_pacer import EventPacer

pytestmark = pytest.mark.anyio


class Managers:
    """A queue that grows by what is sent, and shrinks as a test says."""

    def __init__(self):
        self.pending = 0
        self.sent = []
        self.away = False
        self.sampled = anyio.Event()

    async def read_consumer_stats(self, stream, consumer):
        del stream, consumer
        self.sampled.set()
        self.sampled = anyio.Event()
        if self.away:
            raise BusUnavailable("away")
        return ConsumerStats("PSF_IN", "managers", waiting=self.pending)

    def send(self, run, number):
        self.pending += 1
        self.sent.append((run, number))


@pytest.fixture
def managers():
    return Managers()


@asynccontextmanager
async def pacer_of(managers, most):
    pacer = EventPacer(managers, most_pending=most)
    async with anyio.create_task_group() as group:
        group.start_soon(pacer.run)
        yield pacer
        group.cancel_scope.cancel()


def submit(pacer, managers, run, count):
    for number in range(count):
        pacer.submit(run, partial(managers.send, run, number))


async def sampled(managers, times=2):
    """Wait for a sample that began after now, and for what follows from it."""
    with anyio.fail_after(10):
        for _ in range(times):
            await managers.sampled.wait()
    await anyio.lowlevel.checkpoint()


async def test_events_pass_at_once_while_the_managers_keep_up(managers):
    async with pacer_of(managers, 1000) as pacer:
        submit(pacer, managers, 1, 3)
        assert managers.sent == [(1, 0), (1, 1), (1, 2)]


async def test_no_more_wait_for_the_managers_than_may_and_runs_take_turns(managers):
    managers.pending = 10
    async with pacer_of(managers, 10) as pacer:
        submit(pacer, managers, 0, 1)  # before the first sample
        await sampled(managers, 1)
        for run, count in ((1, 100), (2, 100), (3, 1)):
            submit(pacer, managers, run, count)
        await sampled(managers)
        assert (len(managers.sent), pacer.held) == (1, 201)
        managers.pending = 4
        await sampled(managers)
        assert Counter(run for run, _ in managers.sent) == {0: 1, 1: 3, 2: 2, 3: 1}
        assert [number for run, number in managers.sent if run == 1] == [0, 1, 2]
        managers.pending = -1000
        await sampled(managers, 1)
        assert pacer.held == 0


async def test_events_pass_while_nobody_can_be_counted(managers):
    managers.pending = 10
    async with pacer_of(managers, 10) as pacer:
        submit(pacer, managers, 1, 1)
        await sampled(managers, 1)
        submit(pacer, managers, 1, 5)
        managers.away = True
        await sampled(managers, 1)
        assert pacer.held == 0


async def test_what_is_held_is_sent_at_the_end(managers):
    managers.pending = 10
    async with pacer_of(managers, 10) as pacer:
        submit(pacer, managers, 1, 1)
        await sampled(managers, 1)
        submit(pacer, managers, 1, 5)
    assert len(managers.sent) == 6
