"""Handler of orders that the worker of this daemon gives back, or did not get."""

from collections.abc import Sequence

from pubsubflow.manager.handlers.handler import Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.persistence.load import RunLocks
from pubsubflow.model.wire.commands import ReturnDirectOrders


class ReturnDirectOrdersHandler(Handler):
    """Hands tasks out anew, over the bus, that their worker holds no longer."""

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Lock the tasks."""
        locks.tasks.update(fence[:3] for item in items for fence in item.message.fences)

    def apply(self, item: InboxItem) -> None:
        """Hand them out, unless they are not the worker's: never committed, or handed out since."""
        command: ReturnDirectOrders = item.message
        for number, node, map_index, *fence in command.fences:
            run = self._uow.runs.by_id.get(number)
            task = None if run is None else run.live.get((node, map_index))
            if run is None or task is None or run.outcome is not None:
                continue
            is_own = task.direct and task.worker == command.worker
            if is_own and [task.attempt, task.delivery] == fence:
                self._context.lifecycle.retries.hand_out(run, (node, map_index), task, task.attempt)
