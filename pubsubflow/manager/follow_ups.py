"""Follow-ups of a committed transaction: what needs another transaction, after it."""

from collections.abc import Iterator

from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.model.wire.commands import (
    AdvanceBackfills,
    CheckEventWaits,
    CheckPastWaits,
    StartQueuedRuns,
)

_CHECKED_TASKS = 1000


_FollowUp = CheckEventWaits | CheckPastWaits | AdvanceBackfills | StartQueuedRuns


def follow_ups(uow: UnitOfWork) -> Iterator[_FollowUp]:
    """Yield checks of waits, and what starts further runs; the sweeper finds what gets lost."""
    waits = uow.waits
    tasks = sorted(set(waits.to_check))
    for first in range(0, len(tasks), _CHECKED_TASKS):
        # In one transaction the lock of event waits would come after those of DAG states.
        yield CheckEventWaits(tuple(tasks[first : first + _CHECKED_TASKS]))
    if waits.past_to_check or waits.past_changed:
        yield CheckPastWaits(
            tuple(sorted(set(waits.past_to_check))), tuple(sorted(set(waits.past_changed)))
        )
    if uow.schedule.advancing:
        yield AdvanceBackfills(tuple(sorted(set(uow.schedule.advancing))))
    if uow.schedule.start_queued or (
        uow.schedule.run_limits
        and any(dag.recheck and dag.run_limits for dag in uow.schedule.dags.values())
    ):
        yield StartQueuedRuns()
