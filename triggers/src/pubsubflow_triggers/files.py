"""File triggers: wait for files on the triggerer's machine or a shared file system."""

import glob
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from stat import S_ISREG

import msgspec
from anyio.to_thread import run_sync
from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_interval
from pubsubflow_triggers.folders import DEEP, FLAT, FolderListener, Folders
from pubsubflow_triggers.sightings import Sighting, Sightings

_MARGIN = timedelta(minutes=1)
"""Tolerance for a clock that is set back, or another machine's clock, during a restart."""


class _Files(Trigger, frozen=True, kw_only=True):
    stable_seconds: float = 0.0
    min_bytes: int = 0
    interval: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid field."""
        kind = type(self).__name__
        if self.stable_seconds < 0 or self.min_bytes < 0:
            raise DefinitionError(f"{kind}: stable_seconds and min_bytes must not be negative")
        check_interval(kind, self.interval)

    def share_key(self) -> str:
        """Share one watcher among equal triggers."""
        return msgspec.json.encode(self).decode()

    async def _follow(
        self,
        ctx: TriggerContext,
        scan: Callable[[], list[Sighting]],
        folder: Path,
        watcher: Folders,
    ) -> AsyncIterator[TriggerEvent]:
        """Scan at each change that the system reports, and yield new files."""
        stable = timedelta(seconds=self.stable_seconds)
        seen = Sightings(ctx.position, stable=stable, margin=_MARGIN, min_bytes=self.min_bytes)
        backoff = Backoff(ctx, str(folder))
        identity, listener = None, None
        with ExitStack() as listening:
            while True:
                try:
                    found_identity, found = await run_sync(
                        _scan_folder, folder, scan, abandon_on_cancel=True
                    )
                except PermissionError as error:
                    raise TriggerError(f"{type(self).__name__} may not look: {error}") from error
                except OSError as error:
                    await backoff.failed(error)
                    continue
                backoff.reached()
                # The folder was made, removed or replaced: watch the present one.
                if found_identity != identity:
                    listening.close()
                    identity = found_identity
                    listener = (
                        listening.enter_context(watcher.listening(identity.path))
                        if identity
                        else None
                    )
                for each in seen.update(found, ctx.now()):
                    yield seen.report(each)
                await self._pause(ctx, listener, seen.settles_at())

    async def _pause(
        self, ctx: TriggerContext, listener: FolderListener | None, until: datetime | None
    ) -> None:
        """Return when the next scan is due."""
        seconds = self.interval.total_seconds()
        if until is not None:
            seconds = min(seconds, max(0.0, (until - ctx.now()).total_seconds()))
        if listener is None:
            await ctx.sleep(seconds)
            return
        if (reason := listener.new_failure()) is not None:
            ctx.log("file.polled", folder=str(listener.folder), reason=reason)
        await listener.changes(ctx, seconds)


class FileAppears(_Files, frozen=True, kw_only=True):
    """Fires when a file is there and complete; again when it is there with other content.

    The system reports changes (inotify, FSEvents). Where it does not, as in a folder that does not
    exist yet or on a network file system, it scans at intervals.

    Attributes:
        path: Absolute path.
        stable_seconds: How long its size and time must not have changed; 0 does not wait.
        min_bytes: A smaller file does not count.
        interval: How often to look where the system reports nothing; at least 0.1 s.

    The payload is `{"path", "size", "modified"}`: bytes, and ISO 8601 in UTC.
    """

    path: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for a path that is not absolute."""
        super().__post_init__()
        if not Path(self.path).is_absolute():
            raise DefinitionError(f"FileAppears: path must be absolute, not {self.path!r}")

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield the file when it is there, and each time that it is another."""
        return self._follow(ctx, partial(_sightings, [self.path]), Path(self.path).parent, FLAT)


class FileGlob(_Files, frozen=True, kw_only=True):
    """Fires for each file whose path matches a pattern, those that are there already first.

    As `Dataset(watch=…)` it fires once for every file, also for those that appear while nothing
    runs. Files are in the order of their changes.

    Attributes:
        pattern: Absolute; `*`, `?` and `[…]` within a name, `**` for any folders.
        stable_seconds: How long a file's size and time must not have changed; 0 does not wait.
        min_bytes: Smaller files do not count.
        interval: How often to look where the system reports nothing; at least 0.1 s.

    The payload is that of FileAppears.
    """

    pattern: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for a pattern that is not absolute, or is a plain path."""
        super().__post_init__()
        if not Path(self.pattern).is_absolute():
            raise DefinitionError(f"FileGlob: pattern must be absolute, not {self.pattern!r}")
        if not glob.has_magic(self.pattern):
            raise DefinitionError(
                f"FileGlob: {self.pattern!r} has no wildcard; FileAppears waits for one file"
            )

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield each file that matches."""
        folder = Path(self.pattern).parent
        deep = glob.has_magic(str(folder))
        while glob.has_magic(str(folder)):
            folder = folder.parent
        return self._follow(ctx, partial(_search, self.pattern), folder, DEEP if deep else FLAT)


def _search(pattern: str) -> list[Sighting]:
    return _sightings(glob.iglob(pattern, recursive=True))  # noqa: PTH207 - takes absolute patterns


def _sightings(paths: Iterable[str]) -> list[Sighting]:
    found = []
    for path in paths:
        try:
            facts = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if S_ISREG(facts.st_mode):
            found.append(_sighting(path, facts))
    return found


def _sighting(path: str, facts: os.stat_result) -> Sighting:
    """Return the sighting of a file, ordered by its time of change, which programs cannot set."""
    modified = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat()
    return Sighting(
        id=f"{path}:{facts.st_mtime_ns}:{facts.st_size}",
        stamp=facts.st_ctime,
        size=facts.st_size,
        payload={"path": path, "size": facts.st_size, "modified": modified},
    )


class _FolderIdentity(Struct, frozen=True):
    path: Path
    inode: int


def _scan_folder(
    folder: Path, scan: Callable[[], list[Sighting]]
) -> tuple[_FolderIdentity | None, list[Sighting]]:
    """Return the identity of a folder, if it exists, and its matching files."""
    if not folder.is_dir():
        return None, []
    return _FolderIdentity(folder.resolve(), folder.stat().st_ino), scan()
