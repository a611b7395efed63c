"""Handler of checks of tasks that wait for the previous run of their DAG.

A check reads the previous run without its lock, so it may miss an end that is being committed. It
is made after the commit of what makes a task wait, and after that of each end: one of the two sees
both. A check that finds another previous run is followed by one more, for the same reason.
"""

from collections.abc import Sequence

from pubsubflow.manager.handlers.handler import Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import RunLocks
from pubsubflow.manager.unit_of_work import PastCheck
from pubsubflow.manager.working_state import RunWork
from pubsubflow.model.runs.node_progress import UNDECIDED
from pubsubflow.model.runs.past import PastRun, ended_nodes, unmet_task
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.runs.stored.split_progress import decode_stored
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.batches.manager_transaction import Row

_Previous = tuple[int, PastRun]


class CheckPastWaitsHandler(Handler):
    """Starts tasks for which the previous run is as they need it."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Find the waiting tasks, and lock their runs."""
        runs = sorted({run for item in items for run in item.message.runs})
        changed = sorted({run for item in items for run in item.message.changed})
        self._waiting = await self._transaction.fetch("find_past_waits", runs, changed)
        locks.tasks.update((row["run"], row["node"], NOT_MAPPED) for row in self._waiting)

    async def on_runs(self, items: Sequence[InboxItem]) -> None:  # noqa: ARG002 - see before_runs
        """Release the tasks that need not wait."""
        known: dict[int, _Previous | None] = {}
        for row in self._waiting:
            run = self._uow.runs.by_id.get(row["run"])
            if run is None or run.progress.nodes[row["node"]].total != UNDECIDED:
                self._uow.waits.released.append((row["run"], row["node"]))
                continue
            if run.id not in known:
                known[run.id] = await self._previous(run)
            self._check(run, row, known[run.id])

    def _check(self, run: RunWork, row: Row, previous: _Previous | None) -> None:
        node = row["node"]
        past = None if previous is None else previous[1]
        task = unmet_task(run.version.spec.tasks[node], past)
        if task is None or previous is None:
            self._context.lifecycle.release(run, node)
            return
        found = PastCheck(run.id, node, previous[0], task)
        self._uow.waits.past_checks.append(found)
        if found.on_run != row["on_run"]:
            self._uow.waits.past_to_check.append(run.id)

    async def _previous(self, run: RunWork) -> _Previous | None:
        """Return the previous run of a run, as it is committed."""
        rows = await self._transaction.fetch("find_previous_run", run.id)
        if not rows:
            return None
        row = rows[0]
        versions = await self._context.specs.versions(self._transaction, [row["version"]])
        spec = versions[row["version"]].spec
        if not RunState(row["state"]).final:
            live = await self._transaction.fetch("read_live_runs", [row["id"]])
            # A queued run has no live row; nor has one that has ended since the first statement.
            nodes = (
                decode_stored(live[0]["progress"], live[0]["chunks"]).nodes
                if live
                else ended_nodes(spec, ())
            )
            return row["id"], PastRun(spec, nodes)
        ended = await self._transaction.fetch("read_finished_tasks", row["id"])
        states = [(each["node"], TaskState(each["state"])) for each in ended]
        return row["id"], PastRun(spec, ended_nodes(spec, states))
