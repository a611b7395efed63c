"""Disk trigger: waits for free space."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from anyio.to_thread import run_sync

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent


class DiskHasSpace(Trigger, frozen=True, kw_only=True):
    """Fires when a file system has enough free space.

    Attributes:
        path: A folder in it.
        min_bytes: The required free space.
        interval: Time between two polls.
    """

    path: str
    min_bytes: int
    interval: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        if not Path(self.path).is_absolute():
            raise DefinitionError(f"DiskHasSpace: path must be absolute, not {self.path!r}")

    def share_key(self) -> str:
        return f"{self.path} {self.min_bytes} {self.interval}"

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        while True:
            try:
                usage = await run_sync(shutil.disk_usage, self.path, abandon_on_cancel=True)
            except FileNotFoundError as error:
                raise TriggerError(f"DiskHasSpace: {self.path} does not exist") from error
            if usage.free >= self.min_bytes:
                yield TriggerEvent(payload={"free_bytes": usage.free})
            await ctx.sleep(self.interval.total_seconds())
