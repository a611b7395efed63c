"""Ends of runs: those in this daemon who wait for one learn of it without a hop."""

import anyio.lowlevel

from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import RunWork
from pubsubflow.model.runs.states import RunState
from pubsubflow.wakeup import RunEnds


async def announce_ends(ends: RunEnds, uow: UnitOfWork) -> None:
    """Announce the runs that a committed batch has ended; those who wait for them go on first."""
    called = [
        run
        for run in uow.runs.by_id.values()
        if run.outcome is not None and run.info.run_id in ends.waiting
    ]
    for run in called:
        ends.announce(run.info.run_id, _result(run))
    if called:
        await anyio.lowlevel.cancel_shielded_checkpoint()


def _result(run: RunWork) -> bytes | None:
    """Return the encoded result of a run that succeeded, if it came in with this batch."""
    spec = run.version.spec
    if run.outcome is not RunState.SUCCESS or spec.result is None:
        return None
    # Results of mapped tasks are not kept: their rows are read.
    node = next((task.node for task in spec.tasks if task.task_id == spec.result), None)
    return None if node is None else run.results.get(node)
