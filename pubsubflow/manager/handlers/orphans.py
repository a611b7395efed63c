"""Handler of orphaned tasks: those whose worker lives, and has neither them nor their results."""

from collections.abc import Sequence

from pubsubflow.manager.handlers.handler import Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import RunLocks
from pubsubflow.manager.working_state import LiveTask, RunWork
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.commands import RequeuedOrphan, RequeueOrphans
from pubsubflow.model.wire.messages import NO_NODE, Fence, Outcome, ResultMessage, TaskError

_TEXT = (
    "worker {} lives and has neither this task nor its result: NATS has lost the result before a "
    "manager took it, so the task runs again"
)


class RequeueOrphansHandler(Handler):
    """Ends the attempts of orphaned tasks as lost: they are handed out again."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the tasks."""
        locks.tasks.update(fence[:3] for item in items for _, fence in item.message.orphans)

    def apply(self, item: InboxItem) -> None:
        """End the attempts of those that are still as they were found."""
        command: RequeueOrphans = item.message
        item.answer = [
            self._requeue(run, task, worker, fence)
            for worker, fence in command.orphans
            for run, task in self._find(worker, fence)
        ]

    def _find(self, worker: str, fence: Fence) -> list[tuple[RunWork, LiveTask]]:
        """Return the run and the task, unless it has ended or changed hands since."""
        number, *key, attempt, delivery = fence
        run = self._uow.runs.by_id.get(number)
        task = None if run is None else run.live.get((key[0], key[1]))
        if run is None or task is None or task.state is not TaskState.RUNNING:
            return []
        same = (task.worker, task.attempt, task.delivery) == (worker, attempt, delivery)
        return [(run, task)] if same else []

    def _requeue(self, run: RunWork, task: LiveTask, worker: str, fence: Fence) -> RequeuedOrphan:
        now = self._uow.now.timestamp()
        started_at = now if task.started_at is None else task.started_at.timestamp()
        _, node, map_index, *_ = fence
        self._context.lifecycle.attempt_ended(
            ResultMessage(
                *fence,
                worker,
                Outcome.LOST,
                started_at,
                now,
                error=TaskError("Lost", _TEXT.format(worker)),
                # Any node: it says that the task was part of a chain.
                after=node if task.chained else NO_NODE,
            )
        )
        spec = run.version.spec
        name = spec.tasks[node].task_id
        return RequeuedOrphan(spec.dag_id, run.info.run_id, name, map_index, worker)
