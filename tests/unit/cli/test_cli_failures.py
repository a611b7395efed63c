"""The failures of a run are listed as soon as there are some."""

from types import SimpleNamespace

import pytest

from pubsubflow.cli.commands.runs import failures
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.wire.messages import TaskError

pytestmark = pytest.mark.anyio


class Tasks:
    """A client of a run with one task of each kind."""

    async def tasks(self, run_id):
        error = TaskError("ValueError", "no", "")
        for name, state, its_error in (
            ("load", TaskState.FAILED, error),
            ("count", TaskState.UPSTREAM_FAILED, None),
            ("skipped", TaskState.SKIPPED, error),
            ("other", TaskState.QUEUED, None),
        ):
            yield SimpleNamespace(id=f"{run_id}.{name}", state=state, error=its_error)


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.FAILED, RunState.CANCELLED])
async def test_failures_are_listed_while_a_run_goes_on_and_after(state):
    found = await failures(Tasks(), SimpleNamespace(run_id="r", state=state), most=None)
    assert found == [
        "load: ValueError: no",
        "did not start, because a task before failed: count",
    ]


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.SUCCESS])
async def test_a_run_that_has_not_failed_is_not_searched(state):
    assert await failures(None, SimpleNamespace(run_id="r", state=state)) == []
