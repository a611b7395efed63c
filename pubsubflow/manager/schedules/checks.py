"""Event checks: holds the events of datasets with blocking checks, and releases those that pass.

A check is a DAG. An event that comes is given to the checks of its dataset: each makes a run of it.
If one of them is blocking, nothing else sees the event: it is stored beside the log. When the last
check that holds it has passed, it is decided about as if it had come at that moment, and gets its
position in the log, under the locks of the DAGs that subscribe. So each DAG sees one order.

Every change of what holds an event is made under the lock of its row, which is taken after the
locks of DAGs.
"""

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.persistence.load import IdAllocator, load_events
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import BegunCheck, UnitOfWork
from pubsubflow.manager.working_state import (
    ConsumedEvent,
    LockedDag,
    LoggedEvent,
    RunDraft,
    RunWork,
    new_event,
)
from pubsubflow.model.changes import CheckChanged
from pubsubflow.model.json_values import json_text
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.checks import (
    OWN_DATASETS,
    CheckVerdict,
    Conclusion,
    check_name,
    check_run_key,
    conclude,
    describe_hold,
    holds,
)
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.database import printable

CHECK_RUN = "check"
"""The kind of the runs of checks."""
CHECK_AGAIN = "check a held event again by `pubsubflow checks run-again EVENT`"
MOST_AT_ONCE = 500
"""Events of one check that one transaction begins to check, or releases."""
_MAX_CHARACTERS = 500
_PASSED = "the check has passed"


class EventChecks:
    """The checks of one batch.

    Args:
        uow: What the transaction changes.
        transaction: Locks held events and reads them.
        specs: DAG versions.
        run_ids: Gives run ids.
        scheduler: Drafts runs.

    Attributes:
        dags: The DAGs of checks that are locked.
        reached: Runs that the undecided events need at most.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        run_ids: IdAllocator,
        scheduler: Scheduler,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._run_ids = run_ids
        self._scheduler = scheduler
        self.dags: list[LockedDag] = []
        self.reached = 0

    def add(self, dag: LockedDag) -> None:
        """Note a check whose DAG was locked."""
        if dag.present:
            self.dags.append(dag)

    def stop(self, event: LoggedEvent) -> bool:
        """Whether an undecided event is held; noted in it, before it has an id."""
        checks = self._checks_of(event)
        self.reached += len(checks)
        event.held = any(dag.version.check and dag.version.check.blocking for dag in checks)
        return event.held

    def _checks_of(self, event: LoggedEvent) -> list[LockedDag]:
        # What is released has been checked.
        if event.held_as or event.info.dataset.startswith(OWN_DATASETS):
            return []
        return [dag for dag in self.dags if dag.version.inputs_for(event.info.dataset)]

    def take(self, event: LoggedEvent) -> None:
        """Begin the checks of an event that has its id."""
        checks = self._uow.checks
        if event.held:
            checks.held.append(event)
        elif event.held_as:
            checks.released.append(event)
        for dag in self._checks_of(event):
            policy = dag.version.check
            if policy is None:
                continue
            draft = None if dag.held else self._begin(dag, event)
            checks.begun.append(
                BegunCheck(
                    event,
                    dag.id,
                    policy.blocking,
                    policy.severity,
                    None if draft is None else draft.id,
                    None if draft is None else draft.run_id,
                )
            )
            checks.changes.append(
                CheckChanged(
                    check=check_name(dag.version.spec.dag_id),
                    event_id=event.info.event_id,
                    dataset=event.info.dataset,
                    dag_id=dag.version.spec.dag_id,
                    run_id=None if draft is None else str(draft.run_id),
                    outcome=CheckVerdict.WAITING,
                    severity=policy.severity,
                    holding=policy.blocking,
                    time=self._uow.now,
                )
            )

    def _begin(self, dag: LockedDag, event: LoggedEvent, tries: int = 1) -> RunDraft:
        """Make a run that checks an event; a run id is reserved."""
        cause = f"an event of {event.info.dataset} is checked"
        key = check_run_key(event.info.event_id, tries)
        draft = self._scheduler.draft(dag, key, CHECK_RUN, cause)
        draft.partition = event.info.partition
        draft.events = [ConsumedEvent(event, 0)]
        self._scheduler.begin(draft)
        return draft

    async def runs_ended(self, runs: Iterable[RunWork]) -> None:
        """Conclude what runs of checks have found, and release the events that now may pass."""
        found: dict[int, Conclusion] = {}
        holding: set[int] = set()
        for run in runs:
            policy = run.version.check
            if policy is not None:
                value = run.results.get(0) if run.outcome is RunState.SUCCESS else None
                found[run.id] = conclude(policy, value, _error_of(run))
                if holds(policy, found[run.id]):
                    holding.add(run.id)
        await self._conclude(found, holding)

    async def _conclude(self, found: dict[int, Conclusion], holding: Collection[int]) -> None:
        """Record conclusions of runs, which of them hold, and what follows."""
        fetch = self._transaction.fetch
        locked = [row["id"] for row in await fetch("lock_held_of_runs", sorted(found))]
        rows = await self._transaction.fetch_rows(
            "conclude_checks",
            [
                (
                    run,
                    each.outcome,
                    each.severity,
                    printable(each.description),
                    json_text(each.metadata),
                    run in holding,
                )
                for run, each in sorted(found.items())
            ],
        )
        await self._release_unheld(locked)
        await self._announce(rows)

    async def _announce(self, rows: Sequence[Row]) -> None:
        """Open alerts of checks that have failed, and end those of others."""
        self._uow.checks.changes.extend(map(self._change, rows))
        bad = [
            row
            for row in rows
            if row["outcome"] in (CheckVerdict.FAILED, CheckVerdict.ERROR)
            and row["severity"] == "error"
        ]
        failed = []
        for row in sorted(bad, key=lambda row: (row["dag"], row["run"])):
            name = self._uow.schedule.dags[row["dag"]].version.spec.dag_id
            what = describe_hold(name, row["outcome"], row["description"])
            text = f"event {row['event_id']} is {what}"
            if not row["holding"]:
                text = text.replace(" is held by check ", " has failed check ", 1)
            failed.append((row["dag"], row["run"], row["uri"], text))
        await self._transaction.write("open_check_alerts", failed)
        passed = {row["dag"] for row in rows if row["outcome"] == CheckVerdict.PASSED}
        await self._end_alerts(passed - {row["dag"] for row in bad}, _PASSED)
        self._uow.outbox.has_alerts = self._uow.outbox.has_alerts or bool(failed)

    def _change(self, row: Row) -> CheckChanged:
        dag_id = self._uow.schedule.dags[row["dag"]].version.spec.dag_id
        return CheckChanged(
            check=check_name(dag_id),
            event_id=str(row["event_id"]),
            dataset=row["uri"],
            dag_id=dag_id,
            run_id=str(row["run_id"]),
            outcome=row["outcome"],
            severity=row["severity"],
            holding=row["holding"],
            description=row["description"][:_MAX_CHARACTERS],
            time=self._uow.now,
        )

    async def _end_alerts(self, dags: Collection[int], why: str) -> None:
        if dags and await self._transaction.fetch("end_check_alerts", sorted(dags), why):
            self._uow.outbox.has_alerts = True

    async def _release_unheld(self, locked: Sequence[int]) -> None:
        """Take held events, which are locked, into the log if no check holds them any more."""
        if not locked:
            return
        rows = await self._transaction.fetch("read_unheld_events", list(locked))
        events = await load_events(rows, self._specs, self._transaction)
        for row, event in zip(rows, events, strict=True):
            task = (row["run"], row["node"], row["map_index"])
            released = new_event(
                event.info,
                None if row["run"] is None else task,
                now=self._uow.now,
                ancestry=event.ancestry,
            )
            released.held_as = row["id"]
            self._uow.log.undecided.append(released)
            self._uow.log.datasets[event.info.dataset] = row["dataset"]

    async def lock(self, events: Sequence[UUID]) -> list[Row]:
        """Lock those of events that are held, and return them."""
        return await self._transaction.fetch("lock_held_events", list(events))

    async def release(self, events: Sequence[int], by: str, note: str) -> None:
        """Release held events, which are locked, whatever their checks have found."""
        rows = await self._transaction.fetch("waive_checks", list(events), by, note)
        await self._release_unheld(events)
        await self._end_alerts({row["dag"] for row in rows}, f"its events were released by {by}")

    async def discard(self, events: Sequence[int], by: str, note: str) -> None:
        """Discard held events, which are locked: they never enter the log."""
        rows = await self._transaction.fetch("discard_held_events", list(events), by, note)
        await self._end_alerts({row["dag"] for row in rows}, f"its events were discarded by {by}")

    async def repeat(self, events: Sequence[int], check: str | None) -> list[int]:
        """Check held events, which are locked, again; return those of which a check begins anew."""
        rows = await self._transaction.fetch("repeat_checks", list(events), check)
        for dag in sorted({row["dag"] for row in rows}):
            if dag in self._uow.schedule.dags:
                await self.start_waiting(self._uow.schedule.dags[dag])
        return sorted({row["event"] for row in rows})

    async def start_waiting(self, dag: LockedDag) -> None:
        """Make the runs of a check for the next events that wait for one."""
        if dag.version.check is None or dag.held or not dag.present:
            return
        # A release locks the DAGs that subscribe now, and this check may have left the dataset.
        # So only the lock of the event keeps it from moving into the log while a run of it begins
        # here, which would then have consumed an event that is nowhere.
        await self._transaction.fetch("lock_unstarted_checks", dag.id, MOST_AT_ONCE)
        found = await self._transaction.fetch("list_unstarted_checks", dag.id, MOST_AT_ONCE)
        rows = [row for row in found if row["time"] is not None]
        pruned = [row["number"] for row in found if row["time"] is None]
        if pruned:
            await self._transaction.fetch("forget_checks", dag.id, pruned)
        if not rows:
            return
        await self._run_ids.reserve(self._transaction, len(rows))
        begun = []
        events = await load_events(rows, self._specs, self._transaction)
        for row, event in zip(rows, events, strict=True):
            draft = self._begin(dag, event, row["tries"])
            begun.append((row["number"], dag.id, draft.id, draft.run_id))
        await self._transaction.write("start_checks", begun)

    async def sweep(self, dag: LockedDag) -> None:
        """Repair what a check has left behind: it was removed, or its runs are gone."""
        policy = dag.version.check
        if policy is None:
            return
        if not dag.present or not policy.blocking:
            note = "the check blocks no more" if dag.present else "the check was removed"
            rows = await self._transaction.fetch("remove_checks", dag.id, MOST_AT_ONCE, note)
            await self._release_unheld([row["event"] for row in rows])
            if rows or not dag.present:
                await self._end_alerts({dag.id}, note)
        await self.start_waiting(dag)
        rows = await self._transaction.fetch("list_ended_checks", dag.id, MOST_AT_ONCE)
        found = {row["run"]: conclude(policy, None, f"its run is {row['state']}") for row in rows}
        holding = {run for run, each in found.items() if holds(policy, each)}
        if found:
            await self._conclude(found, holding)


def refuse_check(dag: LockedDag) -> None:
    """Refuse a command on the DAG that a check is: its runs follow from events alone.

    Raises:
        InvalidInput: It is one.
    """
    if dag.version.check is not None:
        raise InvalidInput(f"{dag.version.spec.dag_id} is a check: {CHECK_AGAIN}")


def _error_of(run: RunWork) -> str | None:
    """Return why a run of a check has not succeeded."""
    for task in run.ended_tasks:
        if task.error is not None:
            return f"{task.error.type}: {task.error.message}"
    return run.error
