"""The engine of an executor: what it does with attempts while its worker stops."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import anyio
import msgspec
import pytest
from msgspec import Raw

from pubsubflow.executors import DONE, NOT_BEGUN, AttemptExit
from pubsubflow.executors.interface import NoOptions
from pubsubflow.model.wire.messages import Outcome, RunInfo, TaskMessage, decode_result, encode
from pubsubflow.worker.assignment import Assignment, decode_header
from pubsubflow.worker.executors.engine import ExecutorEngine
from pubsubflow.worker.executors.settings import ENVIRONMENT, AttemptSettings, OfferedExecutor

pytestmark = pytest.mark.anyio


class StopsMeanwhile:
    """An executor whose worker stops while it removes an attempt."""

    Options = NoOptions

    def __init__(self):
        self.removing = anyio.Event()
        self.stopped = anyio.Event()

    async def start(self, attempt):
        pass

    async def watch(self, _label, _report):
        return AttemptExit(DONE)

    async def remove(self, _label):
        self.removing.set()
        with anyio.CancelScope(shield=True):
            await self.stopped.wait()


class Ends:
    """An executor whose processes end as it is told."""

    Options = NoOptions

    def __init__(self, *ends):
        self.ends = list(ends)
        self.again = []
        self.removed = 0

    async def start(self, attempt):
        settings = msgspec.json.decode(attempt.environment[ENVIRONMENT], type=AttemptSettings)
        self.again.append(settings.again)

    async def watch(self, _label, _report):
        return self.ends.pop(0)

    async def read_output(self, _label):
        return "no module named pubsubflow"

    async def remove(self, _label):
        self.removed += 1


class Publisher:
    def __init__(self):
        self.acknowledged, self.results, self.output = [], [], []

    def acknowledge(self, assignment):
        self.acknowledged.append(assignment)

    def publish_result(self, _, payload):
        self.results.append(decode_result(payload))

    def add_output(self, _, line):
        self.output.append(json.loads(line)["m"])


def assigned():
    run_id = "01930000-0000-7000-8000-000000000000"
    run = RunInfo(1, run_id, "d", "manual", {}, None, None, "by hand", datetime.now(UTC), [])
    message = TaskMessage(1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(encode(run)))
    delivery = SimpleNamespace(subject="psf.task.default", attempts=1)
    return Assignment(1, decode_header(encode(message)), delivery, redelivered=False)


@asynccontextmanager
async def engine_of(executor):
    """An engine, its publisher, and what becomes of assignments."""
    publisher, ends = Publisher(), []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            engine = ExecutorEngine(
                OfferedExecutor("x", executor),
                settings=AttemptSettings(subject="", executor="x"),
                worker="w1",
                group=group,
                managers=None,
                publisher=publisher,
                local={},
                on_returned=lambda _: ends.append("returned"),
                on_finished=lambda _: ends.append("finished"),
            )
            yield engine, publisher, ends


async def test_an_attempt_that_is_given_up_while_it_is_removed_is_finished_once():
    executor, assignment = StopsMeanwhile(), assigned()
    async with engine_of(executor) as (engine, publisher, ends):
        engine.submit(assignment)
        await executor.removing.wait()
        engine.kill_all()
        executor.stopped.set()
    assert (ends, publisher.acknowledged) == (["returned"], [assignment])


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("pubsubflow.worker.executors.engine._FIRST_PAUSE_SECONDS", 0.0)


UNBEGUN = AttemptExit(1, "its image is broken", begun=False)


@pytest.mark.usefixtures("no_pauses")
async def test_what_has_not_begun_is_started_again_and_counts_nothing():
    executor, assignment = Ends(UNBEGUN, AttemptExit(NOT_BEGUN), AttemptExit(DONE)), assigned()
    async with engine_of(executor) as (engine, publisher, ends):
        engine.submit(assignment)
    assert (ends, publisher.acknowledged, publisher.results) == (["finished"], [assignment], [])
    assert executor.again == [False, True, True]
    assert executor.removed == 3
    assert publisher.output == [
        "x: not started yet: exit code 1: its image is broken",
        "x: not started yet: its process could not begin",
    ]


@pytest.mark.usefixtures("no_pauses")
async def test_what_never_begins_fails_with_its_reason_and_what_has_begun_has_crashed():
    for executor, outcome, kind, words in (
        (Ends(*[UNBEGUN] * 6), Outcome.FAILED, "CannotStart", "6 times before the task began"),
        (Ends(UNBEGUN, AttemptExit(1)), Outcome.CRASHED, "Crashed", "attempt ended: exit code 1"),
    ):
        async with engine_of(executor) as (engine, publisher, _):
            engine.submit(assigned())
        (result,) = publisher.results
        assert (result.outcome, result.error.type, executor.ends) == (outcome, kind, [])
        assert words in result.error.message
        assert not result.error.final
        assert result.error.traceback == "no module named pubsubflow"
