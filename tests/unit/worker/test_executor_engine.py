"""The engine of an executor: what it does with attempts while its worker stops."""

from datetime import UTC, datetime
from types import SimpleNamespace

import anyio
import pytest
from msgspec import Raw

from pubsubflow.executors import DONE, AttemptExit
from pubsubflow.executors.interface import NoOptions
from pubsubflow.model.wire.messages import RunInfo, TaskMessage, encode
from pubsubflow.worker.assignment import Assignment, decode_header
from pubsubflow.worker.executors.engine import ExecutorEngine
from pubsubflow.worker.executors.settings import AttemptSettings, OfferedExecutor

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


async def test_an_attempt_that_is_given_up_while_it_is_removed_is_finished_once():
    run_id = "01930000-0000-7000-8000-000000000000"
    run = RunInfo(1, run_id, "d", "manual", {}, None, None, "by hand", datetime.now(UTC), [])
    message = TaskMessage(1, 2, -1, 1, 2, "async", "d", "t", "h", Raw(encode(run)))
    delivery = SimpleNamespace(subject="psf.task.default", attempts=1)
    assignment = Assignment(1, decode_header(encode(message)), delivery, redelivered=False)
    executor, ends, acknowledged = StopsMeanwhile(), [], []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            engine = ExecutorEngine(
                OfferedExecutor("x", executor),
                settings=AttemptSettings(subject="", executor="x"),
                worker="w1",
                group=group,
                managers=None,
                publisher=SimpleNamespace(acknowledge=acknowledged.append),
                local={},
                on_returned=lambda _: ends.append("returned"),
                on_finished=lambda _: ends.append("finished"),
            )
            engine.submit(assignment)
            await executor.removing.wait()
            engine.kill_all()
            executor.stopped.set()
    assert (ends, acknowledged) == (["returned"], [assignment])
