"""Event waits: checks of recorded events against the tasks that wait for one."""

from collections.abc import Iterable, Sequence

from pubsubflow.manager.persistence.load import load_events
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import CheckedWait, UnitOfWork
from pubsubflow.manager.working_state import LoggedEvent
from pubsubflow.model.cel.expressions import filter_mismatch
from pubsubflow.model.wire.messages import TaskKey, encode
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row

EVENTS_A_READ = 1000


class EventWaitCheck:
    """Checks waits against the log, in its order, under the lock of the table of event waits.

    No other transaction records an event of their datasets meanwhile, so none is missed.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        lifecycle: RunLifecycle,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._lifecycle = lifecycle

    async def check(self, tasks: Iterable[TaskKey]) -> None:
        """Complete the waits of tasks for which there is an event that was not checked yet."""
        await self._transaction.fetch("lock_event_waits")
        rows = await self._transaction.fetch_rows("read_due_event_waits", sorted(set(tasks)))
        groups: dict[tuple[int | None, str | None], list[Row]] = {}
        for row in rows:
            groups.setdefault((row["dataset"], row["expression"]), []).append(row)
        for (dataset, expression), waits in groups.items():
            await self._check_group(dataset, expression, waits)

    async def _check_group(
        self, dataset: int | None, expression: str | None, waits: Sequence[Row]
    ) -> None:
        """Read the log once for all waits for the same datasets."""
        open_ = list(waits)
        after = min(row["checked_until"] for row in waits)
        since = min(row["since"] for row in waits)
        while True:
            rows = await self._transaction.fetch(
                "read_events_after", dataset, expression, after, since, EVENTS_A_READ
            )
            for event in await load_events(rows, self._specs, self._transaction):
                open_ = [wait for wait in open_ if not self._complete(wait, event)]
                after = event.id
            if len(rows) < EVENTS_A_READ or not open_:
                break
        self._uow.waits.checked.extend(
            CheckedWait(wait["trigger"], max(after, wait["checked_until"])) for wait in open_
        )

    def _complete(self, wait: Row, event: LoggedEvent) -> bool:
        """Complete a wait by an event, if that is one that it waits for."""
        # One read serves several waits, so it begins where the earliest of them does.
        early = event.recorded_at is None or event.recorded_at < wait["since"]
        if early or event.id <= wait["checked_until"] or not _meets(wait["filter"], event):
            return False
        task = (wait["run"], wait["node"], wait["map_index"])
        end = self._lifecycle.waits.event_recorded(
            task, wait["delivery"], wait["wait_index"], encode(event.info), event.id
        )
        self._lifecycle.wait_ended(end)
        return True


def _meets(expression: str | None, event: LoggedEvent) -> bool:
    return expression is None or filter_mismatch(expression, event.info) is None


async def mark_due_waits(
    events: Sequence[LoggedEvent],
    datasets: Sequence[int],
    uow: UnitOfWork,
    transaction: ManagerTransaction,
) -> None:
    """Mark the waits that new events concern as due; they are checked after the commit."""
    by_uri: dict[str, list[LoggedEvent]] = {}
    for event in events:
        if event.held:
            continue
        by_uri.setdefault(event.info.dataset, []).append(event)
    for row in await transaction.fetch("find_event_waits", datasets):
        if any(_meets(row["filter"], event) for event in by_uri.get(row["uri"], ())):
            uow.waits.due.append(row["trigger"])
            uow.waits.to_check.append((row["run"], row["node"], row["map_index"]))
