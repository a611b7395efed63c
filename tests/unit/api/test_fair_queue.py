"""Fair shares: nobody is held up by another's flood, and nobody's place is lost."""

import asyncio

import anyio
import pytest

from pubsubflow.api.server.fair_queue import SHARE_KEY, FairQueue, RequestShares
from pubsubflow.model.wire.commands import RecordEvents, SetPaused
from pubsubflow.model.wire.messages import NewEvent

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Gatekeeper:
    """Carries out calls when it is told to, and notes their order."""

    def __init__(self):
        self.begun = []
        self._answers = {}

    async def execute(self, call):
        self.begun.append(call.source if isinstance(call, RecordEvents) else "other")
        answer = self._answers[len(self.begun)] = asyncio.get_running_loop().create_future()
        return await answer

    async def answer_all(self):
        """Answer until nobody comes any more."""
        while open_ones := [each for each in self._answers.values() if not each.done()]:
            for each in open_ones:
                each.set_result(None)
            await anyio.wait_all_tasks_blocked()


def posted(share_key, size=1):
    return RecordEvents((NewEvent("s3://a"),) * size, (None,) * size, share_key)


async def bring(fair, share_key, size=1):
    SHARE_KEY.set(share_key)
    await fair.execute(posted(share_key, size))


async def test_a_lane_that_comes_late_is_next_in_turn():
    calls = Gatekeeper()
    fair = FairQueue(calls, window=2, quantum=1)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(bring, fair, "flood")
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            group.start_soon(bring, fair, "quiet")
        await anyio.wait_all_tasks_blocked()
        await calls.answer_all()
    assert calls.begun[:2] == ["flood", "flood"]
    assert calls.begun[2:8].count("quiet") == 3
    assert len(calls.begun) == 23


async def test_turns_are_counted_in_events():
    calls = Gatekeeper()
    fair = FairQueue(calls, window=10, quantum=10)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(bring, fair, "large", 10)
        await anyio.wait_all_tasks_blocked()
        for _ in range(20):
            group.start_soon(bring, fair, "small")
        await anyio.wait_all_tasks_blocked()
        assert calls.begun == ["large"]
        await calls.answer_all()
    assert calls.begun[1:23].count("large") == 2
    assert calls.begun.count("small") == 20


async def test_a_call_larger_than_the_window_goes_alone():
    calls = Gatekeeper()
    fair = FairQueue(calls, window=10, quantum=1)
    async with anyio.create_task_group() as group:
        group.start_soon(bring, fair, "a", 100)
        group.start_soon(bring, fair, "b")
        await anyio.wait_all_tasks_blocked()
        assert calls.begun == ["a"]
        await calls.answer_all()
    assert calls.begun == ["a", "b"]


async def test_calls_without_a_share_key_do_not_wait():
    calls = Gatekeeper()
    fair = FairQueue(calls, window=1)
    async with anyio.create_task_group() as group:
        group.start_soon(bring, fair, "a")
        group.start_soon(bring, fair, "a")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(fair.execute, SetPaused("d", paused=True))
        await anyio.wait_all_tasks_blocked()
        assert calls.begun == ["a", "other"]
        await calls.answer_all()


@pytest.mark.parametrize("yields", [0, 1, 2, 3])
async def test_clients_that_leave_at_any_moment_leave_no_gap(yields):
    """At worst one is cancelled and let in by the same turn of the loop."""
    calls = Gatekeeper()
    fair = FairQueue(calls, window=1)
    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as leaving:
            for share_key in "aaabbb":
                leaving.start_soon(bring, fair, share_key)
            await anyio.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
            for _ in range(yields):
                await asyncio.sleep(0)
        for _ in range(5):
            group.start_soon(bring, fair, "c")
        await anyio.wait_all_tasks_blocked()
        await calls.answer_all()
    assert calls.begun.count("c") == 5


def test_a_single_lane_may_use_everything_and_others_still_get_in():
    shares = RequestShares(4)
    taken = [shares.take("flood") for _ in range(4)]
    for each in taken:
        assert shares.has_room("flood")
        each.__enter__()
    assert not shares.has_room("flood")
    assert shares.has_room("quiet")
    with shares.take("quiet"):
        assert shares.has_room("quiet")
        assert not shares.has_room("flood")
        with shares.take("quiet"):
            assert not shares.has_room("quiet")
    taken[0].__exit__(None, None, None)
    assert shares.has_room("flood")
