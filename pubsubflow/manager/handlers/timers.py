"""Handlers of due timers, and of checks of event waits."""

from collections.abc import Collection, Sequence

from pubsubflow.manager.handlers.handler import BatchContext, DagLocks, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import RunLocks
from pubsubflow.manager.runs.callbacks import DEADLINE_TIMER
from pubsubflow.manager.runs.event_waits import EventWaitCheck
from pubsubflow.manager.runs.waits import WAIT_TIMERS
from pubsubflow.manager.schedules.consuming import WHOLE
from pubsubflow.manager.schedules.timers import ScheduleTimers, needs_open_conditions
from pubsubflow.manager.working_state import LockedDag
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import NOT_MAPPED

_TASK_TIMERS = ("retry", *WAIT_TIMERS)
RETURNED = "returned"
"""The key of the timer `subscribe` for a DAG that was missing; see `resume_returned_dags`."""
_RUNS_OF_ONE_DEADLINE = 1000
_DAG_TIMERS = ("tick", "late", "flush", "subscribe")


class FireTimersHandler(Handler):
    """Acts on timers that are due: first those of runs, then those of DAGs."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._claimed: set[int] = set()

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the runs and tasks whose timers are due."""
        for timer in _due(items).values():
            if timer.run is None:
                continue
            if timer.kind == "run_timeout":
                locks.runs.add(timer.run)
            elif timer.kind == DEADLINE_TIMER:
                locks.bare.add(timer.run)
            elif timer.kind in _TASK_TIMERS and timer.node is not None:
                index = NOT_MAPPED if timer.map_index is None else timer.map_index
                locks.tasks.add((timer.run, timer.node, index))

    async def before_dags(self, items: Sequence[InboxItem], locks: DagLocks) -> None:
        """Claim the timers, and act on those of runs; lock the DAGs of the others.

        They are claimed under the locks of their runs, as the end of a run deletes its timers
        under that lock. Another manager may have claimed them: it acts on them then.
        """
        due = _due(items)
        rows = await self._transaction.fetch("claim_timers", sorted(due))
        self._claimed = {row["id"] for row in rows}
        lifecycle, passed = self._context.lifecycle, list[Timer]()
        for timer in (due[number] for number in due if number in self._claimed):
            if timer.kind == "retry":
                lifecycle.retries.retry_due(timer)
            elif timer.kind == "run_timeout":
                lifecycle.time_out(timer)
            elif timer.kind in WAIT_TIMERS:
                lifecycle.wait_ended(lifecycle.waits.timer_due(timer))
            elif timer.kind == DEADLINE_TIMER:
                passed.append(timer)
            elif timer.kind == "rate_limit":
                self._uow.runs.woken_rate_limits.add(timer.key or "")
            elif timer.dag is not None:
                locks.dags.add(timer.dag)
        if passed:
            await self._open_alerts(passed)

    async def _open_alerts(self, passed: Sequence[Timer]) -> None:
        """Open alerts for deadlines of runs that have not ended, nor end in this transaction."""
        ended = {run.id for run in self._uow.runs.by_id.values() if run.outcome is not None}
        rows = [
            (timer.run, timer.node or 0, *(timer.key or "").split("\n", 1), "")[:4]
            for timer in sorted(passed, key=lambda each: (each.run or 0, each.node or 0))
            if timer.run not in ended
        ]
        await self._transaction.write("open_deadline_alerts", rows)
        self._uow.outbox.has_alerts = True

    async def on_dags(self, items: Sequence[InboxItem]) -> None:
        """Act on the timers of DAGs."""
        timers = ScheduleTimers(self._uow, self._context.scheduler)
        for number, timer in _due(items).items():
            dag = self._uow.schedule.dags.get(timer.dag or 0)
            if number not in self._claimed or timer.kind not in _DAG_TIMERS:
                continue
            if dag is None or not dag.present:
                continue  # if the DAG comes back, it gets its timers anew
            await self._context.run_ids.reserve(self._transaction, 1)
            if timer.kind == "tick":
                await self._tick(dag, timer, timers)
            elif timer.kind == "subscribe":
                # Transactions that record events now may not know of the subscription: wait for
                # their end, or an event would be neither decided nor caught up with.
                await self._transaction.fetch("lock_dag_subscriptions")
                if not dag.held:
                    returned = timer.key == RETURNED
                    context = self._context
                    await (context.resume(dag) if returned else context.dags.catch_up(dag))
            else:
                await self._context.dags.conditions.load([(dag, timer.key or WHOLE)])
                timers.condition_due(dag, timer, await self._deadline_runs(dag, timer, timers))

    async def _deadline_runs(
        self, dag: LockedDag, timer: Timer, timers: ScheduleTimers
    ) -> Collection[str]:
        """Return those keys of a deadline's run that are taken."""
        first = timers.deadline_keys(dag, timer, [1]) if timer.kind == "late" else []
        taken = await self._context.admission.existing(dag, first) if first else {}
        if taken:
            # Rare enough to be worth another statement: a replay came before the deadline's timer.
            more = timers.deadline_keys(dag, timer, range(1, _RUNS_OF_ONE_DEADLINE))
            taken = await self._context.admission.existing(dag, more)
        return taken.keys()

    async def _tick(self, dag: LockedDag, timer: Timer, timers: ScheduleTimers) -> None:
        due = timers.next_tick(dag, timer)
        if due is None:
            return
        if needs_open_conditions(dag):
            await self._context.dags.conditions.load_open(dag)
        else:
            await self._context.dags.conditions.load([(dag, WHOLE)])
        conditions = timers.conditions_at_tick(dag)
        await self._context.run_ids.reserve(self._transaction, len(conditions))
        keys = [due.run_key(condition.key) for condition in conditions]
        timers.tick(dag, due, await self._context.admission.existing(dag, keys))


def _due(items: Sequence[InboxItem]) -> dict[int, Timer]:
    """Return the timers of commands by their numbers: two commands may name the same one."""
    return {timer.number: timer for item in items for timer in item.message.timers}


class CheckEventWaitsHandler(Handler):
    """Checks event waits of deferred tasks against the log."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the tasks whose waits are to be checked."""
        locks.tasks.update(task for item in items for task in item.message.tasks)

    async def before_dags(
        self,
        items: Sequence[InboxItem],
        locks: DagLocks,  # noqa: ARG002 - it concerns no DAG
    ) -> None:
        """Check the waits; their lock comes after those of runs and before those of DAGs."""
        check = EventWaitCheck(
            self._uow, self._transaction, self._context.specs, self._context.lifecycle
        )
        await check.check(task for item in items for task in item.message.tasks)
