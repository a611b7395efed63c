"""The watch of the DAGs folder, wherever the folder is at the moment."""

import os
import platform
import sys
from collections.abc import Callable

import anyio
import anyio.abc
import structlog
from watchfiles import Change, awatch

from pubsubflow.loader.folder import Folder
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.loader.watch.folder_events import FolderEvents
from pubsubflow.services import next_turn

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_STEP_MILLISECONDS = 200
_QUIET_SECONDS = 0.05
# The subsystem of Windows has no events of its drives, which `watchfiles` looks at in turns.
_HAS_EVENTS = (
    sys.platform == "linux"
    and "microsoft" not in platform.release().lower()
    and "WATCHFILES_FORCE_POLLING" not in os.environ
)


class FolderWatch:
    """Notices changes in the folder, and that another folder has taken its place.

    Args:
        folder: The DAGs folder.
        settings: How long changes are gathered.
        changed: Called at every change.
    """

    def __init__(
        self, folder: Folder, settings: LoaderSettings, changed: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._changed = changed
        self._deleted = False

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            place = self._folder.place()
            self._deleted = False
            async with anyio.create_task_group() as group:
                if place is not None:
                    watch = self._watch_events if _HAS_EVENTS else self._watch_elsewhere
                    group.start_soon(watch, *place.paths)
                # A notification about the folder itself comes from its parent, or from that of a
                # link on the way to it. Looking is cheaper than watching all of these. A folder
                # that is made anew may get the inode of the one that was deleted.
                while self._folder.place() == place and not self._deleted:  # noqa: ASYNC110
                    await anyio.sleep_until(next_turn(_LOOK_SECONDS))
                group.cancel_scope.cancel()
            self._changed()

    async def _watch_events(self, *paths: str) -> None:
        """Watch by events of the system: nothing turns while nothing happens."""
        try:
            with FolderEvents(self._folder.is_relevant) as events:
                for path in paths:
                    events.add(path)
                while not events.ended:
                    if await events.wait():
                        await self._gather(events)
                        self._changed()
                self._deleted = True
        except OSError as error:
            self._log_failure(paths, error)

    async def _gather(self, events: FolderEvents) -> None:
        """Wait until nothing has happened for a moment: who saves a file writes several times."""
        with anyio.move_on_after(self._settings.gather_milliseconds / 1000):
            quiet = False
            while not (quiet or events.ended):
                with anyio.move_on_after(_QUIET_SECONDS) as moment:
                    await events.wait()
                quiet = moment.cancelled_caught

    async def _watch_elsewhere(self, *paths: str) -> None:
        halt = anyio.Event()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_set_when_cancelled, halt)
                changes = awatch(
                    *paths,
                    watch_filter=lambda _, changed: self._folder.is_relevant(changed),
                    debounce=self._settings.gather_milliseconds,
                    step=_STEP_MILLISECONDS,
                    stop_event=halt,
                )
                async for found in changes:
                    self._deleted = any((Change.deleted, path) in found for path in paths)
                    self._changed()
                    if self._deleted:
                        break
                group.cancel_scope.cancel()
        except* (OSError, RuntimeError) as errors:
            self._log_failure(paths, errors.exceptions[0])

    def _log_failure(self, paths: tuple[str, ...], error: BaseException) -> None:
        # Gone between two looks, or the system has no watches left: the scans go on.
        log.warning("loader.watch_failed", path=", ".join(paths), error=str(error))


async def _set_when_cancelled(event: anyio.Event) -> None:
    """Set an event when this task is cancelled.

    The watch waits in a thread, which cancellation does not reach.
    """
    try:
        await anyio.sleep_forever()
    finally:
        event.set()
