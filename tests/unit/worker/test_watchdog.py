"""The watchdog of event loops: which processes count as blocked."""

import time
from types import SimpleNamespace

import anyio
import pytest

from pubsubflow.runner.flight_recorder import BEAT, BEGUN, RunnerRecorder
from pubsubflow.worker.processes.watchdog import BLOCK_SECONDS, START_SECONDS, LoopWatchdog

pytestmark = pytest.mark.anyio


class Sent(dict):
    """One assignment, which was sent so long ago."""

    def __init__(self, seconds_ago):
        super().__init__({1: SimpleNamespace(log_fields=dict)})
        self.front_seconds = seconds_ago


class Process:
    """A process with one assignment, by what it wrote into its recorder."""

    pid = 0
    blocked = ending = False

    def __init__(self, recorder, assigned_seconds_ago):
        self.recorder = recorder
        self.assignments = Sent(assigned_seconds_ago)

    def interrupt(self, number):
        pass

    def unblock(self):
        self.blocked = False


async def look_at(process):
    """Return what a look at a process has the pool do."""
    found = []
    async with anyio.create_task_group() as group:
        watchdog = LoopWatchdog(
            [process],
            group,
            on_blocked=found.append,
            on_unblocked=lambda: found.append("dispatch"),
            on_output=lambda *_: None,
        )
        watchdog._check()
        watchdog.close()
        group.cancel_scope.cancel()
    return found


async def found_blocked(process):
    return await look_at(process) == [process]


@pytest.fixture
def recorder():
    recorder = RunnerRecorder()
    yield recorder
    recorder.close()


@pytest.mark.parametrize(
    ("seconds", "blocked"), [(5 * BLOCK_SECONDS, False), (2 * START_SECONDS, True)]
)
async def test_a_process_that_starts_may_take_longer_than_a_turn(recorder, seconds, blocked):
    assert await found_blocked(Process(recorder, seconds)) is blocked


@pytest.mark.parametrize(("seconds", "blocked"), [(0, False), (5 * BLOCK_SECONDS, True)])
async def test_a_loop_that_has_begun_a_task_and_does_not_turn_is_blocked(
    recorder, seconds, blocked
):
    recorder.page[BEGUN] = 1
    recorder.page[BEAT] = time.monotonic_ns() - int(seconds * 1e9)
    assert await found_blocked(Process(recorder, seconds)) is blocked


async def test_a_loop_that_does_not_look_at_a_further_task_is_blocked(recorder):
    recorder.page[BEGUN] = 1
    assert await found_blocked(Process(recorder, 5 * BLOCK_SECONDS))


async def test_what_waits_is_handed_out_when_a_loop_turns_again(recorder):
    recorder.page[BEGUN], recorder.page[BEAT] = 1, time.monotonic_ns()
    process = Process(recorder, 0)
    process.blocked = True
    assert await look_at(process) == ["dispatch"]
    assert not process.blocked
    assert await look_at(process) == []
