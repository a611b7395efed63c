"""Folder watching with one thread for all triggers of the process."""

import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
from watchfiles import watch

from pubsubflow.model.triggers import TriggerContext

_GATHER_MS = 200
_STEP_MS = 20


class FolderListener:
    """A listener for changes in one folder.

    Attributes:
        folder: The folder, without symbolic links.
        failure: The reason why the system reports no changes, or None.
    """

    def __init__(self, folder: Path, loop: AbstractEventLoop) -> None:
        self.folder = folder
        self.failure: str | None = None
        self._reported: str | None = None
        self._loop = loop
        self._event = anyio.Event()

    async def changes(self, ctx: TriggerContext, seconds: float) -> None:
        """Return when something has changed since the last call, or after so many seconds."""
        async with anyio.create_task_group() as group:

            async def expire() -> None:
                await ctx.sleep(seconds)
                group.cancel_scope.cancel()

            group.start_soon(expire)
            await self._event.wait()
            group.cancel_scope.cancel()
        if self._event.is_set():
            self._event = anyio.Event()

    def new_failure(self) -> str | None:
        """Return a new reason why the system reports no changes, once."""
        if self.failure == self._reported:
            return None
        self._reported = self.failure
        return self.failure

    def wake(self) -> None:
        """Wake the trigger that waits; from any thread."""
        # It raises RuntimeError when the loop is closed: then nothing waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._event.set()


class Folders:
    """Watches any number of folders from one thread, which lives while it has listeners.

    When a folder is added, a new watcher for all folders replaces the old one; all listeners are
    woken then, as a change in between may be lost.

    Args:
        recursive: Whether changes in folders below count.
    """

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._lock = threading.Lock()
        self._listeners: set[FolderListener] = set()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def listening(self, folder: Path) -> Iterator[FolderListener]:
        """Watch a folder while the block lasts."""
        listener = FolderListener(folder, get_running_loop())
        self._add(listener)
        try:
            yield listener
        finally:
            self._remove(listener)

    def _add(self, listener: FolderListener) -> None:
        with self._lock:
            self._listeners.add(listener)
            self._changed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="folders", daemon=True)
                self._thread.start()

    def _remove(self, listener: FolderListener) -> None:
        with self._lock:
            self._listeners.discard(listener)
            if not self._listeners:
                self._changed.set()

    def _work(self) -> None:
        """Watch until no listener is left."""
        while True:
            with self._lock:
                self._changed.clear()
                listeners = set(self._listeners)
                if not listeners:
                    self._thread = None
                    return
            self._watch(listeners)

    def _watch(self, listeners: set[FolderListener]) -> None:
        """Watch for the present listeners, until others are added."""
        folders = sorted(
            {str(listener.folder) for listener in listeners if listener.folder.is_dir()}
        )
        stop_flag = _StopFlag(self._changed, partial(_call, listeners, None))
        try:
            changes = watch(
                *folders,
                watch_filter=None,
                debounce=_GATHER_MS,
                step=_STEP_MS,
                stop_event=stop_flag,
                recursive=self._recursive,
                raise_interrupt=False,
                ignore_permission_denied=True,
            )
            for change in changes:
                self._notify(listeners, {Path(path) for _, path in change})
        except (OSError, RuntimeError) as error:
            # Too many watches, or a folder has just vanished.
            _call(listeners, str(error))
            self._changed.wait()

    def _notify(self, listeners: set[FolderListener], paths: set[Path]) -> None:
        touched = paths | {path.parent for path in paths}
        if self._recursive:
            touched |= {parent for path in paths for parent in path.parents}
        for listener in listeners:
            if listener.folder in touched:
                listener.wake()


class _StopFlag:
    """The stop flag of a watcher, which calls `notify` when it is first read."""

    # The watcher has no other sign that it watches: from its first read on, no change is lost.

    def __init__(self, stop: threading.Event, notify: Callable[[], None]) -> None:
        self._stop = stop
        self._notify = notify
        self._notified = False

    def is_set(self) -> bool:
        if not self._notified:
            self._notified = True
            self._notify()
        return self._stop.is_set()


def _call(listeners: set[FolderListener], failure: str | None) -> None:
    for listener in listeners:
        listener.failure = failure
        listener.wake()


FLAT = Folders(recursive=False)
DEEP = Folders(recursive=True)
