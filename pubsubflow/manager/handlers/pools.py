"""Handlers of commands on pools."""

from collections.abc import Sequence

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.handlers.handler import Handler
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.runs.pools import SlotAllocator


class ChangePoolHandler(Handler):
    """Sets and deletes pools."""

    async def on_pools(self, items: Sequence[InboxItem], slots: SlotAllocator) -> None:
        """Change the pools one by one."""
        for item in items:
            try:
                await slots.change_pool(item.message, tried=item.tried)
            except (InvalidInput, NotFound) as error:
                item.error = error
