"""Tells when something changes in folders: one thread for all triggers of the process."""

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


class Ear:
    """Hears of changes in one folder.

    Attributes:
        folder: Where, without symbolic links.
        deaf: Why the system tells nothing, or None.
    """

    def __init__(self, folder: Path, loop: AbstractEventLoop) -> None:
        self.folder = folder
        self.deaf: str | None = None
        self._complained: str | None = None
        self._loop = loop
        self._event = anyio.Event()

    async def news(self, ctx: TriggerContext, seconds: float) -> None:
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

    def newly_deaf(self) -> str | None:
        """Return why the system tells nothing any more, once."""
        if self.deaf == self._complained:
            return None
        self._complained = self.deaf
        return self.deaf

    def call(self) -> None:
        """Wake who waits; from any thread."""
        with suppress(RuntimeError):  # its loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._event.set()


class Folders:
    """Watches any number of folders from one thread, which lives while somebody listens.

    When a folder joins, a new watcher for all takes the old one's place; whoever listens is called
    then, as something may have changed in between.

    Args:
        recursive: Whether changes in folders below count.
    """

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._lock = threading.Lock()
        self._ears: set[Ear] = set()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def listening(self, folder: Path) -> Iterator[Ear]:
        """Watch a folder while the block lasts."""
        ear = Ear(folder, get_running_loop())
        self._join(ear)
        try:
            yield ear
        finally:
            self._leave(ear)

    def _join(self, ear: Ear) -> None:
        with self._lock:
            self._ears.add(ear)
            self._changed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="folders", daemon=True)
                self._thread.start()

    def _leave(self, ear: Ear) -> None:
        with self._lock:
            self._ears.discard(ear)
            if not self._ears:
                self._changed.set()

    def _work(self) -> None:
        """Watch until nobody listens any more."""
        while True:
            with self._lock:
                self._changed.clear()
                ears = set(self._ears)
                if not ears:
                    self._thread = None
                    return
            self._watch(ears)

    def _watch(self, ears: set[Ear]) -> None:
        """Watch for those who listen now, until others join."""
        folders = sorted({str(ear.folder) for ear in ears if ear.folder.is_dir()})
        started = _Started(self._changed, partial(_call, ears, None))
        try:
            changes = watch(
                *folders,
                watch_filter=None,
                debounce=_GATHER_MS,
                step=_STEP_MS,
                stop_event=started,
                recursive=self._recursive,
                raise_interrupt=False,
                ignore_permission_denied=True,
            )
            for change in changes:
                self._tell(ears, {Path(path) for _, path in change})
        except (OSError, RuntimeError) as error:  # too many watches, or a folder just vanished
            _call(ears, str(error))
            self._changed.wait()

    def _tell(self, ears: set[Ear], paths: set[Path]) -> None:
        touched = paths | {path.parent for path in paths}
        if self._recursive:
            touched |= {parent for path in paths for parent in path.parents}
        for ear in ears:
            if ear.folder in touched:
                ear.call()


class _Started:
    """Says whether a watcher has to stop; that it asks shows that it watches.

    It has no other sign for that.
    """

    def __init__(self, stop: threading.Event, tell: Callable[[], None]) -> None:
        self._stop = stop
        self._tell = tell
        self._told = False

    def is_set(self) -> bool:
        if not self._told:
            self._told = True
            self._tell()
        return self._stop.is_set()


def _call(ears: set[Ear], deaf: str | None) -> None:
    for ear in ears:
        ear.deaf = deaf
        ear.call()


FLAT = Folders(recursive=False)
DEEP = Folders(recursive=True)
