"""The wait for the end of a run; on a terminal it shows how far the run is."""

import time
from datetime import UTC, datetime

from pubsubflow.cli import output
from pubsubflow.cli.status_line import StatusLine
from pubsubflow.client import Client
from pubsubflow.model.api.resources import NOT_STARTED, RunDetail
from pubsubflow.model.runs.states import RunState, TaskState

_LOOK_SECONDS = 1.0
_COUNTED = 1000
_NAMED = 3


async def wait_for_run(client: Client, run_id: str, seconds: float | None = None) -> RunDetail:
    """Wait until a run has ended, or for so long; return it.

    Args:
        client: The client.
        run_id: Id of the run.
        seconds: How long at most; without an end if left out.
    """
    with StatusLine() as line:
        if not line.shown:
            return await client.wait(run_id, timeout_seconds=seconds)
        give_up = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _LOOK_SECONDS if give_up is None else give_up - time.monotonic()
            part = max(0.0, min(left, _LOOK_SECONDS))
            run = await client.wait(run_id, timeout_seconds=part)
            if RunState(run.state).final or left <= part < _LOOK_SECONDS:
                return run
            await _show(line, client, run)


async def _show(line: StatusLine, client: Client, run: RunDetail) -> None:
    """Show how many tasks of a run have ended, and which are under way."""
    ended = total = 0
    under_way = []
    async for task in client.tasks(run.run_id, limit=_COUNTED):
        total += 1
        if task.state != NOT_STARTED and TaskState(task.state).final:
            ended += 1
        elif task.state != NOT_STARTED:
            under_way.append(f"{task.id.removeprefix(f'{run.run_id}.')} {task.state}")
    names = ", ".join(under_way[:_NAMED]) + ", …" * (len(under_way) > _NAMED)
    took = output.duration(run.created_at, datetime.now(UTC))
    parts = [f"{run.dag_id} {run.state}", took, names]
    line.show(", ".join(filter(None, parts)), ended, total)
