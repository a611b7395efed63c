"""DAG states of a batch: locks them, decides the batch's events, and admits the runs that follow.

Runs may end at once and emit events of their own, so this goes in rounds until nothing is left.
"""

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.persistence.load import ConditionStates, IdAllocator, load_events
from pubsubflow.manager.runs.clearing import decode_reopened
from pubsubflow.manager.runs.event_waits import mark_due_waits
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.schedules.admission import Admission
from pubsubflow.manager.schedules.backfills import Backfills
from pubsubflow.manager.schedules.checks import EventChecks
from pubsubflow.manager.schedules.consuming import WHOLE, Routing, route
from pubsubflow.manager.schedules.firing import Scheduler
from pubsubflow.manager.spec_cache import SpecCache
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LockedDag, LoggedEvent, RunWork
from pubsubflow.model.limits.run_limits import RUNS, limits_of_tags
from pubsubflow.store.batches.manager_transaction import LockedStates, ManagerTransaction, Row

LAST = 2**62
"""An id above those of all events."""
_MAX_ROUNDS = 1000
_MAX_NEW_RUNS = 100_000
_EVENTS_A_READ = 10_000


class DagStates:
    """The scheduling half of one batch.

    Args:
        uow: What the transaction changes.
        transaction: Locks and reads DAG states.
        specs: DAG versions and dataset ids.
        run_ids: Gives run ids.
        scheduler: Decides which runs exist.
        lifecycle: Starts runs.
        admission: Admits runs.

    Attributes:
        conditions: Loads states of conditions.
        checks: Holds events that are checked.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        transaction: ManagerTransaction,
        specs: SpecCache,
        run_ids: IdAllocator,
        *,
        scheduler: Scheduler,
        lifecycle: RunLifecycle,
        admission: Admission,
    ) -> None:
        self._uow = uow
        self._transaction = transaction
        self._specs = specs
        self._run_ids = run_ids
        self._scheduler = scheduler
        self._lifecycle = lifecycle
        self._admission = admission
        self.conditions = ConditionStates(uow, transaction)
        self.checks = EventChecks(uow, transaction, specs, run_ids, scheduler)
        self._by_name: dict[str, int] = {}
        self._remembered: list[str] = []
        self._by_uri: dict[str, list[LockedDag]] = {}
        self._by_pattern: list[LockedDag] = []
        self._routings: list[list[Routing]] = []
        self._reached = 0

    async def find(self, names: AbstractSet[str]) -> set[int]:
        """Return the ids of DAGs by their names; those that do not exist are left out.

        Ids that are remembered may be out of date: once they are locked, see `confirm_names`.
        """
        self._by_name = self._specs.known_dags(names)
        self._remembered = list(self._by_name)
        await self._read_names(names - self._by_name.keys())
        return set(self._by_name.values())

    async def confirm_names(self) -> None:
        """Look up anew what was remembered of DAGs that are locked and were deleted since."""
        # A DAG that is present has kept its name; one that was deleted is not, and may have lost it
        # to another one.
        stale = {name for name in self._remembered if not self._is_present(name)}
        if stale:
            for name in stale:
                del self._by_name[name]
            await self._read_names(stale)
            await self.lock({self._by_name[name] for name in stale & self._by_name.keys()})

    def _is_present(self, name: str) -> bool:
        dag = self._uow.schedule.dags.get(self._by_name[name])
        return dag is not None and dag.present

    async def _read_names(self, names: Collection[str]) -> None:
        rows = await self._transaction.fetch("find_dags", sorted(names)) if names else ()
        for row in rows:
            if row["version"]:
                self._by_name[row["dag_id"]] = row["id"]
                self._specs.remember_dag(row["dag_id"], row["id"])

    def named(self, name: str) -> LockedDag:
        """Return a locked DAG by its name.

        Raises:
            NotFound: It does not exist.
        """
        if name not in self._by_name:
            raise NotFound("DAG", name)
        return self._uow.schedule.dags[self._by_name[name]]

    async def lock(self, dags: Iterable[int]) -> None:
        """Lock DAGs, and those that undecided events and ended runs concern.

        Event ids are allocated under these locks, so for every DAG their order is the order in
        which its events are decided.
        """
        uow, locked = self._uow, self._uow.schedule.dags
        events, known = uow.log.undecided, uow.log.datasets
        ended = (run.version.dag for run in uow.runs.by_id.values() if run.uncounted)
        wanted = sorted({*dags, *ended} - locked.keys())
        uris = {event.info.dataset for event in events}
        # What is released at the end of a check reaches the DAGs of its dataset: locked in order.
        checked = (
            run
            for run in uow.runs.by_id.values()
            if run.uncounted and run.version.check is not None and not run.new
        )
        uris.update(event.dataset for run in checked for event in run.info.events or ())
        if not uris <= known.keys():
            known.update(await self._specs.dataset_ids(self._transaction, uris - known.keys()))
        datasets = sorted(known[uri] for uri in uris)
        if datasets or wanted:
            found = await self._transaction.lock_dag_states(datasets, wanted, len(events))
            rows = found.dags
            ids = [row["version"] for row in rows]
            ids += [row["canary"] for row in rows if row["canary"] is not None]
            versions = await self._specs.versions(self._transaction, ids)
            for row in rows:
                if row["dag"] not in locked:
                    version, canary = versions[row["version"]], versions.get(row["canary"])
                    dag = locked[row["dag"]] = LockedDag(row, version, canary)
                    if dag.version.check is not None:
                        self.checks.add(dag)
                        continue
                    for uri in dag.version.exact if dag.present else ():
                        self._by_uri.setdefault(uri, []).append(dag)
                    if dag.version.patterns and dag.present:
                        self._by_pattern.append(dag)
            if rows and rows[0]["tag_limits"]:
                self._limit_by_tags(rows)
            if events:
                await self._number(events, datasets, found)

    def _limit_by_tags(self, rows: Sequence[Row]) -> None:
        """Take the limits of tags, of tasks and of runs, and put DAGs under those of runs."""
        uow, names = self._uow, frozenset(rows[0]["tag_limits"])
        of_runs = frozenset(name for name in names if name.startswith(RUNS))
        uow.runs.tag_limits, uow.schedule.run_limits = names - of_runs, of_runs
        for row in rows if of_runs else ():
            dag = uow.schedule.dags[row["dag"]]
            dag.run_limits = limits_of_tags(dag.version.spec.tags, of_runs)

    async def _number(
        self, events: Sequence[LoggedEvent], datasets: Sequence[int], found: LockedStates
    ) -> None:
        """Give events their ids, and load the conditions that they reach."""
        self._routings = []
        checks = self.checks
        checks.reached = 0
        for event in events:
            uri = event.info.dataset
            if checks.dags and checks.stop(event):
                self._routings.append([])
                continue
            dags = self._by_uri.get(uri, [])
            if self._by_pattern:
                # A DAG with an exact input as well is among the others already.
                dags = dags + [
                    dag
                    for dag in self._by_pattern
                    if uri not in dag.version.exact and dag.version.inputs_for(uri)
                ]
            self._routings.append([route(event, dag) for dag in dags])
        reached = [
            (routing.dag, key)
            for routings in self._routings
            for routing in routings
            for key in routing.inputs
        ]
        self._reached = len(reached) + checks.reached
        read = found.conditions
        whole = {dag.id for dag, key in reached if key == WHOLE and key not in dag.conditions}
        rows = [read[dag] for dag in whole & read.keys() if read[dag]["state"] is not None]
        if rows:
            await self.conditions.add(rows)
        await self.conditions.load(
            (dag, key) for dag, key in reached if key != WHOLE or dag.id not in read
        )
        for event, event_id in zip(events, found.event_ids, strict=True):
            event.id = event_id
        if found.awaited:
            await mark_due_waits(events, datasets, self._uow, self._transaction)

    async def decide(self) -> None:
        """Decide all undecided events, and all that follows from them in this transaction.

        Raises:
            InvalidInput: DAGs set each other off without end.
        """
        uow = self._uow
        for _ in range(_MAX_ROUNDS):
            # One run at most for each condition that an event reaches. Not reserved earlier:
            # commands have allocated ids since the lock.
            if self._run_ids.left < self._reached:
                await self._run_ids.reserve(self._transaction, self._reached)
            self._decide_events()
            if any(dag.unadmitted for dag in uow.schedule.dags.values()):
                await self._admission.admit()
            ended = [run for run in uow.runs.by_id.values() if run.uncounted]
            if ended or self._admission.refused:
                await self._count_out(ended)
            # Runs that ended have made room by now, also for those of this batch.
            for dag in uow.schedule.dags.values():
                if dag.queued and not dag.run_limits:
                    await self._start_queued(dag)
                if dag.backfills and dag.advancing:
                    await self._backfills.advance(dag)
            if not (
                uow.log.undecided
                or any(dag.unadmitted for dag in uow.schedule.dags.values())
                or any(run.uncounted for run in uow.runs.by_id.values())
            ):
                return
            if len(uow.schedule.drafts) > _MAX_NEW_RUNS:
                break
            await self.lock(())
        last = list(uow.schedule.drafts.values())[-100:]
        names = sorted({draft.dag.version.spec.dag_id for draft in last})
        raise InvalidInput(
            f"DAGs set each other off without end: {', '.join(names)}; "
            "break the circle of their datasets"
        )

    def _decide_events(self) -> None:
        """Decide the events that have ids, and record them."""
        log, decided = self._uow.log, len(self._routings)
        for event, routings in zip(log.undecided[:decided], self._routings, strict=True):
            for routing in routings:
                self._scheduler.receive_event(routing)
            if self.checks.dags or event.held_as:
                self.checks.take(event)
            if not event.held:
                log.recorded.append(event)
        # A run that was opened again since may have emitted more: these are the next round's.
        log.undecided = log.undecided[decided:]
        self._routings = []

    async def _count_out(self, ended: Iterable[RunWork]) -> None:
        """Count runs out that have ended or were refused; a run that collected may start then."""
        counted: list[LockedDag] = []
        checked: list[RunWork] = []
        for run in ended:
            dag = self._uow.schedule.dags.get(run.version.dag)
            if dag is not None:  # else the next round locks it
                run.uncounted = False
                dag.end_run()
                counted.append(dag)
                if dag.backfills:
                    dag.ended_runs.append(run.id)
                if run.version.check is not None:
                    checked.append(run)
        for dag in counted:
            # Whose limit has room now depends on which of them were apart.
            if dag.ended_runs:
                await self._backfills.settle(dag)
            await self._start_latest(dag)
        if checked:
            await self.checks.runs_ended(checked)
        while self._admission.refused:
            await self._start_latest(self._admission.refused.pop(0))

    async def _start_latest(self, dag: LockedDag) -> None:
        if dag.starts_latest:
            await self.conditions.load_open(dag)
            self._scheduler.start_latest(dag)

    async def _start_queued(self, dag: LockedDag) -> None:
        """Start queued runs where there is room."""
        room = dag.version.spec.max_active_runs - (dag.active - dag.apart)
        if room <= 0:
            return
        await self.start_taken(dag, await self._transaction.fetch("dequeue_runs", dag.id, room))
        self._admission.start_queued(dag)

    async def start_taken(self, dag: LockedDag, rows: Sequence[Row]) -> None:
        """Start runs of a DAG that were taken out of its queue."""
        if rows:
            await self._transaction.fetch("start_queued_runs", [row["run"] for row in rows])
            dag.start_queued(len(rows))
        versions = await self._specs.versions(self._transaction, [row["version"] for row in rows])
        for row in rows:
            reopened = None if row["progress"] is None else decode_reopened(row["progress"])
            self._lifecycle.start(
                row["run"],
                versions[row["version"]],
                row["info"],
                reopened=reopened,
                source=row["source"],
            )

    @property
    def _backfills(self) -> Backfills:
        return Backfills(
            self._uow,
            self._transaction,
            self._run_ids,
            scheduler=self._scheduler,
            conditions=self.conditions,
        )

    async def catch_up(self, dag: LockedDag) -> None:
        """Decide the events that a DAG has not decided about yet, one by one, in order."""
        since = dag.catch_up_from
        if since is None:
            return
        dag.catch_up_from = None
        dag.changed = True
        # An event of the past, which others have, is not checked.
        while dag.version.check is None:
            rows = await self._transaction.fetch(
                "read_events_of_dag", dag.id, since, LAST, _EVENTS_A_READ
            )
            events = await load_events(rows, self._specs, self._transaction)
            routings = [route(event, dag) for event in events]
            reached = [(dag, key) for routing in routings for key in routing.inputs]
            await self._run_ids.reserve(self._transaction, len(reached))
            await self.conditions.load(reached)
            for routing in routings:
                self._scheduler.offer(routing)
            if len(rows) < _EVENTS_A_READ:
                return
            since = rows[-1]["id"] + 1
