"""Handlers of commands on pools and limits of tags."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.handlers.handler import BatchContext, Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.runs.pools import SlotAllocator, change_pool
from pubsubflow.manager.runs.tag_limits import TagLimits
from pubsubflow.model.limits.run_limits import RUNS
from pubsubflow.model.runs.concurrency import POOL, TAG
from pubsubflow.model.wire.commands import DeletePool


class ChangePoolHandler(Handler):
    """Sets and deletes pools, limits of tags and limits of runs."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._freed: set[str] = set()

    async def resolve(self, items: Sequence[InboxItem]) -> None:
        """Change limits of tags, before anything else of the batch is read."""
        tagged = [item for item in items if item.message.name.startswith(TAG)]
        of_runs = [item for item in items if item.message.name.startswith(RUNS)]
        if not (tagged or of_runs):
            return
        # Before all that decides: who hands out tasks or starts runs has read these limits, and is
        # waited for. So none of them holds the slots then, and their lock is free.
        await self._transaction.fetch("lock_tag_limits")
        if [item for item in of_runs if await self._change(item)]:
            self._uow.schedule.start_queued = True
        if not tagged:
            return
        await self._transaction.fetch("lock_slots")
        changed = {item.message.name for item in tagged if await self._change(item)}
        if changed:
            limits = TagLimits(self._uow, self._transaction, self._context.specs)
            self._freed = await limits.apply(changed)

    async def on_pools(self, items: Sequence[InboxItem], slots: SlotAllocator) -> None:
        """Change the pools one by one."""
        for item in items:
            name = item.message.name
            if name.startswith(TAG):
                if isinstance(item.message, DeletePool) and item.error is None:
                    slots.withdraw(name)
            elif not name.startswith(RUNS) and await self._change(item):
                self._freed.add(f"{POOL}{name}")
        slots.free(self._freed)

    async def _change(self, item: InboxItem) -> bool:
        try:
            await change_pool(self._transaction, item.message, tried=item.tried)
        except (InvalidInput, NotFound) as error:
            item.error = error
            return False
        return True
